"""Targets at work: one opened adapter for each, with its observer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import structlog
from prometheus_client import Counter
from pydantic import JsonValue

from windlass.checks import BUILT_IN_ADAPTER
from windlass.keys import KEY_FILE
from windlass.observer import Observer
from windlass.reading import Reading
from windlass.registry import Registry, check_fields
from windlass.store.base import Object, Store
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import (
    Adapter,
    AdapterContext,
    AdapterError,
    AmbiguousError,
    Capabilities,
    CountsCalls,
    Create,
    External,
    FindsOrphans,
    Found,
    Measures,
    Number,
    Observation,
    Owner,
    TellsChanges,
    TerminalError,
    Update,
    WaitingError,
)
from windlass_schemas import (
    BUILT_IN_TARGET,
    DEFAULT_NAMESPACE,
    Key,
    Reason,
    Target,
)

T = TypeVar("T")

_log = structlog.get_logger("windlass.targets")


class UndeclaredError(TerminalError):
    """No Target of that name is declared, nor built in."""

    def __init__(self, namespace: str, name: str) -> None:
        super().__init__(
            f"there is no Target {name!r} in namespace {namespace!r}; declare it",
            reason=Reason.DEPENDENCY_NOT_READY,
        )


class ElsewhereError(WaitingError):
    """The target lives on the host of another daemon, which alone can reach it."""

    def __init__(self, target: str, home: str) -> None:
        super().__init__(
            f"target {target} lives on the host of daemon {home}; ask that one: --server"
        )
        self.home = home


class OpenTarget:
    """A target with its adapter opened. Every call to the adapter goes through here.

    Calls are bounded in time, counted, and fail with one of the four classes of AdapterError only.
    """

    def __init__(
        self, id_: str, adapter: Adapter, declared: tuple[str, dict[str, JsonValue]], calls: Counter
    ) -> None:
        self.id = id_
        """``namespace/name``."""
        self.adapter = adapter
        self.declared = declared
        """The adapter's name and parameters; others reopen the adapter."""
        self._calls = calls
        self._observer = Observer(self._ask)

    @property
    def capabilities(self) -> Capabilities:
        return self.adapter.capabilities

    async def observe(
        self, owner: Owner, externals: Sequence[External]
    ) -> Mapping[External, Observation]:
        """Look at externals, together with whoever else asks now. Never raises AdapterError."""
        return await self._observer.observe(owner, externals)

    async def _ask(self, asked: Sequence[tuple[Owner, External]]) -> Mapping[External, Observation]:
        return await self._call("observe", self.adapter.observe_many(asked))

    async def find(self, owner: Owner) -> Sequence[Found]:
        """Everything that carries the owner's tag."""
        return await self._call("find", self.adapter.find(owner))

    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        """Create or update."""
        operation = "create" if isinstance(action, Create) else "update"
        return await self._call(operation, self.adapter.apply(owner, action))

    async def delete(self, owner: Owner, external: External) -> None:
        """Ask for removal."""
        await self._call("delete", self.adapter.delete(owner, external))

    async def _call(self, operation: str, call: Awaitable[T]) -> T:
        seconds = self.capabilities.timeout.total_seconds()
        error: AdapterError
        try:
            async with asyncio.timeout(seconds):
                result = await call
        except TimeoutError:
            error = AmbiguousError(f"target {self.id} did not answer within {seconds:g} s")
        except AdapterError as raised:
            error = raised
        except Exception as raised:
            error = self.adapter.classify(raised)(str(raised) or type(raised).__name__)
            error.__cause__ = raised
        else:
            self._calls.labels(operation, "ok").inc()
            return result
        self._calls.labels(operation, _class_name(error)).inc()
        raise error


def _class_name(error: AdapterError) -> str:
    """``transient``, ``waiting``, ``terminal`` or ``ambiguous``."""
    return type(error).__name__.removesuffix("Error").lower()


