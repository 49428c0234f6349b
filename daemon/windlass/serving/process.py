"""What one serving process holds on the machine: its lock, its files, its sockets.

The files are how the local adapter finds a process that it did not start itself, or learns why one
could not start (hop 5): ``serving.json`` while it listens, ``error.json`` when it could not.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass.serving.certificate import Certificate

BACKLOG = 2048
STOP_GRACE = 30
"""Seconds that requests under way get at a stop."""
EXIT_FAILED = 1
EXIT_CANNOT_WRITE = 73
EXIT_ALREADY_RUNS = 75
EXIT_PORT_IN_USE = 98

Said = float | list[str] | None


class StartError(Exception):
    """The process cannot start. ``code`` is its exit code; ``reason`` is of the catalogue."""

    def __init__(self, message: str, code: int, reason: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class Folder:
    """The state folder of one serving process, held by a lock until the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def hold(self, *, make: bool = True) -> None:
        """Lock the folder, which is made if it is not there. Raises StartError."""
        try:
            if make:
                self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "serving.lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another serving process holds {self.path}; stop it or use another --state"
            raise StartError(message, EXIT_ALREADY_RUNS, "BackendRefused") from None
        except OSError as error:
            message = f"cannot write in {self.path}: {error.strerror}; make it writable"
            raise StartError(message, EXIT_CANNOT_WRITE, "StorageFull") from None

    def admin_socket(self) -> socket.socket:
        """Listen on ``admin.sock``, which only this user can open."""
        directory = os.open(self.path, os.O_PATH | os.O_DIRECTORY)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._remove("admin.sock")
            # By way of the open folder: a socket's path must be shorter than 108 bytes.
            listener.bind(f"/proc/self/fd/{directory}/admin.sock")
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            message = f"cannot make the socket {self.path / 'admin.sock'}: {error.strerror}"
            raise StartError(message, EXIT_CANNOT_WRITE, "StorageFull") from None
        finally:
            os.umask(mask)
            os.close(directory)
        return listener

    @property
    def is_held(self) -> bool:
        """Whether a process holds it, this one or another."""
        try:
            lock = os.open(self.path / "serving.lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def announce(self, host: str, port: int, version: str, **more: Said) -> None:
        """Say in ``serving.json`` that this process listens, and where. Raises StartError."""
        document = {
            "pid": os.getpid(),
            "start_ticks": start_ticks(),
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "host": host,
            "port": port,
            "version": version,
            **more,
        }
        try:
            self._write("serving.json", document)
            self._remove("error.json")
        except OSError as error:
            message = f"cannot write in {self.path}: {error.strerror}; make room"
            raise StartError(message, EXIT_CANNOT_WRITE, "StorageFull") from None

    def report(self, error: StartError) -> None:
        """Leave the reason of a failed start in ``error.json``; best effort."""
        if error.code in (EXIT_ALREADY_RUNS, EXIT_CANNOT_WRITE):
            return  # the folder is another process's, or takes no files
        self._remove("serving.json")
        self._write("error.json", {"reason": error.reason, "message": str(error)})

    def withdraw(self) -> None:
        """Take the announcement back at a good end."""
        self._remove("serving.json")
        self._remove("admin.sock")

    def _remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def _write(self, name: str, document: Mapping[str, object]) -> None:
        """Whole or not at all, for whoever reads at the same time."""
        draft = self.path / f".{name}"  # the lock makes this process its only writer
        draft.write_text(json.dumps(document))
        draft.replace(self.path / name)


def reachable(path: Path) -> str:
    """A name for a unix socket by way of its folder, which stays open.

    A socket's path must be shorter than 108 bytes, and a state folder may lie deep.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    return f"/proc/self/fd/{directory}/{path.name}"


HTTP_SETTING = "params.port of the Target or WINDLASS_SERVING_PORT"
GRPC_SETTING = "params.grpcPort of the Target"


def public_socket(host: str, port: int, setting: str = HTTP_SETTING) -> socket.socket:
    """Listen where clients call; ``setting`` is where the port comes from. Raises StartError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is: without
    # that, an answer in two pieces waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise port_in_use(host, port, setting) from None
        message = f"cannot listen on {host}:{port}: {error.strerror or error}; set another address"
        raise StartError(message, EXIT_FAILED, "BackendRefused") from None
    return listener


def port_in_use(host: str, port: int, setting: str) -> StartError:
    """What to say when another program is there already."""
    message = f"another program holds {host}:{port}; stop it, or set {setting} to another port"
    return StartError(message, EXIT_PORT_IN_USE, "PortInUse")


@dataclass(frozen=True)
class Place:
    """Where clients call."""

    host: str
    port: int
    grpc_port: int | None = None
    """None: not at all."""
    tls: Certificate | None = None
    """None: plain HTTP."""
    keys: Path | None = None
    """The file with the hashes of API keys."""
    memory: int | None = None
    """Bytes that all models together may take; None: as much as there is."""
    logged: float = 0.0
    """Share of the requests that the log tells of."""
    idle: float | None = None
    """Seconds after which a process ends that has nothing to do; None: never. Of a worker: that
    nobody leads and nobody asks."""
    processes: int = 1
    """That serve, at most."""
    hung: float = 10.0
    """Seconds without an answer after which one of several processes is replaced."""
    lead: Lead | None = None
    """Of a worker: what it has from its supervisor."""

    def said(self, grpc_port: int | None) -> dict[str, Said]:
        """What else ``serving.json`` says, for the adapter to compare with the Target."""
        return {
            "grpc_port": grpc_port,
            "memory": self.memory,
            "tls": [str(self.tls.chain), str(self.tls.key)] if self.tls is not None else None,
            "access_log": self.logged,
            "idle": self.idle,
            "processes": self.processes,
        }


@dataclass(frozen=True)
class Lead:
    """What a worker has from its supervisor."""

    admin: Path
    """The supervisor's admin socket."""
    http: int
    """Descriptor of the listening socket."""
    grpc: int | None = None
    """The same for gRPC."""


def start_ticks() -> int:
    """When this process started, in clock ticks since boot: with the pid, nobody else's."""
    stat = Path("/proc/self/stat").read_text()
    # The second field is the program's name in brackets and may hold anything, spaces too.
    return int(stat.rpartition(")")[2].split()[19])
