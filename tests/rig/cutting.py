"""A TCP relay that can be cut in the middle of an answer."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from types import TracebackType
from typing import Self

_AT_ONCE = struct.pack("ii", 1, 0)
"""Linger for no time: closing sends a reset."""


class Relay:
    """``with Relay(port) as relay``: connect to ``relay.port`` instead."""

    def __init__(self, to: int, seed: int = 1) -> None:
        self._to = to
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._left: int | None = None
        self._held = threading.Event()
        self._held.set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.cuts = 0

    def cut_after(self, least: int, most: int) -> None:
        """Cut the connection after so many more bytes of answers; again for each new one."""
        self._range = (least, most)
        self._left = self._random.randint(least, most)

    def mend(self) -> None:
        """Cut no more."""
        self._left = None

    def hold(self) -> None:
        """Let no answer through; nobody is told."""
        self._held.clear()

    def let_go(self) -> None:
        """Let what was held through."""
        self._held.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._pairs.append((client, server))
                for source, target, answers in ((client, server, False), (server, client, True)):
                    thread = threading.Thread(
                        target=self._pump, args=(source, target, answers), daemon=True
                    )
                    thread.start()
                    self._threads.append(thread)

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers:
                    self._held.wait()
                    if self._left is not None and len(data) >= self._left:
                        target.sendall(data[: self._left])
                        self._left = self._random.randint(*self._range)
                        self.cuts += 1
                        break
                    self._left = None if self._left is None else self._left - len(data)
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            for each in pair:
                each.close()
        for thread in self._threads:
            thread.join(5)
