"""The memory adapter: speaks to a MemoryBackend by the contract, whatever its personality.

Each call yields before its effect and after it, so that a test can stop it on either side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, JsonValue

from windlass_adapters.base import (
    Absent,
    Adapter,
    AdapterContext,
    AmbiguousError,
    Capabilities,
    Change,
    Create,
    Desired,
    ErrorClass,
    External,
    Found,
    Observation,
    Owner,
    State,
    TransientError,
    Update,
    Wanted,
)
from windlass_adapters.testing.backend import MemoryBackend
from windlass_adapters.testing.held import Held, Name
from windlass_schemas import Deployment, Job, Model, digest_of, dump_resource


class _NoFields(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MemoryAdapter(Adapter):
    """One backend in memory. ``for_backend`` binds it, since the kernel builds adapters itself."""

    params_model: ClassVar[type[BaseModel]] = _NoFields
    options_models: ClassVar[Mapping[str, type[BaseModel]]] = {
        "Job": _NoFields,
        "Model": _NoFields,
        "Deployment": _NoFields,
    }
    backend: ClassVar[MemoryBackend]
    facts: ClassVar[Capabilities] = Capabilities(
        poll_interval=timedelta(seconds=1), resync_interval=timedelta(seconds=60)
    )

    def __init__(self, context: AdapterContext, params: BaseModel) -> None:
        self._context = context
        self._bodies: dict[External, Mapping[str, JsonValue]] = {}
        """As they were at the last look."""

    @classmethod
    def for_backend(
        cls, backend: MemoryBackend, capabilities: Capabilities | None = None
    ) -> type[MemoryAdapter]:
        """An adapter class that speaks to this backend. Its soak covers the lag set by now."""
        facts = capabilities or Capabilities(
            deterministic_names=backend.personality.deterministic,
            soak=backend.lag,
            poll_interval=cls.facts.poll_interval,
            resync_interval=cls.facts.resync_interval,
        )
        return type("BoundMemoryAdapter", (cls,), {"backend": backend, "facts": facts})

    @property
    def capabilities(self) -> Capabilities:
        return self.facts

    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        await asyncio.sleep(0)
        self.backend.call("observe_many")
        seen = {external: self._look(external) for _, external in externals}
        view = self.backend.view()
        self._remember([held for _, e in externals if (held := _pick(view, e))])
        await asyncio.sleep(0)
        return seen

    def _remember(self, seen: Iterable[Held]) -> None:
        """A plan compares what was seen, not what has become of it since."""
        self._bodies |= {held.external: held.body for held in seen}

    def _look(self, external: External) -> Observation:
        held = _pick(self.backend.view(), external) or self._written(external)
        return Absent() if held is None else _found(held)

    def _written(self, external: External) -> Held | None:
        """A run that is listed no more has left its own word on how it ended."""
        return self.backend.written.get(external[:2]) if self._forgets else None

    @property
    def _forgets(self) -> bool:
        return self.backend.personality.purge_after is not None

    async def find(self, owner: Owner) -> Sequence[Found]:
        await asyncio.sleep(0)
        self.backend.call("find")
        found = [h for h in self.backend.view().values() if h.owner_uid == owner.uid]
        if self._forgets:
            listed = {h.external[:2] for h in found}
            over = [h for n, h in self.backend.written.items() if n not in listed]
            found += [h for h in over if h.owner_uid == owner.uid]
        answer = [_found(held) for held in found]
        self._remember(found)
        await asyncio.sleep(0)
        return answer

    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        operation = "create" if isinstance(action, Create) else "update"
        await asyncio.sleep(0)
        self.backend.call(operation)
        held = (
            self._create(owner, action)
            if isinstance(action, Create)
            else self._update(owner, action)
        )
        made = _found(held)
        await asyncio.sleep(0)
        self.backend.reply(operation)
        return made

    def _create(self, owner: Owner, action: Create) -> Held:
        wanted = action.wanted
        seen = _pick(self.backend.view(), External(wanted.role, wanted.name, wanted.name))
        if seen is not None and seen.owner_uid == owner.uid:
            return seen
        return self.backend.create(owner, wanted)

    def _update(self, owner: Owner, action: Update) -> Held:
        held = _pick(self.backend.held, action.external)
        if held is None:
            raise TransientError(f"{action.external.role} {action.external.name} is not there")
        return self.backend.update(owner, held, action.wanted)

    async def delete(self, owner: Owner, external: External) -> None:
        await asyncio.sleep(0)
        self.backend.call("delete")
        held = _pick(self.backend.held, external)
        if held is not None:
            self.backend.delete(owner, held)
        self.backend.written.pop(external[:2], None)
        await asyncio.sleep(0)
        self.backend.reply("delete")

    def normalise(self, desired: Desired) -> tuple[Wanted, ...]:
        resource, owner = desired.resource, desired.owner
        document = dump_resource(resource)
        spec = document["spec"]
        assert isinstance(spec, dict)
        inputs: dict[str, JsonValue] = {slot: a.digest for slot, a in desired.inputs.items()}
        files: dict[str, JsonValue] = {path: a.digest for path, a in desired.files.items()}
        body: dict[str, JsonValue] = {**spec, "inputs": inputs, "files": files}
        match resource:
            case Job():
                later = (
                    "timeLimit",
                    "retries",
                    "onChange",
                    "history",
                )  # none of it decides the result
                digest = digest_of({name: v for name, v in body.items() if name not in later})
                name = f"{owner.key.namespace}.{owner.key.name}-{owner.uid[:8]}-{digest[7:15]}"
                return (Wanted("run", name, digest, body, completes=True),)
            case Model() | Deployment():
                role = "artifact" if isinstance(resource, Model) else "server"
                name = f"{owner.key.namespace}.{owner.key.name}-{owner.uid[:8]}"
                return (Wanted(role, name, digest_of(body), body),)
            case _:
                return ()

    def diff(self, wanted: Wanted, found: Found) -> tuple[Change, ...]:
        body = self._bodies.get(found.external, wanted.body)
        return tuple(
            Change(f"/{path}", body.get(path), value)
            for path, value in wanted.body.items()
            if body.get(path) != value
        )

    def classify(self, exception: Exception) -> ErrorClass:
        return AmbiguousError if isinstance(exception, TimeoutError) else TransientError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


def _pick(held: Mapping[Name, Held], external: External) -> Held | None:
    """The one that is meant. An id alone proves nothing, since it may have been given again."""
    role, name, id_ = external
    if id_ != name:
        found = held.get((role, id_))
        return found if found is not None and found.external.name == name else None
    return next((h for h in held.values() if h.external[:2] == (role, name)), None)


def _found(held: Held) -> Found:
    moving = held.state is State.PROGRESSING
    return Found(
        external=held.external,
        owner_uid=held.owner_uid,
        state=held.state,
        digest=held.in_force if moving else held.digest,
        pending_digest=held.digest if moving else None,
        reason=held.reason,
        message=held.message,
        attempt_counts=held.attempt_counts,
        outputs=held.outputs,
    )
