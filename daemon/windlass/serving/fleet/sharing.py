"""The listening socket that several processes share: taken from one at a time, and handed on.

All workers wait for connections on the same open socket, which the supervisor made and they
inherited. A worker that stops accepting leaves what waits in the queue to the others: nothing is
reset, as it would be with a socket for each (``SO_REUSEPORT``), whose queue dies with it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from windlass.serving.process import reachable

SOCKETS = "sockets.sock"
"""In a worker's folder: who connects is sent the listening sockets."""
_MOST = 8

log = structlog.get_logger()


class Acceptor:
    """Takes connections from a shared socket, one for each turn of the loop.

    One and not all that wait: the workers that wake up together share them out.
    """

    def __init__(
        self,
        shared: socket.socket,
        make: Callable[[], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._shared = shared
        self._make = make
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._making: set[asyncio.Task[None]] = set()
        self.open = False

    def start(self) -> None:
        """Take connections from now on."""
        if not self.open:
            self.open = True
            self._loop.add_reader(self._shared.fileno(), self._take)

    def stop(self) -> None:
        """Take no more. The socket lives on in the other processes."""
        if self.open:
            self.open = False
            self._loop.remove_reader(self._shared.fileno())

    async def settled(self) -> None:
        """Wait for those that were taken and are not connections yet."""
        if self._making:
            await asyncio.wait(self._making)

    def _take(self) -> None:
        try:
            taken, _ = self._shared.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was quicker
        except OSError as error:  # no more files: try again when some are closed
            log.warning("accept", message=str(error))
            self.stop()
            self._loop.call_later(0.1, self.start)
            return
        taken.setblocking(False)
        # Nagle's algorithm: see ``public_socket``. Here no library turns it off.
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._connect(taken))
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    async def _connect(self, taken: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, taken, ssl=self._tls)
        except (OSError, ssl.SSLError):
            taken.close()  # it hung up, or spoke no TLS


def hand_on(folder: Path, sockets: list[socket.socket]) -> socket.socket:
    """Send the sockets to whoever connects to ``SOCKETS``. Closing the result ends it."""
    loop = asyncio.get_running_loop()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    (folder / SOCKETS).unlink(missing_ok=True)
    listener.bind(reachable(folder / SOCKETS))
    (folder / SOCKETS).chmod(0o600)
    listener.listen(4)
    listener.setblocking(False)

    def give() -> None:
        try:
            caller, _ = listener.accept()
        except OSError:
            return
        with caller:
            caller.setblocking(True)
            socket.send_fds(caller, [b"sockets"], [each.fileno() for each in sockets])

    loop.add_reader(listener.fileno(), give)
    return listener


def take_over(folder: Path) -> list[socket.socket]:
    """The sockets of the worker in that folder. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(2.0)
        link.connect(reachable(folder / SOCKETS))
        said, descriptors, _, _ = socket.recv_fds(link, 16, _MOST)
    if not said:
        raise ConnectionError(f"{folder} gave no sockets")
    return [socket.socket(fileno=each) for each in descriptors]
