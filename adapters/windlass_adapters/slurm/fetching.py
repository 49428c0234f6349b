"""Outputs of runs that ended well, brought home: the end of hop 5.

The cluster says size and digest of each output and sends the small ones along. Large ones come as
files, a piece at a time, so that a broken transfer goes on where it stopped. What arrives is
believed by its digest only.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import asyncssh
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import AdapterError, TransientError, WaitingError
from windlass_adapters.slurm.connection import Connection
from windlass_adapters.slurm.gathering import Gathering
from windlass_adapters.slurm.login import Login
from windlass_adapters.slurm.naming import Place
from windlass_schemas import Artifact, Reason

INLINE = 8 << 20
"""Bytes of outputs that come along in one answer."""
PIECE = 4 << 20
TURN = 10.0
"""Seconds of transfer for which others wait at most."""


class Manifest(BaseModel):
    """What the cluster says of one output."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    bad: str = ""
    """Why it cannot be kept; empty when it can."""
    path: str = ""
    size: int = 0
    digest: str = ""
    data: str | None = None


class Fetched(NamedTuple):
    """The outputs of a run, as far as they are here."""

    outputs: Mapping[str, Artifact]
    bad: str = ""
    """Which outputs are missing, and why; empty when none is."""
    left: int = 0
    """Bytes that are still over there."""


class Fetching:
    """Brings outputs into the artifact store."""

    def __init__(
        self, login: Login, connection: Connection, store: ArtifactStore, folder: Path
    ) -> None:
        self._login = login
        self._connection = connection
        self._store = store
        self._folder = folder
        self._manifests: dict[Place, Mapping[str, Manifest]] = {}
        self._collect: Gathering[Place, Mapping[str, Manifest]] = Gathering(self._ask, 50, 0.0)
        self._transferring = asyncio.Lock()

    async def fetch(self, place: Place, paths: Mapping[str, str]) -> Fetched:
        """Everything that a run wrote; or as much as comes in one turn. Raises AdapterError."""
        if not paths:
            return Fetched({})
        if place not in self._manifests:
            self._manifests[place] = await self._collect(place)
        manifest = self._manifests[place]
        bad = [f"output {name}: {said.bad}" for name, said in manifest.items() if said.bad]
        if bad:
            self.forget(place)
            more = f"; {len(bad) - 3} more outputs are missing" if len(bad) > 3 else ""
            return Fetched({}, bad="; ".join(bad[:3]) + more)
        missing = {d.digest: d for d in manifest.values() if not self._store.has(d.digest)}
        left = 0
        if missing:
            try:
                async with self._transferring:
                    left = await self._transfer(list(missing.values()))
            except AdapterError:
                self.forget(place)
                raise
        outputs = {
            name: Artifact(digest=said.digest, size=said.size, name=Path(said.path).name)
            for name, said in manifest.items()
        }
        if not left:
            self.forget(place)
        return Fetched(outputs, left=left)

    def forget(self, place: Place) -> None:
        """Ask anew the next time."""
        self._manifests.pop(place, None)

    async def _ask(
        self, places: Sequence[Place]
    ) -> Sequence[Mapping[str, Manifest] | AdapterError]:
        request: dict[str, JsonValue] = {"runs": [list(p) for p in places], "inline": INLINE}
        answer = await self._login.call("collect", request)
        found = answer.get("runs")
        found = found if isinstance(found, dict) else {}
        return [await asyncio.to_thread(self._take, found.get(p.token)) for p in places]

    def _take(self, told: JsonValue) -> Mapping[str, Manifest] | AdapterError:
        """Read a manifest and keep what came with it."""
        if not isinstance(told, dict):
            return TransientError("the cluster did not tell the run's outputs")
        try:
            found = {name: Manifest.model_validate(said) for name, said in told.items()}
            for said in found.values():
                if said.data is not None:
                    self._keep(said, base64.b64decode(said.data, validate=True))
        except (ValidationError, binascii.Error) as error:
            return TransientError(f"the list of the run's outputs cannot be read: {error}")
        except AdapterError as error:
            return error
        except OSError as error:
            return _no_room(error)
        return {name: said.model_copy(update={"data": None}) for name, said in found.items()}

    def _keep(self, said: Manifest, data: bytes) -> None:
        if "sha256:" + hashlib.sha256(data).hexdigest() != said.digest:
            raise TransientError(f"{said.path} arrived changed; it is fetched again")
        self._store.put(data, Path(said.path).name)

    async def _transfer(self, wanted: Sequence[Manifest]) -> int:
        """Fetch files for one turn; bytes that are left."""
        until = time.monotonic() + TURN
        left = 0
        async with self._connection.files() as remote:
            for said in wanted:
                if not self._store.has(said.digest):
                    left += await self._continue(remote, said, until)
        return left

    async def _continue(self, remote: asyncssh.SFTPClient, said: Manifest, until: float) -> int:
        part = self._folder / "fetching" / said.digest.removeprefix("sha256:")
        have = await asyncio.to_thread(_size, part)
        try:
            async with remote.open(said.path, "rb") as file:
                while have < said.size and time.monotonic() < until:
                    async with asyncio.timeout(60):
                        piece = await file.read(PIECE, have)
                    if not piece:
                        break
                    assert isinstance(piece, bytes), "opened for bytes"
                    await asyncio.to_thread(_append, part, piece)
                    have += len(piece)
        except TimeoutError:
            raise TransientError(f"{said.path} does not come; trying again") from None
        except OSError as error:
            raise _no_room(error) from None
        if have < said.size:
            return said.size - have
        artifact = await asyncio.to_thread(self._store.put_file, part, Path(said.path).name)
        await asyncio.to_thread(part.unlink)
        if artifact.digest != said.digest:
            raise TransientError(f"{said.path} arrived changed; it is fetched again")
        return 0


def _size(part: Path) -> int:
    part.parent.mkdir(parents=True, exist_ok=True)
    return part.stat().st_size if part.exists() else 0


def _append(part: Path, data: bytes) -> None:
    with part.open("ab") as file:
        file.write(data)


def _no_room(error: OSError) -> AdapterError:
    return WaitingError(
        f"an output cannot be kept: {error.strerror or error}; make room in the state folder,"
        " Windlass goes on by itself",
        reason=Reason.STORAGE_FULL,
    )
