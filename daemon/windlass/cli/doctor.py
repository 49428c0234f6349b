"""``windlass doctor``: what this machine and the daemon have, and what to do about the rest."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Literal

from windlass.api.views import DaemonView, Facts
from windlass.cli.client import Client
from windlass.cli.failure import ExitCode, Failure
from windlass.cli.settings import settings_from
from windlass.cli.terminal import Table, raw
from windlass.settings import Settings

Level = Literal["ok", "warn", "fail"]
GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    name: str
    message: str
    """How it is; for anything but ok, what to do."""


def doctor(server: str, state: Path | None, as_json: bool) -> ExitCode:
    """Look at everything and print it. Exit code 1 when something fails."""
    settings = settings_from(state=state)
    findings = list(_examine(server, settings))
    if as_json:
        raw(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        rows = [(finding.level, finding.name, finding.message) for finding in findings]
        Table(("LEVEL", "CHECK", "MESSAGE"), rows).show()
    failed = any(finding.level == "fail" for finding in findings)
    return ExitCode.ERROR if failed else ExitCode.OK


def _examine(server: str, settings: Settings) -> Iterator[Finding]:
    yield Finding("ok", "windlass", version("windlass"))
    yield _python()
    yield _sqlite()
    yield _git()
    yield _state(settings.state)
    yield _disk(settings.state)
    yield from _inotify()
    yield from _adapters()
    running = True
    try:
        with Client(server) as client:
            yield from _daemon(server, client.get("/api/v1/doctor", Facts))
    except Failure as failure:
        running = False
        yield Finding("warn", "daemon", f"{failure.error}; {failure.hint}")
    yield _port("api-port", settings.api_host, settings.api_port, held=running)
    yield _port("serving-port", "127.0.0.1", settings.serving_port, held=running)


def _python() -> Finding:
    return Finding("ok", "python", f"{platform.python_version()} at {sys.executable}")


def _sqlite() -> Finding:
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < (3, 37):
        return Finding("fail", "sqlite", f"{found}; use a Python with SQLite 3.37 or newer")
    return Finding("ok", "sqlite", found)


def _git() -> Finding:
    try:
        answer = subprocess.run(
            ["git", "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return Finding(
            "warn", "git", "not found; install it to follow commits (folders work without it)"
        )
    return Finding("ok", "git", answer.stdout.strip().removeprefix("git version "))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _state(state: Path) -> Finding:
    folder = _existing(state)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".windlass-doctor-"):
            pass
    except OSError as error:
        return Finding(
            "fail",
            "state-folder",
            f"{state.absolute()} cannot be written ({error.strerror});"
            " make it writable, or choose another with --state",
        )
    made = "" if folder == state.absolute() else " (made at the first start)"
    return Finding("ok", "state-folder", f"{state.absolute()}{made}")


def _disk(state: Path) -> Finding:
    free = shutil.disk_usage(_existing(state)).free
    said = f"{free / GIB:.1f} GiB free"
    if free < GIB // 10:
        return Finding("fail", "disk", f"{said}; make room, or move the state folder with --state")
    if free < GIB:
        return Finding("warn", "disk", f"{said}; artifacts and logs need room: make some")
    return Finding("ok", "disk", said)


def _inotify() -> Iterator[Finding]:
    for name, least in (("max_user_watches", 8192), ("max_user_instances", 128)):
        try:
            limit = int(Path("/proc/sys/fs/inotify", name).read_text())
        except (OSError, ValueError):
            continue  # not Linux, or hidden: files are then looked at now and then instead
        if limit < least:
            yield Finding(
                "warn",
                f"inotify-{name.removeprefix('max_user_')}",
                f"{limit}; raise it: sysctl fs.inotify.{name}={least}"
                " (files are looked at now and then until that)",
            )
        else:
            yield Finding("ok", f"inotify-{name.removeprefix('max_user_')}", str(limit))


def _adapters() -> Iterator[Finding]:
    for entry in sorted(entry_points(group="windlass.adapters"), key=lambda e: e.name):
        name = f"adapter-{entry.name}"
        try:
            entry.load()
        except Exception as error:  # whatever an adapter of somebody else's may raise
            yield Finding(
                "fail", name, f"does not load ({type(error).__name__}: {error}); install it again"
            )
        else:
            where = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            yield Finding("ok", name, where)


def _daemon(server: str, facts: Facts) -> Iterator[Finding]:
    yield Finding("ok", "daemon", f"{facts.version} at {server}, pid {facts.pid}, {facts.state}")
    if facts.version != version("windlass"):
        yield Finding(
            "warn", "daemon-version", f"{facts.version}; restart it to run {version('windlass')}"
        )
    for check in facts.checks:
        name = "_".join(check.name.split())
        yield Finding("ok" if check.ok else "fail", f"daemon:{name}", check.message)
    for each in facts.daemons:
        yield _colleague(each)
    for said in facts.notes:
        yield Finding("warn", "daemon-note", said)


def _colleague(found: DaemonView) -> Finding:
    name = "_".join(f"shares:{found.name}".split())
    if found.alive:
        return Finding("ok", name, f"on {found.host}, works on {found.held}")
    lives = f"; what is on {', '.join(found.targets)} waits for it" if found.targets else ""
    since = found.until.isoformat(timespec="seconds")
    return Finding("warn", name, f"silent since {since}{lives}: start it on {found.host}")


def _port(name: str, host: str, port: int, *, held: bool) -> Finding:
    if port == 0:
        return Finding("ok", name, "any free port")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if held:
                return Finding("ok", name, f"{port} in use; a daemon is running")
            # The serving process outlives its daemon, so that a held port may be ours.
            level: Level = "warn" if name == "serving-port" else "fail"
            return Finding(
                level,
                name,
                f"{port} cannot be taken ({os.strerror(error.errno or 0)}); stop what holds it,"
                f" or take another with --{name}",
            )
    return Finding("ok", name, f"{port} is free")
