"""A user's project: a git repository with specs, and the real ``windlass`` that follows it.

Everything goes through what a user has: git, the console script, HTTP. Processes run on free ports
with a private state folder; ``close`` stops, by process id, each one that belongs to the project.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import JsonValue

from windlass_schemas import Key, Status

WINDLASS = str(Path(sys.executable).parent / "windlass")
OURS = ("WINDLASS_", "GIT_")
"""Variables of the caller's that would decide what a test is about."""
PATIENCE = 30.0
"""Seconds that a test waits for a state before it fails."""

T = TypeVar("T")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody holds now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Project:
    """A repository in a folder, its state folder, and its two ports."""

    def __init__(self, folder: Path, specs: Path) -> None:
        self.repository = folder / "project"
        self.state = folder / "state"
        self.log = folder / "daemon.log"
        self.api_port, self.serving_port = free_ports(2)
        self._daemons: list[Daemon] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(OURS)},
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "WINDLASS_STATE": str(self.state),
            "WINDLASS_API_PORT": str(self.api_port),
            "WINDLASS_SERVING_PORT": str(self.serving_port),
            "WINDLASS_SERVER": f"http://127.0.0.1:{self.api_port}",
        }
        shutil.copytree(specs, self.repository, ignore=shutil.ignore_patterns("__pycache__"))
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Ada")
        self.git("config", "user.email", "ada@example.org")
        self.commit("Declare the first version")

    # ---- what a user types

    def git(self, *arguments: str) -> str:
        """Run git in the repository."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.repository,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"git {arguments}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        """Commit everything; the commit's id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text that occurs in a file."""
        path = self.repository / name
        text = path.read_text()
        if old not in text:
            raise AssertionError(f"{name} does not hold {old!r}")
        path.write_text(text.replace(old, new))

    def windlass(self, *arguments: str, code: int | None = 0) -> str:
        """Run the command in the repository to its end; what it printed. Checks the exit code."""
        done = subprocess.run(
            [WINDLASS, *arguments],
            cwd=self.repository,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = done.stdout + done.stderr
        if "Traceback" in said or (code is not None and done.returncode != code):
            raise AssertionError(f"windlass {arguments} gave {done.returncode}\n{said}")
        return said

    def up(self, *flags: str, path: str = ".") -> Daemon:
        """Start the daemon, and return at once."""
        return self._start([WINDLASS, "up", path, *flags])

    def up_on_small_disk(self, mebibytes: int, option: str = "rw") -> Daemon:
        """Start the daemon with its state on a disk of its own, which only it can see."""
        mount = f'mount -t tmpfs -o size={mebibytes}m,{option} none "$WINDLASS_STATE"'
        script = f'mkdir -p "$WINDLASS_STATE" && {mount} && exec {WINDLASS} up .'
        own_mounts = ["unshare", "--mount", "--map-root-user", "--propagation", "private"]
        return self._start([*own_mounts, "sh", "-c", script])

    def start(self, *command: str) -> Daemon:
        """Start another program in the daemon's place, and return at once."""
        return self._start(command)

    def _start(self, command: Sequence[str]) -> Daemon:
        self._daemons.append(Daemon(self, command))
        return self._daemons[-1]

    # ---- what a user sees

    def ask(self, path: str) -> JsonValue:
        """GET from the daemon's API; None while nobody answers or there is nothing."""
        with contextlib.suppress(httpx.HTTPError):
            with httpx.Client(trust_env=False, timeout=10) as http:
                reply = http.get(f"http://127.0.0.1:{self.api_port}{path}")
            if reply.is_success:
                found: JsonValue = reply.json()
                return found
        return None

    def object(self, name: str) -> Mapping[str, JsonValue]:
        """An object as the API shows it, by ``Kind/name``; empty while there is none."""
        key = Key.parse(name)
        found = self.ask(f"/api/v1/objects/{key.kind}/{key.namespace}/{key.name}")
        return found if isinstance(found, dict) else {}

    def status(self, name: str) -> Status:
        """The status of an object; a blank one while there is none."""
        return Status.model_validate(self.object(name).get("status", {}))

    def condition(self, name: str, type_: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition; blank when it is not there."""
        found = self.status(name).condition(type_)
        return (found.status, found.reason.value, found.message) if found else ("", "", "")

    def ready(self, name: str) -> bool:
        """Whether the object is Ready at its newest generation."""
        generation = self.object(name).get("generation", 0)
        return isinstance(generation, int) and self.status(name).is_true("Ready", generation)

    def await_ready(self, name: str) -> None:
        """Wait until it is Ready."""
        self.until(lambda: self.ready(name), f"{name} is Ready")

    def await_reason(self, name: str, type_: str, reason: str) -> str:
        """Wait until a condition gives that reason; its message."""
        self.until(lambda: self.condition(name, type_)[1] == reason, f"{name} {type_} {reason}")
        return self.condition(name, type_)[2]

    def until(self, condition: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
        """Wait until a condition holds; its value. Fails with what the daemon said."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > end:
                said = self.log.read_text()[-4000:] if self.log.exists() else ""
                shown = self.ask("/api/v1/objects")
                raise AssertionError(f"not within {seconds:.0f} s: {what}\n{said}\n{shown}")
            time.sleep(0.02)
        return value

    def infer(self, model: str, body: str) -> Mapping[str, Sequence[float]]:
        """One prediction as curl would get it: data by output. Empty while nobody answers."""
        try:
            with contextlib.closing(Caller(self, model, body)) as caller:
                return caller.call()
        except (httpx.HTTPError, RefusedError):
            return {}

    def runs(self) -> list[str]:
        """The names of all runs that the local target ever started."""
        return sorted(path.parent.name for path in self.state.glob("**/runs/*/run.json"))

    # ---- the end

    def processes(self) -> Iterator[int]:
        """Every process whose environment says that it belongs to this project."""
        mark = str(self.state).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                    if mark in told:
                        yield int(entry.name)

    def close(self) -> None:
        """Stop whatever still runs. Fails when a daemon has shown a traceback to its user."""
        for daemon in self._daemons:
            daemon.kill()
        while found := list(self.processes()):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        if (at := said.find("Traceback (most recent call last)")) >= 0:
            raise AssertionError(
                f"a traceback in the daemon's log\n{said[max(0, at - 500) : at + 3500]}"
            )


class Daemon:
    """One ``windlass up``."""

    def __init__(self, project: Project, command: Sequence[str]) -> None:
        self._project = project
        self._from = project.log.stat().st_size if project.log.exists() else 0
        with project.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=project.repository,
                env=project.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def inside(self, path: Path) -> Path:
        """A path as the daemon sees it, which may have mounts of its own."""
        return Path(f"/proc/{self.process.pid}/root{path}")

    @property
    def said(self) -> str:
        """What this daemon has printed so far."""
        return self._project.log.read_bytes()[self._from :].decode(errors="replace")

    def await_answer(self) -> None:
        """Wait until its API answers."""
        self._project.until(lambda: self._project.ask("/healthz") is not None, "the API answers")

    def interrupt(self) -> int:
        """What Ctrl-C does; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(PATIENCE)


class RefusedError(Exception):
    """An inference request was answered, but not with a prediction."""


class Caller:
    """A client that asks one model for predictions."""

    def __init__(self, project: Project, model: str, body: str) -> None:
        self._http = httpx.Client(trust_env=False, timeout=10)
        self._url = f"http://127.0.0.1:{project.serving_port}/v2/models/{model}/infer"
        self._body = body

    def close(self) -> None:
        """Give up the connection."""
        self._http.close()

    def call(self) -> dict[str, tuple[float, ...]]:
        """One request. Raises httpx.HTTPError, RefusedError."""
        reply = self._http.post(self._url, content=self._body)
        if reply.status_code != 200:
            raise RefusedError(f"{reply.status_code} {reply.text}")
        return {each["name"]: tuple(each["data"]) for each in reply.json()["outputs"]}


class Hammer:
    """A caller that never ends: ``with Hammer(...) as hammer: ...`` then look at what it saw.

    It asks again at once, or after ``pause`` seconds.
    """

    def __init__(
        self, project: Project, model: str, body: str, output: str, pause: float = 0.0
    ) -> None:
        self._caller = Caller(project, model, body)
        self._output = output
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[tuple[float, ...]] = []
        """Each answer that differs from the one before."""
        self.requests = 0
        self.failures: list[str] = []

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self.requests += 1
            try:
                answer = self._caller.call()[self._output]
            except (httpx.HTTPError, RefusedError) as error:
                self.failures.append(repr(error))
                continue
            if not self.answers or self.answers[-1] != answer:
                self.answers.append(answer)

    def __enter__(self) -> Hammer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
        self._caller.close()
