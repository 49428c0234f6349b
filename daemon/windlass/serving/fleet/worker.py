"""One worker, seen from the supervisor: started or found, asked, ordered, ended."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from windlass.serving.fleet.records import Lanes, Put, Sent, Settle, Step
from windlass.serving.fleet.words import LAST_WORDS, REPORT, SNAPSHOT, Report
from windlass.serving.snapshot import Snapshot

STARTED = "started.json"
"""In a worker's folder: the version and the arguments that it was started with."""
ANSWER = 2.0
"""Seconds that a worker has for an answer; it gives it at once, whatever its models do."""


class Worker:
    """A process in a folder of its own."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.folder = folder
        self.name = folder.name
        self.pid = pid
        self.report: Report | None = None
        """The last one."""
        self.sent: dict[str, Sent] = {}
        self.begun = self.heard = time.monotonic()
        """When it last answered."""
        self.retiring = False
        self.stale = False
        """Whether it was started for another Target, or by another version of Windlass."""
        self._child: subprocess.Popen[bytes] | None = None
        self._watched = os.pidfd_open(pid)
        # By way of the open folder: a socket's path must be shorter than 108 bytes.
        self._directory = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        transport = httpx.AsyncHTTPTransport(uds=f"/proc/self/fd/{self._directory}/admin.sock")
        self._client = httpx.AsyncClient(
            transport=transport, base_url="http://worker", timeout=ANSWER, trust_env=False
        )

    @classmethod
    def start(
        cls, folder: Path, arguments: Sequence[str], version: str, sockets: Sequence[int]
    ) -> Worker:
        """A new one, which inherits the sockets."""
        folder.mkdir(parents=True)
        (folder / STARTED).write_text(json.dumps([version, *arguments]))
        command = [sys.executable, "-P", "-m", "windlass.serving", "--state", str(folder)]
        child = subprocess.Popen(
            [*command, *arguments, "--socket", *map(str, sockets)],
            stdin=subprocess.DEVNULL,
            pass_fds=sockets,
        )
        found = cls(folder, child.pid)
        found._child = child
        return found

    @classmethod
    def find(cls, folder: Path, arguments: Sequence[str], version: str) -> Worker | None:
        """One that another supervisor has started, and that lives."""
        try:
            found = cls(folder, int(json.loads((folder / "serving.json").read_text())["pid"]))
            started = json.loads((folder / STARTED).read_text())
        except (OSError, ValueError, KeyError):
            return None
        found.stale = started != [version, *arguments]
        return found

    @property
    def open(self) -> bool:
        """Whether it takes connections."""
        return self.report is not None and self.report.open and not self.retiring

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return bool(select.select([self._watched], [], [], 0)[0])

    def how_it_ended(self) -> str:
        """In a sentence, as far as is known."""
        code = self._child.wait() if self._child is not None else None
        if code is None:
            return f"process {self.pid} ended"
        if code < 0:
            return f"process {self.pid} ended by signal {-code}"
        return f"process {self.pid} ended with code {code}"

    def last_words(self) -> Snapshot | None:
        """What it had counted, as it said at its end or before."""
        said = last_words(self.folder)
        return said or (self.report.numbers if self.report is not None else None)

    def send(self, number: signal.Signals) -> None:
        """A signal, to this process and no other."""
        if not self.ended:
            signal.pidfd_send_signal(self._watched, number)

    async def look(self) -> None:
        """Ask how it stands; without an answer the last report is kept."""
        try:
            answer = await self._call("GET", "/report")
            self.report = REPORT.validate_json(answer.content)
            self.heard = time.monotonic()
        except (httpx.HTTPError, ValueError, OSError):
            return

    async def follow(self, name: str, step: Step, attempt: int) -> None:
        """Have it take a step; one that is lost is taken again."""
        try:
            match step:
                case Put(order):
                    await self._call("PUT", f"/deployments/{name}", order.body)
                    self.sent[name] = order.digest, attempt
                case Settle(digest, take_over):
                    wish = json.dumps({"digest": digest, "take_over": take_over}).encode()
                    await self._call("POST", f"/deployments/{name}/settle", wish)
                case Lanes(number):
                    wish = json.dumps({"lanes": number}).encode()
                    await self._call("POST", f"/deployments/{name}/lanes", wish)
        except (httpx.HTTPError, OSError):
            return

    async def remove(self, name: str, uid: str) -> bool:
        """Have it serve that no more; whether requests are still under way."""
        self.sent.pop(name, None)
        try:
            answer = await self._call("DELETE", f"/deployments/{name}?uid={uid}")
        except (httpx.HTTPError, OSError):
            return False
        return answer.status_code == httpx.codes.ACCEPTED

    async def begin(self) -> None:
        """Have it take connections."""
        await self._wish("/open")

    async def retire(self) -> None:
        """Have it take no more, finish, and end."""
        self.retiring = True
        await self._wish("/retire")

    async def close(self) -> None:
        """Forget the process, which has ended, and remove its folder."""
        # First and at once: the books know one closed worker with a folder, not two.
        shutil.rmtree(self.folder, ignore_errors=True)
        await self._client.aclose()
        os.close(self._directory)
        os.close(self._watched)

    async def _wish(self, path: str) -> None:
        try:
            await self._call("POST", path)
        except (httpx.HTTPError, OSError):
            return

    async def _call(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        return await self._client.request(method, path, content=body)


def last_words(folder: Path) -> Snapshot | None:
    """What the worker of that folder had counted, as it said at its end."""
    try:
        return SNAPSHOT.validate_json((folder / LAST_WORDS).read_bytes())
    except (OSError, ValueError):
        return None
