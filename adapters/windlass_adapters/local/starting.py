"""Starts runs: the daemon's side of the nursery (hop 7). Blocking, for use in threads.

Whatever dies in here, a run starts once: a runner takes the run's claim before it does anything,
and an order whose answer got lost goes to a second runner, which finds the claim taken.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from windlass_adapters.base import AmbiguousError, TransientError
from windlass_adapters.local.processes import LAUNCH_TIMEOUT, module_command, module_environment

AT_ONCE = 32 * 1024
"""Bytes of an order that a socket takes although nobody reads yet."""
LOG = "nursery.log"
NURSERY_MODULE = "windlass_adapters.local.nursery"


class Starter:
    """Gives runs to runners that are ready."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is the Target's: where the nursery's log goes."""
        self._folder = folder
        self._lock = threading.Lock()
        self._nursery: _Nursery | None = None

    def start(
        self, run: Path, given: Mapping[str, object], asked: socket.socket | None = None
    ) -> None:
        """Have a run begin; returns once a runner has claimed it, or found it claimed or gone.

        ``given`` goes through a socket, so that secrets in it touch no disk. ``asked`` is the
        runner that has the order already. Raises AmbiguousError, TransientError, and OSError when
        no process can be started.
        """
        order = _order(run, given)
        try:
            if asked is not None and self._answered(asked):
                return
            for _ in range(1 if asked is not None else 2):
                runner = self._runner()
                with suppress(ConnectionError):
                    _send(runner, order)
                if self._answered(runner):
                    return
        except TimeoutError:
            raise AmbiguousError(
                f"run {run.name} did not begin within {LAUNCH_TIMEOUT:.0f} s"
            ) from None
        raise AmbiguousError(f"two runners were killed while they began run {run.name}")

    def at_hand(self) -> socket.socket | None:
        """A runner, if one is ready now. Whoever takes it gives it an order, or closes it."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._nursery is None or not self._nursery.offers:
                return None
            return self._nursery.take()
        except ConnectionError:  # it has died; the next start makes another one
            return None
        finally:
            self._lock.release()

    def ask(self, runner: socket.socket, run: Path, given: Mapping[str, object]) -> bool:
        """Give the order without waiting; False when it is too long for that, or nobody is there.

        ``start`` waits for the answer.
        """
        order = _order(run, given)
        if len(order) > AT_ONCE:
            return False
        with suppress(ConnectionError):
            _send(runner, order)
            return True
        return False

    def leave(self, runner: socket.socket) -> None:
        """Let a runner go without an order, and have another one made."""
        runner.close()
        self._one_more()

    def close(self) -> None:
        """Keep no runner ready any more. What runs goes on."""
        with self._lock:
            self._drop()

    def _answered(self, asked: socket.socket) -> bool:
        """Whether a runner has answered; one that was killed has not. Raises TimeoutError."""
        with asked:
            asked.settimeout(LAUNCH_TIMEOUT)
            answer = b""
            with suppress(ConnectionError):
                answer = asked.recv(1)
        self._one_more()
        return bool(answer)

    def _one_more(self) -> None:
        """Not before a run has begun: a new runner would take the processor from it.

        And without the lock, whose holder may be waiting for that very runner.
        """
        nursery = self._nursery
        if nursery is not None:
            nursery.ask()

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


def _order(run: Path, given: Mapping[str, object]) -> bytes:
    return json.dumps({"folder": str(run), **given}).encode()


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

    @property
    def offers(self) -> bool:
        """Whether a runner is ready, or there will be none."""
        return bool(select.select([self._offers], [], [], 0)[0])

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
