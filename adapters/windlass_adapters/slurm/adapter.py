"""The Slurm adapter: hops 5 and 7 on a cluster that one reaches by SSH.

Opening it connects to nothing: the connection is made when something is first asked, and a login
node that is away makes observations Unknown, never absent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar, Literal, Self

import asyncssh
from pydantic import BaseModel

from windlass_adapters.base import (
    Adapter,
    AdapterContext,
    AdapterError,
    AmbiguousError,
    Capabilities,
    Change,
    ChecksSpecs,
    Create,
    Desired,
    ErrorClass,
    External,
    Found,
    LogChunk,
    Measures,
    Number,
    Observation,
    Owner,
    ReadsLogs,
    TellsChanges,
    TerminalError,
    TransientError,
    Update,
    WaitingError,
    Wanted,
)
from windlass_adapters.slurm.connection import Connection
from windlass_adapters.slurm.counts import Counts
from windlass_adapters.slurm.fetching import Fetching
from windlass_adapters.slurm.jobs import job_faults, wanted_run
from windlass_adapters.slurm.login import Login
from windlass_adapters.slurm.options import JobOptions
from windlass_adapters.slurm.params import SlurmParams
from windlass_adapters.slurm.runs import Runs
from windlass_adapters.slurm.staging import Staging
from windlass_adapters.slurm.submission import Submitter
from windlass_schemas import Job, Key, Resource

CALL_TIMEOUT = timedelta(seconds=180)
PASSES_PER_SECOND = 500
"""How many runs may be asked for in a second: with more of them, each is asked for less often."""
LONGEST_POLL = 2.0
"""Seconds after which a run is asked for at the latest: a change may have hurried the next look."""
AFTER_LOOK = 0.2
"""Seconds after a look is due at which a run is asked for: all of them take that one look."""
_CLASSES: tuple[ErrorClass, ...] = (TransientError, WaitingError, TerminalError, AmbiguousError)


class SlurmAdapter(Adapter, ChecksSpecs, Measures, ReadsLogs, TellsChanges):
    """One cluster."""

    params_model: ClassVar[type[BaseModel]] = SlurmParams
    options_models: ClassVar[Mapping[str, type[BaseModel]]] = {"Job": JobOptions}

    def __init__(self, context: AdapterContext, params: BaseModel) -> None:
        self._params = SlurmParams.model_validate(params.model_dump())
        self._counts = Counts()
        self.connection = self.connect(self._params, self._counts)
        install, state, counts = context.install, context.state, self._counts
        login = self.login = Login(self.connection, self._params, install, state, counts)
        staging = Staging(login, self.connection, context.artifacts)
        submitter = Submitter(login, staging, self._params, context.target)
        fetching = Fetching(login, self.connection, context.artifacts, context.state)
        self._runs = Runs(login, submitter, fetching, self._params, context.target)
        self._poll = min(self._params.limits.poll.total_seconds(), LONGEST_POLL)
        self._capabilities = Capabilities(
            soak=self._params.soak,
            resync_interval=timedelta(minutes=5),
            timeout=CALL_TIMEOUT,
            max_concurrent=self._params.limits.concurrent,
        )

    @staticmethod
    def connect(params: SlurmParams, counts: Counts) -> Connection:
        """How the login node is reached."""
        return Connection(params, counts)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.connection.close()

    @property
    def capabilities(self) -> Capabilities:
        """Constant but for the poll interval: until the next look, longer with very many runs."""
        watch = self._runs.watch
        soon = min(self._poll, watch.due_in + AFTER_LOOK)
        seconds = max(soon, watch.tracked / PASSES_PER_SECOND)
        return replace(self._capabilities, poll_interval=timedelta(seconds=seconds))

    def normalise(self, desired: Desired) -> tuple[Wanted, ...]:
        if isinstance(desired.resource, Job):
            return (wanted_run(desired, desired.resource, self._params),)
        return ()

    @staticmethod
    def faults(resource: Resource) -> Iterable[tuple[str, str]]:
        return job_faults(resource) if isinstance(resource, Job) else ()

    def diff(self, wanted: Wanted, found: Found) -> tuple[Change, ...]:
        if found.digest in (None, wanted.digest):
            return ()
        return (Change("/digest", found.digest, wanted.digest),)

    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        return await self._runs.observe(externals)

    async def changed(self) -> Collection[Key]:
        return await self._runs.changed()

    async def find(self, owner: Owner) -> Sequence[Found]:
        return await self._runs.find(owner) if owner.key.kind == "Job" else []

    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        if isinstance(action, Update):
            raise TerminalError(f"{action.wanted.name}: a run is made once and never changed")
        return await self._runs.create(owner, action)

    async def delete(self, owner: Owner, external: External) -> None:
        await self._runs.delete(owner, external)

    def numbers(self) -> Iterator[Number]:
        self._counts.tracked = self._runs.watch.tracked
        return self._counts.numbers()

    def classify(self, exception: Exception) -> ErrorClass:
        if isinstance(exception, AdapterError):
            return next(c for c in _CLASSES if isinstance(exception, c))
        if isinstance(exception, TimeoutError):
            return AmbiguousError
        if isinstance(exception, OSError | asyncssh.Error):
            return TransientError
        return TerminalError

    async def read_log(
        self, external: External, stream: Literal["stdout", "stderr"], offset: int
    ) -> LogChunk:
        return await self._runs.read_log(external, stream, offset)
