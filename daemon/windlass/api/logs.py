"""Route for a run's output, as it is kept by the backend; followed while the run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response

from windlass.api.live import LiveResponse, Write
from windlass.api.objects import ObjectKey, find
from windlass.api.problems import ProblemError
from windlass.api.runtime import Runtime
from windlass.api.views import Problem
from windlass.store.base import ExternalRecord, Object, RecordState
from windlass_adapters.base import (
    SERVING_ROLES,
    AdapterError,
    External,
    LogChunk,
    ReadsLogs,
    TransientError,
)

Stream = Literal["stdout", "stderr"]
BOTH: tuple[Stream, Stream] = ("stdout", "stderr")
LONGEST_LINE = 1 << 16
"""Bytes; a longer line is passed on in pieces."""
POLL = 0.3
"""Seconds between two looks at a log that is still growing."""
PATIENCE = 100
"""Failed looks in a row before a followed log is given up."""


def latest_run(found: Object) -> ExternalRecord | None:
    """The newest run of an object; without runs, what serves, or the newest thing that it holds."""
    going = (RecordState.GONE, RecordState.FORGOTTEN)
    records = [r for r in found.externals if r.state not in going]
    runs = [r for r in records if r.wanted.completes]
    runs = runs or [r for r in records if r.wanted.role in SERVING_ROLES] or records
    started = [r for r in runs if r.state is not RecordState.INTENDED] or runs
    return max(started, key=lambda r: (r.generation, r.attempt), default=None)


class RunLog:
    """What one run prints: one stream, or both, line by line as they come."""

    def __init__(self, adapter: ReadsLogs, external: External, streams: Sequence[Stream]) -> None:
        self._adapter = adapter
        self._external = external
        self._offsets: dict[Stream, int] = dict.fromkeys(streams, 0)

    async def read(self) -> LogChunk:
        """The next piece of each stream. Raises AdapterError or TimeoutError."""
        data, complete = b"", True
        for stream, offset in self._offsets.items():
            async with asyncio.timeout(30):
                chunk = await self._adapter.read_log(self._external, stream, offset)
            piece = chunk.data if chunk.complete else _whole_lines(chunk.data)
            # The adapter says where it goes on: a log that was cut begins anew.
            self._offsets[stream] = chunk.next_offset - (len(chunk.data) - len(piece))
            data += piece
            complete = complete and chunk.complete and not piece
        return LogChunk(data, 0, complete)

    async def write(self, first: LogChunk, follow: bool, write: Write) -> None:
        """Everything from the first piece on; while the run goes on too, if followed."""
        chunk, failures = first, 0
        while True:
            if chunk.data:
                await write(chunk.data)
            elif chunk.complete or not follow:
                return
            else:
                await asyncio.sleep(POLL)
            try:
                chunk = await self.read()
                failures = 0
            except (AdapterError, TimeoutError) as error:
                failures += 1
                passing = isinstance(error, TransientError | TimeoutError) and follow
                if not passing or failures > PATIENCE:
                    await write(f"\nwindlass: the log ends here: {error}\n".encode())
                    return
                chunk = LogChunk(b"", 0, complete=False)


def _whole_lines(data: bytes) -> bytes:
    """Up to the last line's end, so that two streams do not break each other's lines."""
    end = data.rfind(b"\n") + 1
    return data[:end] if end or len(data) < LONGEST_LINE else data


def routes(runtime: Runtime, closing: asyncio.Event) -> APIRouter:
    """``/api/v1/objects/{kind}/{namespace}/{name}/logs``."""
    router = APIRouter(prefix="/api/v1", tags=["objects"])

    @router.get(
        "/objects/{kind}/{namespace}/{name}/logs",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {}}, "description": "The bytes as written."},
            404: {"model": Problem},
            409: {"model": Problem},
            503: {"model": Problem},
        },
    )
    async def read_logs(
        key: ObjectKey, stream: Stream | None = None, follow: bool = False
    ) -> LiveResponse:
        """Output of the latest run: both streams, unless one is asked for."""
        found = await find(runtime, key)
        record = latest_run(found)
        if record is None:
            ready = found.status.condition("Ready")
            why = f": {ready.message}" if ready and ready.message else ""
            raise ProblemError(
                404, f"{key.short} has not run yet{why}", f"windlass describe {key.short}"
            )
        adapter = await runtime.adapter(found)
        if not isinstance(adapter, ReadsLogs):
            raise ProblemError(
                409,
                f"the target of {key.short} keeps no logs that can be read from here",
                "look for them in the backend itself",
            )
        log = RunLog(adapter, record.external, (stream,) if stream else BOTH)
        first = await log.read()  # before the response starts, so that a refusal has its status

        async def produce(write: Write) -> None:
            await log.write(first, follow, write)

        return LiveResponse(produce, closing=closing, media_type="text/plain; charset=utf-8")

    return router
