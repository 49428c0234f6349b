"""Logs of runs, through the same connection: one command for all who follow.

A follower asks several times a second; the cluster is asked at most once in ``PAUSE`` seconds.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import JsonValue

from windlass_adapters.base import AdapterError, LogChunk, TransientError
from windlass_adapters.slurm.gathering import Gathering
from windlass_adapters.slurm.login import Login
from windlass_adapters.slurm.naming import Place

PAUSE = 1.5
"""Seconds before a log that had nothing new is looked at again."""
_CUT = b"windlass: the log was cut; it goes on from its new beginning\n"
_REMEMBERED = 10_000
_MARK = 64
"""Bytes before an offset by which a log is known again."""


class Piece(NamedTuple):
    """Which piece of which log."""

    place: Place
    stream: str
    offset: int


class Tails:
    """Reads logs."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._quiet: dict[Piece, float] = {}
        self._before: dict[Piece, bytes] = {}
        """What was read last, up to where the next piece begins."""
        self._read: Gathering[Piece, LogChunk] = Gathering(self._ask, 100)

    async def read(self, place: Place, stream: str, offset: int) -> LogChunk:
        """A piece of a run's output. Raises AdapterError."""
        piece = Piece(place, stream, max(0, offset))
        if time.monotonic() < self._quiet.get(piece, 0.0):
            return LogChunk(b"", piece.offset, complete=False)
        chunk = await self._read(piece)
        if not chunk.data and not chunk.complete:
            if len(self._quiet) > _REMEMBERED:
                self._quiet.clear()
            self._quiet[piece] = time.monotonic() + PAUSE
        else:
            self._quiet.pop(piece, None)
            self._remember(piece, chunk)
        return chunk

    def _remember(self, piece: Piece, chunk: LogChunk) -> None:
        before = self._before.pop(piece, b"")
        if chunk.next_offset == piece.offset + len(chunk.data) and not chunk.complete:
            if len(self._before) > _REMEMBERED:
                self._before.clear()
            then = piece._replace(offset=chunk.next_offset)
            self._before[then] = (before + chunk.data)[-_MARK:]

    async def _ask(self, pieces: Sequence[Piece]) -> Sequence[LogChunk | AdapterError]:
        request: dict[str, JsonValue] = {
            "logs": [[*p.place, p.stream, p.offset, self._mark(p)] for p in pieces]
        }
        found = (await self._login.call("logs", request)).get("logs")
        told = found if isinstance(found, list) else []
        return [_chunk(piece, said) for piece, said in zip(pieces, told, strict=False)]

    def _mark(self, piece: Piece) -> str:
        return base64.b64encode(self._before.get(piece, b"")).decode()


def _chunk(piece: Piece, said: JsonValue) -> LogChunk | AdapterError:
    match said:
        case {"cut": True}:
            return LogChunk(_CUT, 0, complete=False)
        case {"data": str(data), "next": int(next_offset), **more}:
            try:
                content = base64.b64decode(data, validate=True)
            except binascii.Error:
                return TransientError("the log cannot be read")
            return LogChunk(content, next_offset, complete=more.get("ended") is True)
    return TransientError("the log cannot be read")
