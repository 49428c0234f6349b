"""Start and stop of the supervisor: composition root of a Target that several processes serve.

Outside the eight hops. It holds the listening sockets, the admin socket and the books; it answers
no inference request. One that was killed leaves workers that serve on, and the next one takes them.
``HAND_OVER`` asks for just that: the next one may want another number of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from windlass.serving.admin import Admin, HttpServer
from windlass.serving.fleet.fleet import Fleet
from windlass.serving.fleet.sharing import take_over
from windlass.serving.fleet.words import SNAPSHOT
from windlass.serving.fleet.worker import Worker
from windlass.serving.fleet.yard import Start, Yard
from windlass.serving.process import GRPC_SETTING, STOP_GRACE, Folder, Place, public_socket
from windlass.serving.starting import again_and_again, plain_errors, stopping_by_signals
from windlass.serving.usage import WRITE

HAND_OVER = signal.SIGUSR1
_LEFT = 300.0
"""Seconds after which a worker ends that has neither a supervisor nor anybody who asks."""

log = structlog.get_logger()


async def supervise(folder: Folder, place: Place, version: str) -> None:
    """Listen, announce, and have it served until a signal comes. Raises StartError."""
    stop, handed_over = stopping_by_signals(), False
    if place.tls is not None:
        place.tls.context()  # or every worker would find out for itself
    public = await _inherited(folder, place) or _sockets(place)
    private = folder.admin_socket()
    port, *more = (each.getsockname()[1] for each in public)
    grpc_port = more[0] if more else None
    descriptors = [each.fileno() for each in public]
    start = Start(_arguments(folder, place, port, grpc_port), version, descriptors)
    yard = Yard(folder.path / "workers", start, place.processes, place.hung)
    fleet = Fleet(folder.path, yard)

    async def numbers(request: Request) -> Response:
        return Response(SNAPSHOT.dump_json(await fleet.numbers()), media_type="application/json")

    orders = Admin(fleet, version, stop.set, [Route("/numbers", numbers)])
    admin = HttpServer(orders.app, private)

    def end_if_idle() -> None:
        if fleet.empty and place.idle is not None and orders.silence() > place.idle:
            log.info("nothing to serve", silence=round(orders.silence()))
            stop.set()

    def hand_over() -> None:
        nonlocal handed_over
        handed_over = True
        stop.set()

    asyncio.get_running_loop().add_signal_handler(HAND_OVER, hand_over)
    async with plain_errors(), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(admin.run_until_stopped())
        again = [
            tasks.create_task(fleet.run()),
            tasks.create_task(again_and_again(WRITE, fleet.write)),
        ]
        await _first(fleet.ready, stop)
        orders.begin()
        again.append(tasks.create_task(again_and_again(1.0, end_if_idle)))
        folder.announce(place.host, port, version, **place.said(grpc_port))
        where = {"host": place.host, "port": port, "grpc_port": grpc_port}
        log.info("supervising", **where, pid=os.getpid(), version=version)
        await stop.wait()
        log.info("stopping", handed_over=handed_over)
        for each in again:
            each.cancel()
        for listening in public:
            listening.close()
        if handed_over:
            fleet.write()
        else:
            await fleet.stop()
        admin.should_exit = True
        await serving
    folder.withdraw()
    log.info("stopped")


async def _first(*events: asyncio.Event) -> None:
    """Wait for whichever comes first."""
    waits = [asyncio.create_task(each.wait()) for each in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for each in waits:
        each.cancel()


def _sockets(place: Place) -> list[socket.socket]:
    """For HTTP, and for gRPC if it is wanted. Raises StartError."""
    found = [public_socket(place.host, place.port)]
    if place.grpc_port is not None:
        found.append(public_socket(place.host, place.grpc_port, GRPC_SETTING))
    return found


async def _inherited(folder: Folder, place: Place) -> list[socket.socket]:
    """The sockets of workers that another supervisor has left behind, if they are as wanted."""
    for left in sorted((folder.path / "workers").glob("*")):
        if not Folder(left).is_held:
            continue
        try:
            found = take_over(left)
        except OSError:
            continue
        if _as_wanted(found, place):
            return found
        for each in found:
            each.close()
        await _end(left)
    return []


def _as_wanted(found: Sequence[socket.socket], place: Place) -> bool:
    """Whether these are where the Target says."""
    ports = [place.port] if place.grpc_port is None else [place.port, place.grpc_port]
    if len(found) != len(ports):
        return False
    names = [each.getsockname()[:2] for each in found]
    hosts = _addresses(place.host)
    return all(
        host in hosts and wanted in (0, port)
        for (host, port), wanted in zip(names, ports, strict=True)
    )


def _addresses(host: str) -> set[str]:
    try:
        return {host, *(str(each[4][0]) for each in socket.getaddrinfo(host, None))}
    except OSError:
        return {host}


async def _end(left: Path) -> None:
    """End a worker that listens where this Target does not."""
    worker = Worker.find(left, (), "")
    if worker is None:
        return
    log.info("ending", worker=worker.name, pid=worker.pid)
    worker.send(signal.SIGTERM)
    end = time.monotonic() + STOP_GRACE + 5.0
    while not worker.ended and time.monotonic() < end:  # noqa: ASYNC110 - it ends by itself
        await asyncio.sleep(0.05)
    worker.send(signal.SIGKILL)


def _arguments(folder: Folder, place: Place, port: int, grpc_port: int | None) -> list[str]:
    """What every worker is told, beside its folder and its socket."""
    found = ["--host", place.host, "--port", str(port), "--access-log", str(place.logged)]
    found += ["--lead", str(folder.path / "admin.sock"), "--idle", str(_LEFT)]
    if grpc_port is not None:
        found += ["--grpc-port", str(grpc_port)]
    if place.tls is not None:
        found += ["--tls", str(place.tls.chain), str(place.tls.key)]
    if place.keys is not None:
        found += ["--keys", str(place.keys)]
    if place.memory is not None:
        found += ["--memory", str(place.memory // place.processes)]
    return found
