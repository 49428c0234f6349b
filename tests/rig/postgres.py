"""A private PostgreSQL from Debian's package: own port, own folder, own user when we are root.

A test run starts one (``conftest.postgres``); each test takes a database that no test had before.
It lives in memory where that is possible and does not wait for a disk, unless a test asks for it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

from rig.certificates import make_certificates
from rig.project import free_ports
from windlass.store.roster import Member

SERVER_USER = "postgres"
BOUND = 120.0
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class PsqlError(Exception):
    """What the server refused, in its words."""


class Postgres:
    """One server. ``running_postgres`` starts and stops it."""

    def __init__(self, folder: Path, settings: Sequence[str], *, tls: bool = False) -> None:
        self.folder = folder
        self.certificates = make_certificates(folder / "tls") if tls else None
        (self.port,) = free_ports(1)
        self._data = folder / "data"
        self._settings = (
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={folder}",
            "max_connections=200",
            "log_line_prefix=%m %a ",
            *settings,
        )
        self._names = (f"t{number}" for number in count(1))
        self._server: subprocess.Popen[bytes] | None = None
        if self.certificates is not None:
            _give_to_server(folder)
            self._settings += (
                "ssl=on",
                f"ssl_cert_file={self.certificates.certificate}",
                f"ssl_key_file={self.certificates.key}",
            )
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "--no-sync", "-E", "UTF8")
        if tls:  # strangers need a password and a line that nobody reads; we come by the socket
            access = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
            (self._data / "pg_hba.conf").write_text(access)

    def url(self, database: str, user: str = "postgres", port: int = 0) -> str:
        """Where clients connect."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """Start it, with everything that it has confirmed, and wait until it answers."""
        options = [word for setting in self._settings for word in ("-c", setting)]
        command = [*_as_server_user(), _program("postgres"), "-D", str(self._data), *options]
        deadline = time.monotonic() + BOUND
        while not self.answers():
            assert time.monotonic() < deadline, f"the database does not start: {self.log()}"
            if self._server is None or self._server.poll() is not None:
                # A server that was killed leaves children, which must go before the next one.
                with (self.folder / "log").open("ab") as log:
                    self._server = subprocess.Popen(command, stdout=log, stderr=log)
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it takes connections now."""
        return self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), check=False) == 0

    def log(self) -> str:
        """The end of what it has said."""
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """Stop it in order; connections are ended, what they were doing is undone."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it without a warning; its other processes find out by themselves, and go."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(BOUND)
            self._server = None

    def database(self, template: str = "template1", name: str = "") -> str:
        """The URL of a database that is empty, or a copy."""
        name = name or next(self._names)
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres", user: str = "postgres") -> str:
        """Run statements as ``psql`` does: the rows as lines, columns parted by ``|``."""
        place = ["-h", str(self.folder), "-p", str(self.port), "-U", user, "-d", database]
        done = subprocess.run(
            [_program("psql"), "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", *place],
            input=statement,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
        if done.returncode != 0:
            raise PsqlError(done.stderr)
        return done.stdout

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(
            [*_as_server_user(), _program(program), *arguments],
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
            cwd=self.folder,
        )
        assert not check or done.returncode == 0, f"{program}: {done.stderr}"
        return done.returncode


def _program(name: str) -> str:
    """Debian keeps the server's programs out of the way."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else name


def _as_server_user() -> list[str]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={SERVER_USER}", f"--regid={SERVER_USER}", "--init-groups"]


def _give_to_server(folder: Path) -> None:
    """Files that the server must be able to read, and nobody else."""
    if os.geteuid() == 0:
        account = pwd.getpwnam(SERVER_USER)
        for each in (folder, *folder.rglob("*")):
            os.chown(each, account.pw_uid, account.pw_gid)


@contextmanager
def running_postgres(*settings: str, fast: bool = True, tls: bool = False) -> Iterator[Postgres]:
    """A server, gone afterwards with its folder."""
    memory = Path("/dev/shm")
    folder = Path(
        tempfile.mkdtemp(prefix="wl-pg-", dir=memory if fast and memory.is_dir() else None)
    )
    _give_to_server(folder)
    try:
        server = Postgres(folder, (*(FAST if fast else ()), *settings), tls=tls)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def member(name: str = "a", home: str = "", lease: float = 30.0, workers: int = 4) -> Member:
    """A daemon by name, whose home is its own."""
    return Member(
        name, home or name, f"host-{name}", os.getpid(), "test", workers, timedelta(seconds=lease)
    )
