"""A daemon with a real store and a real HTTP API, and with nothing behind it: no worker runs.

Tests declare objects and write outcomes themselves, as a source and a pass would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, JsonValue

from windlass.api.listening import bind
from windlass.api.runtime import Check, Runtime
from windlass.api.server import create_app, serve
from windlass.clock import utc_now
from windlass.metrics import Metrics
from windlass.orphans import Orphans
from windlass.settings import Settings
from windlass.store.base import (
    Applied,
    Document,
    ExternalRecord,
    Object,
    Outcome,
    RecordState,
    Snapshot,
)
from windlass.store.sqlite import SqliteStore
from windlass_adapters.base import (
    Absent,
    Adapter,
    AdapterContext,
    AdapterError,
    Capabilities,
    Change,
    Create,
    Desired,
    ErrorClass,
    External,
    FindsOrphans,
    Found,
    InferReply,
    Infers,
    LogChunk,
    Observation,
    Owner,
    ReadsLogs,
    State,
    TransientError,
    Update,
    Wanted,
)
from windlass_schemas import (
    CONDITION_EVENT,
    CloudEvent,
    Condition,
    ConditionData,
    ConditionType,
    ExternalStatus,
    Key,
    Reason,
    Status,
    Truth,
    digest_of_resource,
    parse_resource,
)

SOURCE = "git:specs"


class NoParams(BaseModel):
    """An adapter without parameters."""


class QuietAdapter(Adapter):
    """A backend that holds nothing."""

    params_model: ClassVar[type[BaseModel]] = NoParams
    options_models: ClassVar[Mapping[str, type[BaseModel]]] = {}

    def __init__(self, context: AdapterContext, params: BaseModel) -> None:
        self.context = context

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        return {external: Absent() for _, external in externals}

    async def find(self, owner: Owner) -> Sequence[Found]:
        return ()

    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        name = action.wanted.name
        return Found(External(action.wanted.role, name, name), owner.uid, State.PROGRESSING)

    async def delete(self, owner: Owner, external: External) -> None:
        return None

    def normalise(self, desired: Desired) -> tuple[Wanted, ...]:
        return ()

    def diff(self, wanted: Wanted, found: Found) -> tuple[Change, ...]:
        return ()

    def classify(self, exception: Exception) -> ErrorClass:
        return TransientError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


class TalkingAdapter(QuietAdapter, ReadsLogs, Infers):
    """A backend whose one run writes what the test says, and whose one model echoes."""

    def __init__(self, context: AdapterContext, params: BaseModel) -> None:
        super().__init__(context, params)
        self.output: dict[tuple[str, str], bytes] = {}
        """By external name and stream."""
        self.ended = True
        self.asked: list[tuple[External, bytes, Mapping[str, str]]] = []
        self.refusal: AdapterError | None = None

    async def read_log(
        self, external: External, stream: Literal["stdout", "stderr"], offset: int
    ) -> LogChunk:
        if self.refusal is not None:
            raise self.refusal
        written = self.output.get((external.name, stream), b"")
        data = written[offset : offset + (1 << 16)]
        end = offset + len(data)
        return LogChunk(data, end, self.ended and end == len(written))

    async def infer(
        self, external: External, body: bytes, headers: Mapping[str, str]
    ) -> InferReply:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append((external, body, headers))
        return InferReply(200, {"content-type": "application/json"}, body)


@dataclass
class ApiDaemon(Runtime):
    """What the API asks of a daemon, for tests."""

    sqlite: SqliteStore
    config: Settings
    back: Adapter
    numbers: Metrics = field(default_factory=Metrics)
    enqueued: list[Key] = field(default_factory=list)
    busy: set[Key] = field(default_factory=set)
    checks: list[Check] = field(default_factory=lambda: [Check("store", True, "works")])
    said: list[str] = field(default_factory=list)
    readers: list[asyncio.Queue[int]] = field(default_factory=list)
    failure: AdapterError | None = None
    url: str = ""

    @property
    def store(self) -> SqliteStore:
        return self.sqlite

    @property
    def settings(self) -> Settings:
        return self.config

    @property
    def metrics(self) -> Metrics:
        return self.numbers

    @property
    def orphans(self) -> Orphans:
        return Orphans(self.sqlite, self, self.numbers)

    def finding_orphans(self) -> Iterator[tuple[str, FindsOrphans]]:
        """The one target, where its adapter can tell."""
        if isinstance(self.back, FindsOrphans):
            yield "default/local", self.back

    def enqueue(self, keys: Iterable[Key]) -> None:
        self.enqueued.extend(keys)

    async def transferred(self, to: str) -> None:
        self.said.append(f"transferred to {to}")

    def pending(self, key: Key) -> bool:
        return key in self.busy

    async def adapter(self, object: Object) -> Adapter:
        if self.failure is not None:
            raise self.failure
        return self.back

    def health(self) -> Sequence[Check]:
        return self.checks

    def notes(self) -> Sequence[str]:
        return self.said

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[int]]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        self.readers.append(queue)

        async def wakes() -> AsyncIterator[int]:
            while True:
                yield await queue.get()

        try:
            yield wakes()
        finally:
            self.readers.remove(queue)

    # -- what sources and passes would do -------------------------------------------------------

    async def declare(
        self, *documents: Mapping[str, JsonValue], revision: str = "c0ffee1234567890"
    ) -> Applied:
        """Take over these documents as the source's whole set."""
        read = []
        for number, document in enumerate(documents):
            resource = parse_resource(dict(document))
            digest = digest_of_resource(resource, {})
            read.append(Document(resource, {}, digest, "specs.yaml", number * 10 + 1))
        snapshot = Snapshot(SOURCE, revision, "Ada <ada@example.org>", tuple(read))
        return await self.sqlite.apply(snapshot, now())

    async def conclude(
        self,
        key: str,
        ready: Truth,
        reason: Reason,
        message: str = "",
        *,
        status: Status | None = None,
        externals: tuple[ExternalRecord, ...] = (),
        stalled: bool = False,
    ) -> None:
        """Write what a pass found: conditions, one event, and records."""
        claim = await self.sqlite.claim(Key.parse(key))
        assert claim is not None
        found = claim.object
        conditions = [_condition("Ready", ready, reason, message, found.generation)]
        if stalled:
            conditions.append(_condition("Stalled", "True", reason, message, found.generation))
        after = (status or found.status).model_copy(
            update={
                "conditions": tuple(conditions),
                "observed_generation": found.generation,
                "sync": "Synced" if ready == "True" else "OutOfSync",
                "health": "Healthy" if ready == "True" else "Progressing",
                "externals": tuple(_external_status(record) for record in externals)
                or found.status.externals,
            }
        )
        event = _event(found, ready, reason, message)
        await self.sqlite.commit(claim, Outcome(after, externals=externals, events=(event,)))
        for queue in self.readers:
            queue.put_nowait(1)

    async def remove(self, key: str) -> None:
        """Finalize an object: it was to go, and is gone."""
        database = self.sqlite._db
        now = utc_now().isoformat()
        await database.run(database.one, "mark_deleting", key=str(Key.parse(key)), now=now)
        claim = await self.sqlite.claim(Key.parse(key))
        assert claim is not None
        event = _event(claim.object, "False", Reason.DELETING, "gone")
        outcome = Outcome(claim.object.status, events=(event,), finalized=True)
        await self.sqlite.commit(claim, outcome)
        for queue in self.readers:
            queue.put_nowait(1)


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Look until it holds; fails when it does not in time."""
    for _ in range(int(seconds / 0.01)):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"did not come true in {seconds} s")


def now() -> datetime:
    return datetime.now(UTC)


def _condition(
    type_: ConditionType, status: Truth, reason: Reason, message: str, generation: int
) -> Condition:
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=now(),
    )


def _external_status(record: ExternalRecord) -> ExternalStatus:
    return ExternalStatus(
        role=record.wanted.role,
        name=record.wanted.name,
        external_id=record.external_id or record.wanted.name,
        state=record.state.value,
        attempt=record.attempt,
    )


def _event(found: Object, ready: Truth, reason: Reason, message: str) -> CloudEvent:
    seq = found.seq + 1
    return CloudEvent(
        id=f"{found.uid}:{seq}",
        source="/windlass/rig",
        type=CONDITION_EVENT,
        subject=str(found.key),
        time=now(),
        data=ConditionData(
            uid=found.uid,
            seq=seq,
            generation=found.generation,
            observed_generation=found.generation,
            condition="Ready",
            from_status="Unknown",
            to_status=ready,
            reason=reason,
            message=message,
            sync="Synced",
            health="Healthy",
            revision=found.revision,
            pass_id="p1",
        ),
    )


def record(
    role: str, name: str, *, completes: bool = False, attempt: int = 1, generation: int = 1
) -> ExternalRecord:
    """Books on one external that is there."""
    wanted = Wanted(role, name, "sha256:" + "0" * 64, {}, completes)
    made = ExternalRecord("default/local", wanted, RecordState.CREATED, external_id=name)
    return replace(made, attempt=attempt, generation=generation)


def job(name: str, **policy: JsonValue) -> dict[str, JsonValue]:
    """A Job's document."""
    return {
        "apiVersion": "windlass/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"team": "wine"}},
        "spec": {"command": ["true"], "timeLimit": "90s"},
        "policy": dict(policy),
    }


def deployment(name: str, namespace: str = "default") -> dict[str, JsonValue]:
    """A Deployment's document."""
    return {
        "apiVersion": "windlass/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": "wine"},
    }


@asynccontextmanager
async def api_daemon(
    folder: Path, adapter: type[QuietAdapter] = TalkingAdapter, *, port: int = 0
) -> AsyncIterator[ApiDaemon]:
    """A served API on a free port; stopped at the end."""
    config = Settings(state=folder / "state", api_port=port)
    context = AdapterContext("rig", "default/local", folder, None)  # type: ignore[arg-type]  # keeps no artifacts
    store = await SqliteStore.open(config.state / "windlass.db")
    daemon = ApiDaemon(store, config, adapter(context, NoParams()))
    listener = bind(config.api_host, port)
    daemon.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(serve(create_app(daemon), listener, stop))
            try:
                yield daemon
            finally:
                stop.set()
    finally:
        await store.close()
