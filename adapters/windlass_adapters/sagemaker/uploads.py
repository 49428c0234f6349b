"""What a run reads: its program as one archive, and its inputs. Rendering (pure), hops 5 and 7.

Each is an external of its own, made before the run that needs it: so it is in the books before it
is in S3, and goes with its Job though the run was never begun.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from windlass_adapters.base import External, Found, Owner, TerminalError, Wanted
from windlass_adapters.sagemaker import packing
from windlass_adapters.sagemaker.deployments import name_digest
from windlass_adapters.sagemaker.immutables import Objects
from windlass_adapters.sagemaker.jobs import START, file_name
from windlass_adapters.sagemaker.storage import CODE, INPUT
from windlass_schemas import Artifact, Reason

UPLOAD_ROLE = "upload"


def wanted_uploads(run: Wanted) -> Iterator[Wanted]:
    """What must lie in S3 before a run may begin."""
    folder, uploads = str(run.body["folder"]), run.body["uploads"]
    assert isinstance(uploads, dict)
    inputs = uploads["inputs"]
    assert isinstance(inputs, dict)
    code, start = uploads.get("code"), uploads.get("start")
    if code or start:
        yield _wanted(f"{folder}{CODE}", {"code": code, "start": start})
    keys = {}
    for given in inputs.values():
        artifact = Artifact.model_validate(given)
        if artifact.url is None:
            keys[input_key(folder, artifact)] = given
    for key, given in keys.items():  # two names may be one file
        yield _wanted(key, {"artifact": given})


def _wanted(key: str, body: Mapping[str, JsonValue]) -> Wanted:
    return Wanted(UPLOAD_ROLE, key, name_digest(key), dict(body))


def input_key(folder: str, artifact: Artifact) -> str:
    """The key of an input that is uploaded."""
    digest = artifact.digest.removeprefix("sha256:")[:16]
    return f"{folder}{INPUT}/{digest}/{file_name(artifact)}"


class Uploads(Objects):
    """Programs and inputs in S3."""

    role = UPLOAD_ROLE

    async def create(self, owner: Owner, wanted: Wanted) -> Found:
        storage = self._backend.storage
        self._backend.inventory.heat(self.role, wanted.name)
        if not await storage.has(wanted.name):
            with tempfile.TemporaryDirectory(dir=self._backend.scratch) as scratch:
                file = await asyncio.to_thread(self._file, wanted, Path(scratch))
                await storage.upload(wanted.name, file, self._backend.identity.tags(owner, {}))
        return self._found(owner, External(self.role, wanted.name, wanted.name))

    def _file(self, wanted: Wanted, scratch: Path) -> Path:
        """The file to send: an input as it is, or the program's files and what starts it."""
        artifacts = self._backend.artifacts
        if "artifact" in wanted.body:
            artifact = Artifact.model_validate(wanted.body["artifact"])
            file = artifacts.path(artifact.digest)
            if not file.is_file():
                raise TerminalError(
                    f"{artifact.name} is not in this machine's artifact store; make it again",
                    reason=Reason.INVALID_ARTIFACT,
                )
            return file
        code, start = wanted.body["code"], wanted.body["start"]
        assert isinstance(code, dict)
        files = {path: artifacts.path(str(digest)) for path, digest in code.items()}
        if start is not None:
            files[START] = scratch / START
            files[START].write_text(str(start))
        return packing.pack(files, scratch / CODE)
