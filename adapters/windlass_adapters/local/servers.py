"""The serving process, seen from outside: whether it lives, where it listens (hops 5 and 7).

One for each Target, in ``serving/``. It outlives the daemon. All methods are blocking, and quick.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from windlass_adapters.base import AmbiguousError
from windlass_adapters.local.processes import ProcessId, is_alive, launch, send
from windlass_adapters.local.records import read_process, write_record
from windlass_adapters.local.storage import load, writing
from windlass_schemas import Reason

LAUNCHER_MODULE = "windlass_adapters.local.launcher"
SERVING_MODULE = "windlass.serving"


class Listening(BaseModel):
    """``serving.json``: written by the serving process once it listens."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    start_ticks: int
    boot_id: str
    host: str
    port: int
    grpc_port: int | None = None

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


class Server:
    """The serving process of one folder."""

    def __init__(self, folder: Path, host: str, port: int, grpc_port: int | None = None) -> None:
        self.folder = folder.absolute()
        self._host = host
        self._port = port
        self._grpc_port = grpc_port
        self._stopping: ProcessId | None = None

    def look(self) -> Listening | Starting | None:
        """The serving process; None for certain that there is none. Raises BrokenRecordError."""
        listening = load(self.folder / "serving.json", Listening)
        if listening is not None and is_alive(listening.process):
            return listening
        starting = read_process(self.folder / "starting.json")
        return Starting() if starting is not None and is_alive(starting) else None

    def is_as_wanted(self, listening: Listening) -> bool:
        """Whether it listens where the Target says."""
        return (
            listening.host == self._host
            and self._port in (0, listening.port)
            and (listening.grpc_port is None) == (self._grpc_port is None)
            and self._grpc_port in (None, 0, listening.grpc_port)
        )

    def start(self) -> None:
        """Start one. What the last one complained of is kept until one listens."""
        error = self.folder / "error.json"
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if error.exists():
                error.replace(self.folder / "last-error.json")
            # Nobody, until the new process says who it is: also shows that the disk takes files.
            write_record(self.folder / "starting.json", ProcessId(0, 0, "")._asdict())
            place = ["--host", self._host, "--port", str(self._port)]
            if self._grpc_port is not None:
                place += ["--grpc-port", str(self._grpc_port)]
            arguments = [SERVING_MODULE, "--state", str(self.folder), *place]
            try:
                record = str(self.folder / "starting.json")
                launch(LAUNCHER_MODULE, [record, *arguments], self.folder / "serving.log")
            except TimeoutError as timeout:
                raise AmbiguousError(str(timeout)) from None

    def stop(self, listening: Listening) -> None:
        """Ask it to finish its requests and go; once, for a second time means at once."""
        if self._stopping != listening.process:
            self._stopping = listening.process
            send(listening.process, signal.SIGTERM)

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
