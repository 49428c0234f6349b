"""Targets at work: one opened adapter for each, with its observer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import JsonValue

from windlass.checks import BUILT_IN_ADAPTER
from windlass.observer import Observer
from windlass.registry import Registry, check_fields
from windlass.store.base import Object, Store
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import Adapter, AdapterContext, Capabilities, TerminalError
from windlass_schemas import (
    BUILT_IN_TARGET,
    DEFAULT_NAMESPACE,
    Key,
    Reason,
    Target,
    digest_of,
)

_log = structlog.get_logger("windlass.targets")


@dataclass(frozen=True)
class OpenTarget:
    """A target with its adapter opened."""

    id: str
    """``namespace/name``."""
    adapter: Adapter
    observer: Observer
    digest: str
    """Of the adapter's name and parameters; another one reopens the adapter."""

    @property
    def capabilities(self) -> Capabilities:
        return self.adapter.capabilities


class Targets:
    """Opens adapters by target, and keeps them."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        artifacts: ArtifactStore,
        folder: Path,
        built_in: Mapping[str, JsonValue],
    ) -> None:
        """``folder`` has a folder per target; ``built_in`` are the parameters of ``local``."""
        self._store = store
        self._registry = registry
        self._artifacts = artifacts
        self._folder = folder
        self._built_in = built_in
        self._open: dict[str, OpenTarget] = {}
        self._opening = asyncio.Lock()

    async def of(self, object_: Object) -> OpenTarget:
        """The target that an object names; a Target object names itself."""
        resource = object_.resource
        if isinstance(resource, Target):
            return await self.named(resource.metadata.namespace, resource.metadata.name)
        return await self.named(resource.metadata.namespace, resource.spec.target)

    async def named(self, namespace: str, name: str) -> OpenTarget:
        """The target of that name, as a spec in that namespace sees it.

        Raises TerminalError when it is not declared, or its adapter is missing or refuses its
        parameters.
        """
        declared = await self._store.get(Key("Target", namespace, name))
        if declared is None and name == BUILT_IN_TARGET:
            namespace = DEFAULT_NAMESPACE
            declared = await self._store.get(Key("Target", namespace, name))
        if declared is not None:
            assert isinstance(declared.resource, Target)
            spec = declared.resource.spec
            return await self._opened(f"{namespace}/{name}", spec.adapter, spec.params)
        if name == BUILT_IN_TARGET:
            return await self._opened(f"{namespace}/{name}", BUILT_IN_ADAPTER, self._built_in)
        raise TerminalError(
            f"there is no Target {name!r} in namespace {namespace!r}; declare it",
            reason=Reason.DEPENDENCY_NOT_READY,
        )

    async def by_id(self, id_: str) -> OpenTarget:
        """The target that a record of ours names."""
        namespace, _, name = id_.partition("/")
        return await self.named(namespace, name)

    def capabilities(self, id_: str) -> Capabilities | None:
        """Of a target that is open already."""
        found = self._open.get(id_)
        return found.capabilities if found else None

    async def _opened(
        self, id_: str, adapter_name: str, params: Mapping[str, JsonValue]
    ) -> OpenTarget:
        digest = digest_of([adapter_name, dict(params)])
        found = self._open.get(id_)
        if found is not None and found.digest == digest:
            return found
        async with self._opening:
            found = self._open.get(id_)
            if found is not None and found.digest == digest:
                return found
            kind = self._registry.get(adapter_name)
            checked = check_fields(kind.params_model, params, "spec.params")
            context = AdapterContext(
                install=self._store.install,
                target=id_,
                state=self._folder / id_,
                artifacts=self._artifacts,
            )
            adapter = await kind(context, checked).__aenter__()
            if found is not None:
                await self._close(found)
            self._open[id_] = OpenTarget(id_, adapter, Observer(adapter), digest)
            return self._open[id_]

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