class Targets:
    """Opens adapters by target, and keeps them."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        artifacts: ArtifactStore,
        folder: Path,
        built_in: Mapping[str, JsonValue],
        calls: Counter,
    ) -> None:
        """``folder`` has a folder per target; ``built_in`` are the parameters of ``local``."""
        self._store = store
        self._registry = registry
        self._artifacts = artifacts
        self._folder = folder
        self._built_in = built_in
        self._calls = calls
        self._open: dict[str, OpenTarget] = {}
        self._opening = asyncio.Lock()
        self.moved = asyncio.Event()
        """Set when a target was opened or closed."""

    async def of(self, object_: Object, reading: Reading) -> OpenTarget:
        """The target that an object names; a Target object names itself."""
        resource = object_.resource
        if isinstance(resource, Target):
            return await self.named(resource.metadata.namespace, resource.metadata.name, reading)
        return await self.named(resource.metadata.namespace, resource.spec.target, reading)

    async def named(self, namespace: str, name: str, reading: Reading) -> OpenTarget:
        """The target of that name, as a spec in that namespace sees it, read by ``reading``.

        Raises UndeclaredError; TerminalError when its adapter is missing or refuses its parameters;
        ElsewhereError or WaitingError when it lives on another host.
        """
        declared = await reading.get(Key("Target", namespace, name))
        if declared is None and name == BUILT_IN_TARGET:
            namespace = DEFAULT_NAMESPACE
            declared = await reading.get(Key("Target", namespace, name))
        if declared is not None:
            assert isinstance(declared.resource, Target)
            spec = declared.resource.spec
            return await self._opened(f"{namespace}/{name}", spec.adapter, spec.params)
        if name == BUILT_IN_TARGET:
            return await self._opened(f"{namespace}/{name}", BUILT_IN_ADAPTER, self._built_in)
        raise UndeclaredError(namespace, name)

    async def by_id(self, id_: str, reading: Reading) -> OpenTarget:
        """The target that a record of ours names."""
        namespace, _, name = id_.partition("/")
        return await self.named(namespace, name, reading)

    def api_calls(self) -> Iterator[tuple[str, Mapping[tuple[str, str], int]]]:
        """Target and counted calls of each open adapter that counts them."""
        for id_, target in self._open.items():
            if isinstance(target.adapter, CountsCalls):
                yield id_, target.adapter.api_calls()

    def numbers(self) -> Mapping[str, Sequence[Number]]:
        """What each open adapter counts on its own, by target."""
        return {
            id_: list(target.adapter.numbers())
            for id_, target in self._open.items()
            if isinstance(target.adapter, Measures)
        }

    def telling(self) -> Mapping[OpenTarget, TellsChanges]:
        """The open ones that tell what changes, with their adapters."""
        return {
            target: target.adapter
            for target in self._open.values()
            if isinstance(target.adapter, TellsChanges)
        }

    def finding_orphans(self) -> Iterator[tuple[str, FindsOrphans]]:
        """Target and adapter of each open one that can tell what nobody declares."""
        for id_, target in list(self._open.items()):
            if isinstance(target.adapter, FindsOrphans):
                yield id_, target.adapter

    def capabilities(self, id_: str) -> Capabilities | None:
        """Of a target that is open already."""
        found = self._open.get(id_)
        return found.capabilities if found else None

    async def _opened(
        self, id_: str, adapter_name: str, params: Mapping[str, JsonValue]
    ) -> OpenTarget:
        declared = (adapter_name, dict(params))
        found = self._open.get(id_)
        if found is not None and found.declared == declared:
            return found
        async with self._opening:
            found = self._open.get(id_)
            if found is not None and found.declared == declared:
                return found
            kind = self._registry.get(adapter_name)
            checked = check_fields(kind.params_model, params, "spec.params")
            context = AdapterContext(
                install=self._store.install,
                target=id_,
                state=self._folder / id_,
                artifacts=self._artifacts,
                keys=(self._folder.parent / KEY_FILE).absolute(),
            )
            unopened = kind(context, checked)
            try:
                await self._check_home(id_, unopened.capabilities.daemon)
            except AdapterError:  # it has moved away
                if self._open.pop(id_, None) is not None and found is not None:
                    self.moved.set()
                    await self._close(found)
                raise
            adapter = await unopened.__aenter__()
            if found is not None:
                await self._close(found)
            self._open[id_] = OpenTarget(id_, adapter, declared, self._calls)
            self.moved.set()
            return self._open[id_]

    async def _check_home(self, id_: str, daemon: str | None) -> None:
        """Refuse a target that lives on another daemon's host. Raises WaitingError."""
        roster = self._store.roster
        if roster is None or daemon is None:
            return
        home = await roster.bind(id_, daemon)
        if home.mine:
            return
        if home.alive:
            raise ElsewhereError(id_, home.daemon)
        raise WaitingError(
            f"target {id_} lives on the host of daemon {home.daemon}, which is silent;"
            " start it there, or give the target another daemon: spec.params.daemon",
            reason=Reason.HOST_AWAY,
        )

    async def _close(self, target: OpenTarget) -> None:
        try:
            async with asyncio.timeout(target.capabilities.timeout.total_seconds()):
                await target.adapter.__aexit__(None, None, None)
        except Exception:  # a stop goes on whatever one adapter does
            _log.exception("adapter did not close", target=target.id)

    async def close(self) -> None:
        """Close every adapter, each within its timeout."""
        while self._open:
            _, target = self._open.popitem()
            await self._close(target)
