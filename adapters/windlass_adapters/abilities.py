"""What some adapters can do besides: each a protocol of its own, asked for by ``isinstance``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from windlass_adapters.externals import External, Owner, Wanted
from windlass_schemas import Key, Resource


@runtime_checkable
class ChecksSpecs(Protocol):
    """An adapter that can tell from a spec alone that it will refuse it."""

    @staticmethod
    @abstractmethod
    def faults(resource: Resource) -> Iterable[tuple[str, str]]:
        """(field, what is wrong and what to write instead), of any kind but Target. Pure."""


@runtime_checkable
class CountsCalls(Protocol):
    """An adapter that counts what it asks of a remote API: for the metric, and for budgets."""

    @abstractmethod
    def api_calls(self) -> Mapping[tuple[str, str], int]:
        """Calls so far, by operation and result: ``ok``, or a word for what went wrong."""


class Number(NamedTuple):
    """One number of an adapter's own, for Prometheus."""

    name: str
    """What follows ``windlass_``; the adapter's name comes first: ``slurm_looks``."""
    kind: Literal["counter", "gauge"]
    help: str
    value: float
    labels: Mapping[str, str] = {}
    """Beside the Target's. Few and fixed: never an object's name."""


@runtime_checkable
class TellsChanges(Protocol):
    """An adapter that sees by itself what changes, so that nobody need ask often for each thing."""

    @abstractmethod
    async def changed(self) -> Collection[Key]:
        """Wait until a pass would find something new; the objects that it would find it for.

        They are looked at now. Called again and again while the Target is open, and may be
        cancelled at any await. An answer may get lost, or name too many: that costs time only.
        """


@runtime_checkable
class Measures(Protocol):
    """An adapter with numbers of its own for Prometheus."""

    @abstractmethod
    def numbers(self) -> Iterable[Number]:
        """As they stand now. Numbers of one name follow each other."""


@runtime_checkable
class Estimates(Protocol):
    """An adapter whose externals cost money, or leave something behind."""

    @abstractmethod
    def cost(self, wanted: Sequence[Wanted]) -> str:
        """What these cost while they are there, in one line for people; empty for nothing."""

    @abstractmethod
    def remains(self, wanted: Sequence[Wanted], *, orphaned: bool) -> str:
        """What is there still after their removal, in one line for people; empty for nothing."""


class Orphan(NamedTuple):
    """Something that this installation made and no object declares."""

    role: str
    name: str
    ref: str
    """The object that it was made for: ``Kind/namespace/name``."""
    since: datetime | None
    """When it was made."""
    cost: str
    """What it costs, for people; empty for nothing."""
    free: bool
    """Whether it costs nothing and nothing uses it, so that it may simply go."""
    hourly: float | None = None
    """What it costs in an hour, where a rate is known."""


@runtime_checkable
class FindsOrphans(Protocol):
    """An adapter that can tell what no object declares any more."""

    @abstractmethod
    async def orphans(self, living: Collection[Owner]) -> Sequence[Orphan]:
        """What of this installation belongs to none of the living."""

    @abstractmethod
    async def collect(self, orphan: Orphan) -> None:
        """Remove an orphan that is free; it is looked at once more before."""

    @abstractmethod
    async def remove(self, orphan: Orphan) -> None:
        """Remove or stop an orphan that somebody has named, whatever it costs.

        It is looked at once more before: what has another owner by now stays.
        """


class LogChunk(NamedTuple):
    """A piece of a run's output."""

    data: bytes
    next_offset: int
    complete: bool
    """True when the run has ended and nothing will follow."""


@runtime_checkable
class ReadsLogs(Protocol):
    """An adapter whose runs write output that can be read."""

    @abstractmethod
    async def read_log(
        self, external: External, stream: Literal["stdout", "stderr"], offset: int
    ) -> LogChunk:
        """Read from a byte offset, at most 64 KiB."""


class InferReply(NamedTuple):
    """The answer of a served model, as HTTP says it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


SERVING_ROLES = frozenset({"server", "endpoint"})
"""Roles of externals that answer inference requests."""


@runtime_checkable
class Infers(Protocol):
    """An adapter whose Deployments answer inference requests."""

    @abstractmethod
    async def infer(
        self, external: External, body: bytes, headers: Mapping[str, str]
    ) -> InferReply:
        """Send one Open Inference Protocol v2 request. Raises TransientError if nobody answers."""
