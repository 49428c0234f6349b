"""The process that keeps runners ready: hop 7. One for each local Target that has started a run.

``python -m windlass_adapters.local.nursery FOLDER DESCRIPTOR``. Starting an interpreter takes
longer than all else between a message and its run, so it is done before: this process has loaded
what a runner needs, forks a few ahead, and one more for each byte that it reads. A runner gets a
socket of its own, whose other end goes to the daemon. It leaves this process's family before it is
offered, so that it outlives both. When the daemon is gone, this process goes, and so do runners
without an order. Standard library only.
"""

from __future__ import annotations

import gc
import os
import socket
import sys

from windlass_adapters.local import runner

AHEAD = 2
"""Runners that are ready at a time; of a crowd, the others wait for a fork each."""


def main() -> None:
    """Offer runners for as long as somebody asks; in each of them, be one."""
    gc.freeze()  # or each fork would copy the pages that it counts references in
    with socket.socket(fileno=int(sys.argv[2])) as asked:
        order = _keep(asked)
    if order is not None:
        runner.attend(order)


def _keep(asked: socket.socket) -> socket.socket | None:
    """Fork one runner for each that is asked for. In a runner: where its order will come from."""
    for _ in range(AHEAD):
        if (order := _offer(asked)) is not None:
            return order
    while asked.recv(1):
        if (order := _offer(asked)) is not None:
            return order
    return None


def _offer(asked: socket.socket) -> socket.socket | None:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        if os.fork():
            os._exit(0)
        os.setsid()
        theirs.close()
        return ours
    os.waitpid(child, 0)
    ours.close()
    with theirs:
        socket.send_fds(asked, [b"r"], [theirs.fileno()])
    return None


if __name__ == "__main__":
    main()
