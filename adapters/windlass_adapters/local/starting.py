"""Starts runs: the daemon's side of the nursery (hop 7). Blocking, for use in threads.

Whatever dies in here, a run starts once: a runner takes the run's claim before it does anything,
and an order whose answer got lost goes to a second runner, which finds the claim taken.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from windlass_adapters.base import AmbiguousError, TransientError
from windlass_adapters.local.processes import LAUNCH_TIMEOUT, module_command, module_environment

LOG = "nursery.log"
NURSERY_MODULE = "windlass_adapters.local.nursery"


class Starter:
    """Gives runs to runners that are ready."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is the Target's: where the nursery's log goes."""
        self._folder = folder
        self._lock = threading.Lock()
        self._nursery: _Nursery | None = None

    def start(self, run: Path, given: Mapping[str, object]) -> None:
        """Have a run begin; returns once a runner has claimed it, or found it claimed or gone.

        ``given`` goes through a socket, so that secrets in it touch no disk. Raises AmbiguousError,
        TransientError, and OSError when no process can be started.
        """
        order = json.dumps({"folder": str(run), **given}).encode()
        try:
            for _ in range(2):
                if self._hand_over(order):
                    return
        except TimeoutError:
            raise AmbiguousError(
                f"run {run.name} did not begin within {LAUNCH_TIMEOUT:.0f} s"
            ) from None
        raise AmbiguousError(f"two runners were killed while they began run {run.name}")

    def close(self) -> None:
        """Keep no runner ready any more. What runs goes on."""
        with self._lock:
            self._drop()

    def _hand_over(self, order: bytes) -> bool:
        """Whether a runner has answered; one that was killed has not."""
        with self._runner() as runner:
            runner.settimeout(LAUNCH_TIMEOUT)
            answer = b""
            with suppress(ConnectionError):
                _send(runner, order)
                answer = runner.recv(1)
        # Not before: the new one would take the processor from this run. And without the lock,
        # whose holder may be waiting for that very runner.
        nursery = self._nursery
        if nursery is not None:
            nursery.ask()
        return bool(answer)

    def _runner(self) -> socket.socket:
        with self._lock:
            if self._nursery is not None:
                with suppress(ConnectionError):
                    return self._nursery.take()
                self._drop()
            self._nursery = _Nursery(self._folder)
            try:
                return self._nursery.take()
            except ConnectionError as error:
                self._drop()
                said = f"{error}; {self._folder / LOG} may say why"
                raise TransientError(said) from None

    def _drop(self) -> None:
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None


def _send(runner: socket.socket, order: bytes) -> None:
    """From here on the run may begin, whatever becomes of this process."""
    runner.sendall(len(order).to_bytes(8, "big") + order)


class _Nursery:
    """One nursery process, and the runners that it has offered."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._offers, theirs = socket.socketpair()
        self._offers.settimeout(LAUNCH_TIMEOUT)
        with theirs, (folder / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [*module_command(NURSERY_MODULE), str(folder), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=module_environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def take(self) -> socket.socket:
        """The next runner that is ready. Raises ConnectionError when the nursery has died."""
        said, descriptors, _, _ = socket.recv_fds(self._offers, 1, 1)
        if not said:
            raise ConnectionResetError("the nursery has died")
        return socket.socket(fileno=descriptors[0])

    def ask(self) -> None:
        """Have it make another one ready."""
        with suppress(OSError):
            self._offers.send(b"r")

    def close(self) -> None:
        """It ends by itself when nobody asks any more."""
        self._offers.close()
        try:
            self._process.wait(LAUNCH_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
