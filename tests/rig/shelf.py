"""A backend that several daemons' processes reach, and that outlives them: files in one folder.

What it holds is a file by a name that is ours, made in one step. Every effect is a line in a ledger
that nobody takes back, with the daemon that caused it: what happened twice is there twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from windlass_adapters.base import (
    Absent,
    Capabilities,
    Change,
    Create,
    External,
    Found,
    Observation,
    Owner,
    State,
    Update,
    Wanted,
)
from windlass_adapters.testing import MemoryAdapter
from windlass_schemas import Artifact

_OUTPUT = Artifact(digest="sha256:" + "0" * 64, size=1, name="model.onnx")


@dataclass(frozen=True)
class Shelf:
    """The folder, as tests look at it."""

    folder: Path

    def effects(self) -> list[tuple[str, str, str]]:
        """(effect, name, daemon) in the order in which they happened."""
        file = self.folder / "ledger"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(effect, name, daemon) for effect, name, daemon in map(str.split, lines)]

    def counts(self) -> Counter[tuple[str, str]]:
        """How often each thing was made or removed."""
        return Counter((effect, name) for effect, name, _ in self.effects())

    def by_daemon(self) -> Counter[str]:
        """How much each daemon did."""
        return Counter(daemon for _, _, daemon in self.effects())


class ShelfAdapter(MemoryAdapter):
    """Speaks to a shelf; each call takes its time."""

    shelf: ClassVar[Path]
    daemon: ClassVar[str]
    latency: ClassVar[float]

    @classmethod
    def bound(
        cls, shelf: Path, daemon: str, latency: float, lanes: int, home: str | None = None
    ) -> type[ShelfAdapter]:
        """For one daemon. ``lanes`` is how many objects it works on at once."""
        facts = Capabilities(
            poll_interval=timedelta(seconds=max(latency, 0.2)),
            resync_interval=timedelta(seconds=5),
            max_concurrent=lanes,
            daemon=home,
        )
        fields = {"shelf": shelf, "daemon": daemon, "latency": latency, "facts": facts}
        return type("BoundShelfAdapter", (cls,), fields)

    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        await asyncio.sleep(self.latency)
        return {external: self._look(external) for _, external in externals}

    def _look(self, external: External) -> Observation:
        with suppress(FileNotFoundError):
            return self._read(self._file(external.role, external.name))
        return Absent()

    async def find(self, owner: Owner) -> Sequence[Found]:
        await asyncio.sleep(self.latency)
        held = [self._read(file) for file in self.shelf.glob(f"*-{owner.uid[:8]}*.json")]
        return [found for found in held if found.owner_uid == owner.uid]

    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        await asyncio.sleep(self.latency / 2)
        wanted = action.wanted
        file = self._file(wanted.role, wanted.name)
        said = {
            "role": wanted.role,
            "name": wanted.name,
            "owner": owner.uid,
            "digest": wanted.digest,
            "body": dict(wanted.body),
            "completes": wanted.completes,
            "at": time.time(),
        }
        draft = file.with_suffix(f".{os.getpid()}.{id(said)}.draft")
        draft.write_text(json.dumps(said))
        try:
            if isinstance(action, Update):
                draft.replace(file)
                self._note("update", wanted.name)
            else:
                with suppress(FileExistsError):
                    file.hardlink_to(draft)
                    self._note("create", wanted.name)
        finally:
            draft.unlink(missing_ok=True)
        await asyncio.sleep(self.latency / 2)
        return self._read(file)

    async def delete(self, owner: Owner, external: External) -> None:
        await asyncio.sleep(self.latency)
        with suppress(FileNotFoundError):
            self._file(external.role, external.name).unlink()
            self._note("delete", external.name)

    def diff(self, wanted: Wanted, found: Found) -> tuple[Change, ...]:
        return ()

    def _file(self, role: str, name: str) -> Path:
        return self.shelf / f"{role}.{name}.json"

    def _read(self, file: Path) -> Found:
        said = json.loads(file.read_text())
        found = Found(
            External(said["role"], said["name"], said["name"]),
            said["owner"],
            State.LIVE,
            said["digest"],
        )
        if said["role"] == "artifact":
            found = replace(found, outputs={"artifact": _OUTPUT})
        if not said["completes"]:
            return found
        if time.time() < said["at"] + self.latency:
            return replace(found, state=State.PROGRESSING)
        return replace(found, state=State.SUCCEEDED, outputs={"model": _OUTPUT})

    def _note(self, effect: str, name: str) -> None:
        """One write at the end of the file, which the system does as a whole."""
        ledger = os.open(self.shelf / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(ledger, f"{effect} {name} {self.daemon}\n".encode())
        finally:
            os.close(ledger)
