"""The local adapter under the conformance kit: real files, real processes.

It cannot be stopped at every await of its own, since what it starts is real: ``test_kill_points``
ends whole processes instead.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
from pydantic import JsonValue

from rig.local import LocalTarget, end_serving
from rig.onnx_models import identity
from windlass.store.base import Document
from windlass_adapters.base import External, Owner
from windlass_adapters.local.processes import marked
from windlass_adapters.testing.contract import AdapterContract, Rig
from windlass_schemas import digest_of_resource

WAITS = """\
import pathlib, time
while not pathlib.Path({go!r}).exists():
    time.sleep(0.01)
pathlib.Path("model.onnx").write_text("a model")
"""


class LocalRig(Rig):
    """One target in a folder. Runs wait until they may end."""

    def __init__(self, folder: Path) -> None:
        self._target = LocalTarget(folder, {"port": 0})
        self._go = folder / "go"
        self.adapter = self._target.adapter()
        script = WAITS.format(go=str(self._go))
        job: dict[str, JsonValue] = {"entrypoint": "main.py", "outputs": {"model": "model.onnx"}}
        model: dict[str, JsonValue] = {"source": {"file": "m.onnx"}}
        content = identity(folder / "m.onnx").read_bytes()
        deployed: dict[str, JsonValue] = {"model": "wine"}
        self.inputs = {"Model/default/wine:artifact": self._target.store.put(content, "m.onnx")}
        self.documents: Sequence[Document] = (
            self._document("Job", "train", job, {"main.py": script}),
            self._document("Model", "wine", model, {"m.onnx": content}),
            self._document("Deployment", "wine", deployed, {}),
        )

    def _document(
        self, kind: str, name: str, spec: Mapping[str, JsonValue], files: Mapping[str, bytes | str]
    ) -> Document:
        desired = self._target.desired(kind, name, spec, files=files)
        digests = {path: artifact.digest for path, artifact in desired.files.items()}
        digest = digest_of_resource(desired.resource, digests)
        return Document(desired.resource, desired.files, digest, f"{name}.yaml", 1)

    async def count(self, owner: Owner) -> int:
        """Its folders: what is prepared, runs or has run. Or what the serving process holds."""
        if owner.key.kind == "Deployment":
            return await self._served(owner)
        found = 0
        for record in self._target.state.glob("*/*/*.json"):
            if record.name in ("run.json", "model.json") and "/." not in str(record):
                with suppress(FileNotFoundError):
                    text = record.read_text()
                    found += f'"{owner.uid}"' in text and f'"{owner.key}"' in text
        return found

    async def _served(self, owner: Owner) -> int:
        transport = httpx.AsyncHTTPTransport(uds=str(self._target.state / "serving/admin.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://serving") as client:
            views = (await client.get("/deployments")).json()["deployments"]
        return sum(view["uid"] == owner.uid for view in views)

    async def finish(self, external: External) -> None:
        self._go.touch()

    def lose_reply(self) -> bool:
        return False  # it answers by a function's return

    def break_off(self) -> bool:
        """The records are there, and cannot be read."""
        for record in self._target.state.glob("*/*/run.json"):
            record.write_text("{")
        return True

    async def close(self) -> None:
        self._go.touch()
        for folder in self._target.state.glob("runs/[!.]*"):
            for pid in await asyncio.to_thread(marked, folder):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await end_serving(self._target)


class TestLocal(AdapterContract):
    """This machine."""

    def make(self, folder: Path) -> Rig:
        return LocalRig(folder)
