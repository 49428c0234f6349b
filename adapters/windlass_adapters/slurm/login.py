"""The program on the login node, seen from here: one call, one command, one answer (hops 5 and 7).

The program travels with the first call, and is then kept below ``remoteRoot`` under its digest.
An answer counts only when it is whole.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from windlass_adapters.base import (
    AdapterError,
    AmbiguousError,
    TerminalError,
    TransientError,
    WaitingError,
)
from windlass_adapters.slurm.connection import CommandError, Connection
from windlass_adapters.slurm.counts import Counts, word_of
from windlass_adapters.slurm.params import SlurmParams
from windlass_adapters.slurm.program import START, job_script, remote_program
from windlass_schemas import Reason

Json = dict[str, JsonValue]

TIMEOUTS: Mapping[str, float] = {"submit": 150.0, "have": 120.0, "collect": 100.0, "cancel": 100.0}
"""Seconds that a command may take over there; others have ``TIMEOUT``."""
TIMEOUT = 60.0
MUTATING = frozenset({"submit", "cancel", "bury"})
_INSTALL = """
import io, os, sys, zipfile
size, path, first = int(sys.argv[1]), sys.argv[2], sys.argv[3]
root = os.path.dirname(os.path.dirname(path))
if first == "no" and not os.path.exists(root + "/OWNER"):
    sys.exit("OWNER is not there")
os.umask(63)
data = b""
while len(data) < size:
    piece = os.read(0, size - len(data))
    if not piece:
        sys.exit("the program did not arrive")
    data += piece
