"""A backend in memory, with the faults of real ones, for tests of the kernel.

``MemoryBackend`` is the backend: it outlives adapters and daemons, as real backends do, and counts
what is done to it. ``MemoryAdapter`` speaks to it by the contract. Faults are armed by hand, one at
a time: a request lost before its effect, a reply lost after it, any exception for an answer.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from windlass_schemas import Artifact, Deployment, Job, Model, digest_of, dump_resource


@dataclass
class Held:
    """One resource in the backend."""

    external: External
    owner_uid: str
    digest: str
    body: Mapping[str, JsonValue]
    state: State
    outputs: Mapping[str, Artifact] = field(default_factory=dict)
    message: str = ""
    attempt_counts: bool = True


@dataclass
class MemoryBackend:
    """What exists, what was done to it, and what goes wrong next."""

    held: dict[tuple[str, str], Held] = field(default_factory=dict)
    """By role and name."""
    calls: Counter[str] = field(default_factory=Counter)
    """How often each operation was asked for, by its name."""
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each effect happened, by effect (``create``, ``update``, ``delete``) and name."""
    faults: dict[str, deque[Exception]] = field(default_factory=dict)
    """Exceptions to raise instead of answering, by operation."""
    lost_replies: Counter[str] = field(default_factory=Counter)
    """How many of the next calls have their effect and no reply, by operation."""
    settles: bool = True
    """Whether what lasts is live at once; otherwise ``settle`` makes it so."""

    def fail(self, operation: str, *errors: Exception) -> None:
        """Let the next calls of an operation raise these, before any effect."""
        self.faults.setdefault(operation, deque()).extend(errors)

    def call(self, operation: str) -> None:
        """Count a call, and raise the fault that is armed for it."""
        self.calls[operation] += 1
        armed = self.faults.get(operation)
        if armed:
            raise armed.popleft()

    def reply(self, operation: str) -> None:
        """Lose the reply, if that is armed."""
        if self.lost_replies[operation] > 0:
            self.lost_replies[operation] -= 1
            raise AmbiguousError(f"no reply to {operation}")

    def named(self, role: str, name: str = "") -> Held:
        """The one resource of that role whose name starts so. Raises LookupError."""
        found = [h for (r, n), h in self.held.items() if r == role and n.startswith(name)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} resources are {role} {name}")
        return found[0]

    def finish(
        self, name: str = "", *, ok: bool = True, message: str = "", counts: bool = True
    ) -> None:
        """End the one run of that name that is going on."""
        running = [
            held
            for (role, n), held in self.held.items()
            if role == "run" and n.startswith(name) and held.state is State.PROGRESSING
        ]
        (held,) = running
        held.state = State.SUCCEEDED if ok else State.FAILED
        held.message, held.attempt_counts = message, counts
        outputs = held.body.get("outputs")
        if ok and isinstance(outputs, dict):
            held.outputs = {o: _artifact(f"{held.digest}/{o}", o) for o in outputs}

    def settle(self) -> None:
        """Let everything that is being made be done."""
        for held in self.held.values():
            if held.state is State.PROGRESSING and held.external.role != "run":
                held.state = State.LIVE

    def mutations(self) -> int:
        """How many effects there have been."""
        return self.effects.total()


def _artifact(content: str, name: str) -> Artifact:
    data = content.encode()
    return Artifact(digest="sha256:" + hashlib.sha256(data).hexdigest(), size=len(data), name=name)


class _NoFields(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MemoryAdapter(Adapter):
    """Speaks to a MemoryBackend by the contract, with deterministic names."""

    params_model: ClassVar[type[BaseModel]] = _NoFields
    options_models: ClassVar[Mapping[str, type[BaseModel]]] = {
        "Job": _NoFields,
        "Model": _NoFields,
        "Deployment": _NoFields,
    }
    backend: ClassVar[MemoryBackend]
    """Set by ``for_backend``: adapters are built by the kernel, the backend by the test."""
    facts: ClassVar[Capabilities] = Capabilities(
        poll_interval=timedelta(seconds=1), resync_interval=timedelta(seconds=60)
    )

    def __init__(self, context: AdapterContext, params: BaseModel) -> None:
        self._context = context

    @classmethod
    def for_backend(
        cls, backend: MemoryBackend, capabilities: Capabilities | None = None
    ) -> type[MemoryAdapter]:
        """An adapter class that speaks to this backend."""
        facts = capabilities or cls.facts
        return type("BoundMemoryAdapter", (cls,), {"backend": backend, "facts": facts})

    @property
    def capabilities(self) -> Capabilities:
        return self.facts

    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        self.backend.call("observe_many")
        return {external: self._look(external) for _, external in externals}

    def _look(self, external: External) -> Observation:
        held = self.backend.held.get((external.role, external.name))
        return Absent() if held is None else _found(held)

    async def find(self, owner: Owner) -> Sequence[Found]:
        self.backend.call("find")
        return [_found(h) for h in self.backend.held.values() if h.owner_uid == owner.uid]

    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        operation = "create" if isinstance(action, Create) else "update"
        self.backend.call(operation)
        wanted = action.wanted
        name = (wanted.role, wanted.name)
        held = self.backend.held.get(name)
        if held is None or isinstance(action, Update):
            self.backend.effects[operation, wanted.name] += 1
            settled = State.LIVE if self.backend.settles else State.PROGRESSING
            held = Held(
                external=External(wanted.role, wanted.name, wanted.name),
                owner_uid=owner.uid,
                digest=wanted.digest,
                body=wanted.body,
                state=State.PROGRESSING if wanted.completes else settled,
                outputs={} if wanted.completes else {"artifact": _artifact(wanted.digest, "model")},
            )
            self.backend.held[name] = held
        self.backend.reply(operation)
        return _found(held)

    async def delete(self, owner: Owner, external: External) -> None:
        self.backend.call("delete")
        if self.backend.held.pop((external.role, external.name), None) is not None:
            self.backend.effects["delete", external.name] += 1
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
                for later in ("timeLimit", "retries", "onChange"):
                    body.pop(later, None)
                digest = digest_of(body)
                name = f"{owner.key.namespace}.{owner.key.name}-{owner.uid[:8]}-{digest[7:15]}"
                return (Wanted("run", name, digest, body, completes=True),)
            case Model() | Deployment():
                role = "artifact" if isinstance(resource, Model) else "server"
                name = f"{owner.key.namespace}.{owner.key.name}-{owner.uid[:8]}"
                return (Wanted(role, name, digest_of(body), body),)
            case _:
                return ()

    def diff(self, wanted: Wanted, found: Found) -> tuple[Change, ...]:
        held = self.backend.held[wanted.role, wanted.name].body
        return tuple(
            Change(f"/{path}", held.get(path), value)
            for path, value in wanted.body.items()
            if held.get(path) != value
        )

    def classify(self, exception: Exception) -> ErrorClass:
        return AmbiguousError if isinstance(exception, TimeoutError) else TransientError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


def _found(held: Held) -> Found:
    return Found(
        external=held.external,
        owner_uid=held.owner_uid,
        state=held.state,
        digest=None if held.state is State.PROGRESSING else held.digest,
        pending_digest=held.digest if held.state is State.PROGRESSING else None,
        message=held.message,
        attempt_counts=held.attempt_counts,
        outputs=held.outputs,
    )
