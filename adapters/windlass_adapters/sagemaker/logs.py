"""What containers print: read from CloudWatch Logs, beside the eight hops.

AWS keeps one stream for each machine and tells standard output and error not apart. A reader asks
by byte offset; where the streams stand at an offset is remembered for whoever goes on from it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from windlass_adapters.base import External, LogChunk, TerminalError
from windlass_adapters.sagemaker.answers import Answer, count, parts, text
from windlass_adapters.sagemaker.api import Api
from windlass_adapters.sagemaker.deployments import ENDPOINT_ROLE
from windlass_adapters.sagemaker.errors import AbsentError
from windlass_adapters.sagemaker.training import Training

PIECE = 1 << 16
"""Bytes of one answer."""
PAUSE = 2.0
"""Seconds between two questions while nothing new comes."""
STREAMS_AGE = 15.0
"""Seconds for which a list of streams answers."""
LATE = timedelta(seconds=30)
"""For how long after a job's end its last lines may still come."""
RECENT = timedelta(hours=1)
"""How far back the log of an endpoint is read."""
_EVENTS = 1000
_MOST_STREAMS = 20
_MOST_PAGES = 50
_KEPT = 100
"""Readers whose places are remembered."""


@dataclass(frozen=True)
class _Place:
    """Where a reader stands."""

    tokens: Mapping[str, str] = field(default_factory=dict)
    """Where each stream goes on."""
    pending: bytes = b""
    """Read from AWS and not given out yet."""
    noted: bool = False
    """Whether it was said that there is nothing yet."""
    asked_at: float = float("-inf")
    """When nothing new had come."""
    since: int | None = None
    """Milliseconds since 1970, before which nothing is read."""