def install(program):
    for name in program.namelist():
        target, part = path + "/" + name, "%s/%s.%d" % (path, name, os.getpid())
        content = program.read(name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            with open(target, "rb") as file:
                if file.read() == content:
                    continue
        except FileNotFoundError:
            pass
        with open(part, "wb") as file:
            file.write(content)
        os.rename(part, target)
try:
    install(zipfile.ZipFile(io.BytesIO(data)))
except OSError as error:
    sys.exit("cannot write [%d] %s: %s" % (error.errno, error.filename, error.strerror))
os.execv(sys.executable, [sys.executable, "-I", "-S", path + "/run.py"])
"""
"""Takes the program from stdin, puts it in its place file by file, and becomes it.

A file that is right already is left as it is: what Python has compiled of it stays good.
"""
_CANNOT_WRITE = re.compile(r"cannot write \[(\d+)\] (.+): (.+)")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

_log = structlog.get_logger("windlass.slurm")


class Greeting(BaseModel):
    """What the cluster says of itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str
    max_array: int
    accounting: bool
    node: str
    uid: int


class Login:
    """Calls to one login node. All methods raise AdapterError only."""

    def __init__(
        self,
        connection: Connection,
        params: SlurmParams,
        install: str,
        folder: Path,
        counts: Counts,
    ) -> None:
        """``folder`` is the Target's own here; it remembers that a root was ours once."""
        self._connection = connection
        self._params = params
        self.counts = counts
        self._install = install
        self._program = remote_program()
        self.script = job_script()
        self._rooted = folder / "roots" / hashlib.sha256(params.remote_root.encode()).hexdigest()
        self._path = f"{params.remote_root}/bin/{self._program.name}"
        self._greeting: Greeting | None = None
        self._greeted = 0
        self._greeting_lock = asyncio.Lock()

    @property
    def root(self) -> str:
        return self._params.remote_root

    @property
    def programs(self) -> tuple[str, str]:
        """Names of what is used below ``bin`` over there."""
        return self._program.name, self.script.name

    async def greeting(self) -> Greeting:
        """Said once for each connection: who one speaks to may have changed."""
        async with self._greeting_lock:
            if self._greeting is None or self._greeted != self._connection.opened:
                self._greeting = await self._greet()
                self._greeted = self._connection.opened
            return self._greeting

    async def call(self, command: str, request: Json, blobs: Sequence[bytes] = ()) -> Json:
        """One command. Raises AmbiguousError only for what changes something."""
        await self.greeting()
        program = f"{self._params.remote_python} -I -S {self._path}/{START}"
        try:
            return await self._ask(program, command, request, blobs)
        except CommandError as error:  # the program is gone: a cleaned disk, an older installation
            _log.info("the program on the login node is installed again", why=str(error))
            self._greeting = None
            await self.greeting()
            return await self._ask(program, command, request, blobs)

    async def _greet(self) -> Greeting:
        content = self._program.content
        first = not await asyncio.to_thread(self._rooted.exists)
        words = f"{len(content)} {self._path} {'yes' if first else 'no'}"
        command = f"{self._params.remote_python} -I -S -c '{_INSTALL}' {words}"
        request: Json = {
            "programs": {self.script.name: self.script.content.decode()},
            "first": first,
        }
        try:
            found = await self._ask(command, "hello", request, (), before=content)
        except CommandError as error:
            raise self._refused(error) from None
        await asyncio.to_thread(self._remember)
        try:
            greeting = Greeting.model_validate(found)
        except ValidationError as error:
            raise TransientError(f"{self._connection.name}: {error.errors()[0]['msg']}") from None
        _log.info("cluster", host=self._connection.name, slurm=greeting.version, node=greeting.node)
        return greeting

    def _refused(self, error: CommandError) -> AdapterError:
        """Why the program is not there, and what to do."""
        if "OWNER is not there" in str(error):
            return TransientError(
                f"{self.root} on {self._connection.name} is not as it was left: is its disk"
                f" mounted? If it was removed for good, remove {self._rooted} too"
            )
        if found := _CANNOT_WRITE.search(str(error)):
            number, path, why = int(found[1]), found[2], found[3]
            if number in _FULL:
                return storage(f"{why} ({path})")
            return TransientError(
                f"{path} on {self._connection.name} cannot be made or written: {why};"
                " params.remoteRoot must be a folder of your own"
            )
        return TransientError(f"{error}; is params.remotePython right?")

    def _remember(self) -> None:
        """From now on, a root that is not there is a disk that is away, never a new root."""
        self._rooted.parent.mkdir(parents=True, exist_ok=True)
        self._rooted.write_text(f"{self.root}\n")

    async def _ask(
        self,
        program: str,
        command: str,
        request: Json,
        blobs: Sequence[bytes],
        *,
        before: bytes = b"",
    ) -> Json:
        nonce = secrets.token_hex(12)
        head: Json = {
            "command": command,
            "nonce": nonce,
            "root": self.root,
            "install": self._install,
            "bin": self._params.slurm_bin,
            "conf": self._params.slurm_conf,
        }
        data = b"".join([before, json.dumps(head | request).encode(), b"\n", *blobs])
        try:
            out = await self._connection.run(program, data, TIMEOUTS.get(command, TIMEOUT))
            answer = parse_answer(out, nonce)
        except AdapterError as error:
            self.counts.execs[command, word_of(error)] += 1
            if isinstance(error, AmbiguousError) and command not in MUTATING:
                raise TransientError(str(error)) from None
            raise
        self.counts.execs[command, "ok"] += 1
        return answer


def parse_answer(out: bytes, nonce: str) -> Json:
    """What the program said, past whatever the login printed around it.

    Raises AmbiguousError when it is not whole, and the error that the program tells of.
    """
    mark = f"\n{nonce}\n".encode()
    _, found, rest = out.partition(mark)
    text, ended, _ = rest.partition(mark)
    if not found or not ended:
        raise AmbiguousError("the login node's answer broke off")
    try:
        answer = json.loads(text)
    except ValueError:
        raise AmbiguousError("the login node's answer cannot be read") from None
    if not isinstance(answer, dict):
        raise AmbiguousError("the login node's answer cannot be read")
    if isinstance(answer.get("ok"), dict):
        ok: Json = answer["ok"]
        return ok
    raise refusal(str(answer.get("kind")), str(answer.get("text")), answer.get("errno"))


def refusal(kind: str, text: str, number: JsonValue = None) -> AdapterError:
    """The program's own error as one of ours."""
    match kind:
        case "controller":
            return TransientError(f"Slurm does not answer: {text}")
        case "slurm":
            return TransientError(f"{text}; is params.slurmBin right?")
        case "owner":
            return TerminalError(f"{text}; set another params.remoteRoot")
        case "os" if number in _FULL:
            return storage(text)
    return TransientError(f"the login node says: {text}")


def storage(text: str) -> AdapterError:
    """A disk of the cluster that takes no more."""
    return WaitingError(
        f"the cluster's disk cannot be written: {text}; make room below remoteRoot,"
        " Windlass goes on by itself",
        reason=Reason.STORAGE_FULL,
    )
