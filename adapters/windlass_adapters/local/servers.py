"""The serving process, seen from outside: whether it lives, where it listens (hops 5 and 7).

One for each Target, in ``serving/``. It outlives the daemon. All methods are blocking, and quick.
"""

from __future__ import annotations

import signal
import ssl
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from windlass_adapters.base import AmbiguousError
from windlass_adapters.local.params import LocalParams
from windlass_adapters.local.processes import ProcessId, is_alive, launch, send
from windlass_adapters.local.records import read_process, write_record
from windlass_adapters.local.storage import load, writing
from windlass_schemas import Reason

LAUNCHER_MODULE = "windlass_adapters.local.launcher"
SERVING_MODULE = "windlass.serving"
_OF_SUPERVISORS = frozenset({"processes", "memory", "accessLog", "idle", "tls.certificate"})
"""Params that workers can follow one after the other, each replaced by one that does."""


class Listening(BaseModel):
    """``serving.json``: written by the serving process once it listens."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    start_ticks: int
    boot_id: str
    host: str
    port: int
    grpc_port: int | None = None
    memory: int | None = None
    tls: tuple[str, str] | None = None
    """Files of certificate and key."""
    access_log: float = 0.0
    processes: int = 1
    idle: float | None = None

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.start_ticks, self.boot_id)


class Refusal(BaseModel):
    """``error.json``: why a serving process gave up."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: Reason = Reason.BACKEND_UNAVAILABLE
    message: str


@dataclass(frozen=True)
class Starting:
    """A serving process lives and does not listen yet."""


def serving_processes(folder: Path) -> list[ProcessId]:
    """What serves in that folder: one process, which ends what it has started.

    Or those that a supervisor has left behind when it was killed. Raises BrokenRecordError.
    """
    for places in ([folder], sorted((folder / "workers").glob("*"))):
        records = [load(place / "serving.json", Listening) for place in places]
        living = [each.process for each in records if each and is_alive(each.process)]
        if living:
            return living
    return []


class Server:
    """The serving process of one folder."""

    def __init__(self, folder: Path, params: LocalParams, keys: Path | None = None) -> None:
        self.folder = folder.absolute()
        self._params = params
        self._keys = keys
        self._stopping: ProcessId | None = None

    def look(self) -> Listening | Starting | None:
        """The serving process; None for certain that there is none. Raises BrokenRecordError."""
        listening = load(self.folder / "serving.json", Listening)
        if listening is not None and is_alive(listening.process):
            return listening
        starting = read_process(self.folder / "starting.json")
        return Starting() if starting is not None and is_alive(starting) else None

    def differences(self, listening: Listening) -> set[str]:
        """The Target's params that it does not follow; only another one can."""
        params = self._params
        grpc = (listening.grpc_port is None) == (params.grpc_port is None)
        same = {
            "host": listening.host == params.host,
            "port": params.port in (0, listening.port),
            "grpcPort": grpc and params.grpc_port in (None, 0, listening.grpc_port),
            "memory": listening.memory == params.memory_bytes,
            "tls": (listening.tls is None) == (params.tls is None),
            "tls.certificate": None in (listening.tls, params.tls)
            or listening.tls == self._certificate(),
            "accessLog": listening.access_log == params.access_log,
            "processes": listening.processes == params.processes,
            "idle": listening.idle == params.idle.total_seconds(),
        }
        return {name for name, is_same in same.items() if not is_same}

    def start(self) -> None:
        """Start one. What the last one complained of is kept until one listens."""
        error = self.folder / "error.json"
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if error.exists():
                error.replace(self.folder / "last-error.json")
            # Nobody, until the new process says who it is: also shows that the disk takes files.
            write_record(self.folder / "starting.json", ProcessId(0, 0, "")._asdict())
            arguments = [SERVING_MODULE, "--state", str(self.folder), *self._place()]
            try:
                record = str(self.folder / "starting.json")
                launch(LAUNCHER_MODULE, [record, *arguments], self.folder / "serving.log")
            except TimeoutError as timeout:
                raise AmbiguousError(str(timeout)) from None

    def _certificate(self) -> tuple[str, str] | None:
        """The files of certificate and key that the Target asks for."""
        if (tls := self._params.tls) is None:
            return None
        return str(Path(tls.certificate).absolute()), str(Path(tls.key).absolute())

    def trouble(self) -> str | None:
        """Why a process that serves as the Target asks for could not start, as far as one sees."""
        if (files := self._certificate()) is None:
            return None
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*files)
        except (OSError, ssl.SSLError) as error:
            text = f"cannot use {files[0]} with {files[1]}: {error.strerror or error}"
            return f"{text}; mend params.tls"
        return None

    def _place(self) -> list[str]:
        params = self._params
        flags = ["--host", params.host, "--port", str(params.port)]
        flags += ["--idle", str(params.idle.total_seconds())]
        flags += ["--processes", str(params.processes)]
        if params.grpc_port is not None:
            flags += ["--grpc-port", str(params.grpc_port)]
        if (files := self._certificate()) is not None:
            flags += ["--tls", *files]
        if params.access_log:
            flags += ["--access-log", str(params.access_log)]
        if params.memory_bytes is not None:
            flags += ["--memory", str(params.memory_bytes)]
        return flags if self._keys is None else [*flags, "--keys", str(self._keys)]

    def hands_over(self, listening: Listening) -> bool:
        """Whether the next one can take over all that serves: both are supervisors."""
        several = min(listening.processes, self._params.processes) > 1
        return several and self.differences(listening) <= _OF_SUPERVISORS

    def stop(self, listening: Listening) -> None:
        """Ask it to finish its requests and go; once, for a second time means at once.

        Of a supervisor that the next one can follow only itself ends: its workers serve on.
        """
        if self._stopping != listening.process:
            self._stopping = listening.process
            softly = self.hands_over(listening)
            send(listening.process, signal.SIGUSR1 if softly else signal.SIGTERM)

    def refusal(self) -> Refusal | None:
        """What the last serving process complained of, if none has listened since."""
        for name in ("error.json", "last-error.json"):
            if found := load(self.folder / name, Refusal):
                return found
        return None

    def forget_refusal(self) -> None:
        """One listens: the complaint is settled."""
        for name in ("error.json", "last-error.json"):
            (self.folder / name).unlink(missing_ok=True)