class Logs:
    """The logs of one Target's jobs and endpoints."""

    def __init__(
        self, api: Api, clock: Callable[[], datetime], runs: Mapping[str, Training]
    ) -> None:
        self._api = api
        self._clock = clock
        self._runs = runs
        self._places: OrderedDict[tuple[External, int], _Place] = OrderedDict()
        self._streams: dict[External, tuple[float, list[str]]] = {}

    async def read(self, external: External, offset: int) -> LogChunk:
        """The next whole lines. Raises AdapterError; TerminalError for what prints nothing."""
        group, prefix = self._where(external)
        place = self._places.get((external, offset))
        if place is None:
            place = await self._skip(external, offset)
        over = False
        if not place.pending:
            place, over = await self._more(external, group, prefix, place)
        data = _cut(place.pending)
        place = replace(place, pending=place.pending[len(data) :])
        self._places[external, offset + len(data)] = place
        self._places.move_to_end((external, offset + len(data)))
        while len(self._places) > _KEPT:
            self._places.popitem(last=False)
        return LogChunk(data, offset + len(data), complete=over and not data)

    def _where(self, external: External) -> tuple[str, str]:
        """The log group, and what the names of its streams begin with."""
        if external.role == ENDPOINT_ROLE:
            return f"/aws/sagemaker/Endpoints/{external.name}", ""
        run = self._runs.get(external.role)
        if run is None:
            raise TerminalError(f"a {external.role} prints nothing; its Jobs and endpoints do")
        return f"/aws/sagemaker/{run.log_group}", f"{external.name}{run.log_mark}"

    async def _skip(self, external: External, offset: int) -> _Place:
        """The place of a reader that nobody remembers: read again up to there."""
        since = None
        if external.role == ENDPOINT_ROLE:
            since = int((self._clock() - RECENT).timestamp() * 1000)
        place, at = _Place(since=since), 0
        group, prefix = self._where(external)
        while at < offset:
            place, _ = await self._more(external, group, prefix, place)
            if not place.pending:
                break
            given = min(len(place.pending), offset - at)
            place, at = replace(place, pending=place.pending[given:]), at + given
        return place

    async def _more(
        self, external: External, group: str, prefix: str, place: _Place
    ) -> tuple[_Place, bool]:
        """The place with what has come since, and whether nothing will come any more."""
        if self._api.now() - place.asked_at < PAUSE:
            return place, False
        over = await self._is_over(external)  # before the lines are read, not after
        names = await self._names(external, group, prefix)
        events: list[tuple[int, bytes]] = []
        tokens = dict(place.tokens)
        for name in names:
            label = _label(name, prefix) if len(names) > 1 else ""
            events += [
                (count(event, "timestamp") or 0, _line(label, event))
                for event in await self._events(group, name, tokens, place.since)
            ]
        events.sort(key=lambda event: event[0])
        data = b"".join(line for _, line in events)
        if data:
            return replace(place, tokens=tokens, pending=data, noted=True), False
        place = replace(place, tokens=tokens, asked_at=self._api.now())
        if not place.noted:
            note = _nothing(external, group, over=over)
            return replace(place, pending=note, noted=True, asked_at=float("-inf")), False
        return place, over

    async def _is_over(self, external: External) -> bool:
        run = self._runs.get(external.role)
        if run is None:
            return False
        ended = await run.ended(external.name)
        return ended is not None and self._clock() - ended > LATE

    async def _names(self, external: External, group: str, prefix: str) -> list[str]:
        """The streams: of a job all, of an endpoint those that were written to last."""
        held = self._streams.get(external)
        if held is not None and self._api.now() - held[0] < STREAMS_AGE:
            return held[1]
        order: dict[str, object] = {"logStreamNamePrefix": prefix}
        if not prefix:
            order = {"orderBy": "LastEventTime", "descending": True}
        found: list[str] = []
        token: dict[str, object] = {}
        try:
            while len(found) < _MOST_STREAMS:
                answer = await self._api.call(
                    "logs", "DescribeLogStreams", logGroupName=group, limit=50, **order, **token
                )
                found += [text(each, "logStreamName") for each in parts(answer, "logStreams")]
                if not (more := text(answer, "nextToken")):
                    break
                token = {"nextToken": more}
        except AbsentError:
            found = []
        found = sorted(found[:_MOST_STREAMS])
        if found:  # what is not there yet may come any moment
            self._streams[external] = (self._api.now(), found)
            if len(self._streams) > _KEPT:
                del self._streams[next(iter(self._streams))]
        return found

    async def _events(
        self, group: str, stream: str, tokens: dict[str, str], since: int | None
    ) -> list[Answer]:
        """New events of one stream. A page may be empty though there are more: the token tells."""
        found: list[Answer] = []
        for _ in range(_MOST_PAGES):
            given: dict[str, object] = {"startFromHead": True, "limit": _EVENTS}
            if stream in tokens:
                given["nextToken"] = tokens[stream]
            if since is not None:
                given["startTime"] = since
            answer = await self._api.call(
                "logs", "GetLogEvents", logGroupName=group, logStreamName=stream, **given
            )
            found += parts(answer, "events")
            token = text(answer, "nextForwardToken")
            if not token or tokens.get(stream) == token:
                break
            tokens[stream] = token
            if len(found) >= _EVENTS:
                break
        return found


def _label(name: str, prefix: str) -> str:
    """Which machine it is: the stream's name without the job's and without the time."""
    return re.sub(r"-\d{9,}", "", name.removeprefix(prefix))


def _line(label: str, event: Answer) -> bytes:
    said = text(event, "message").rstrip("\n")
    return f"[{label}] {said}\n".encode() if label else f"{said}\n".encode()


def _cut(data: bytes) -> bytes:
    """As many whole lines as one answer takes; of a longer line, a piece."""
    if len(data) <= PIECE:
        return data
    end = data.rfind(b"\n", 0, PIECE) + 1
    return data[: end or PIECE]


def _nothing(external: External, group: str, *, over: bool) -> bytes:
    if external.role == ENDPOINT_ROLE:
        why = f"in the last hour no container of {external.name} has printed anything"
    elif over:
        why = (
            f"{external.name} has left no log: it ended before its container began, its log was"
            " removed, or the execution role may not write logs"
        )
    else:
        why = f"{external.name} has not printed anything yet; lines come a while after it begins"
    return f"windlass: {why} (CloudWatch log group {group})\n".encode()
