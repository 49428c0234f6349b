"""Start and stop of a process that serves: composition root of the data plane.

Outside the eight hops. The process is one for itself, or a worker: then its socket and its orders
come from a supervisor (``fleet``).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from windlass.bus.address import Address
from windlass.serving.access import LOOK, Keys
from windlass.serving.admin import Admin, HttpServer
from windlass.serving.certificate import Renewed
from windlass.serving.deployments import Deployments
from windlass.serving.front import Front
from windlass.serving.http import Limits
from windlass.serving.inference import Inference
from windlass.serving.listener import Listener
from windlass.serving.metrics import Metrics
from windlass.serving.pages import Pages, Whole
from windlass.serving.process import STOP_GRACE, Folder, Place, public_socket, reachable
from windlass.serving.starting import again_and_again, plain_errors, stopping_by_signals
from windlass.serving.usage import WRITE, Usage

if TYPE_CHECKING:
    from windlass.serving.bus import InferenceBus
    from windlass.serving.fleet.led import Led
    from windlass.serving.fleet.relay import Relay

LOADERS = 2
"""Versions that are loaded at the same time, over all Deployments."""
_UNLED = 60.0
"""Seconds after which a worker ends that was never told to serve."""

log = structlog.get_logger()


async def serve(folder: Folder, place: Place, version: str) -> None:
    """Listen, announce, and serve until a signal comes. Raises StartError."""
    stop = stopping_by_signals()
    tls = Renewed(place.tls) if place.tls is not None else None
    lead = place.lead
    shared = lead is not None
    public = socket.socket(fileno=lead.http) if lead else public_socket(place.host, place.port)
    sockets = [public]
    """Those that are shared with other processes, and handed on."""
    relays: list[Relay] = []
    private = folder.admin_socket()
    port = public.getsockname()[1]
    metrics, limits = Metrics(), Limits(logged=place.logged)
    async with plain_errors(), asyncio.TaskGroup() as tasks:
        loads = ThreadPoolExecutor(LOADERS, "load")
        deployments = Deployments(tasks, loads, metrics.load_ended, place.memory, led=shared)
        keys = Keys(place.keys, folder.path.parent.parent / "rates" if shared else None)
        usage = Usage(None if shared else folder.path / "usage.json")
        keys.refresh()
        inference = Inference(deployments, limits, keys, usage)
        metrics.watch(deployments.all, inference.strangers, usage)
        whole = _whole(place, metrics)
        front = Front(inference, Pages(inference, metrics, version, whole), metrics, limits)
        context = tls.context if tls is not None else None
        listener = Listener(front, limits, public, context, shared=shared)
        led = _led(deployments, metrics, listener, relays, stop.set) if shared else None
        orders = Admin(deployments, version, stop.set, led.routes() if led is not None else ())
        admin = HttpServer(orders.app, private)

        def end_if_idle() -> None:
            silence, limit = orders.silence(), place.idle
            if shared and not listener.open:
                limit = _UNLED
            elif shared:
                # Without a supervisor it serves on for its clients, but not for nobody.
                silence = min(silence, deployments.unused())
            elif deployments.all():
                return
            if limit is not None and silence > limit:
                log.info("nobody asks", silence=round(silence))
                stop.set()

        async with contextlib.AsyncExitStack() as open_ports:
            grpc_port = None
            if place.grpc_port is not None:
                from windlass.serving.grpc_v2.server import Calls, GrpcServer

                calls = Calls(inference, metrics, version, whole)
                path = reachable(folder.path / "grpc.sock") if shared else None
                server = GrpcServer(calls, place, limits, tls, path)
                await open_ports.enter_async_context(server)
                grpc_port = place.grpc_port if shared else server.port
                if lead is not None and lead.grpc is not None and path is not None:
                    sockets.append(socket.socket(fileno=lead.grpc))
                    relays.append(_relay(sockets[-1], path))
                    open_ports.callback(relays[-1].stop)
            await open_ports.enter_async_context(listener)
            tasks.create_task(admin.run_until_stopped())
            if lead is not None:
                open_ports.enter_context(_handed_on(folder, sockets))
            folder.announce(place.host, port, version, **place.said(grpc_port))
            where = {"host": place.host, "port": port, "grpc_port": grpc_port}
            log.info("serving", **where, pid=os.getpid(), version=version)
            orders.begin()
            # What is here now stays: a collection then looks at what came since, and is short.
            gc.freeze()
            again = [
                tasks.create_task(again_and_again(LOOK, keys.refresh)),
                tasks.create_task(again_and_again(WRITE, usage.write)),
                tasks.create_task(again_and_again(1.0, end_if_idle)),
            ]
            if tls is not None:
                again.append(tasks.create_task(again_and_again(LOOK, tls.refresh)))
            bus = _bus(inference)
            answering = tasks.create_task(bus.run()) if bus is not None else None
            await stop.wait()
            log.info("stopping", grace=STOP_GRACE)
            if answering is not None:
                answering.cancel()
        for each in again:
            each.cancel()
        usage.write()
        if led is not None:
            led.last_words(folder.path)
        admin.should_exit = True
        deployments.cancel()
    folder.withdraw()
    log.info("stopped")


def _led(
    deployments: Deployments,
    metrics: Metrics,
    listener: Listener,
    relays: Sequence[Relay],
    stop: Callable[[], None],
) -> Led:
    from windlass.serving.fleet.led import Led  # most processes have no supervisor

    return Led(deployments, metrics, listener, relays, stop)


def _relay(shared: socket.socket, path: str) -> Relay:
    from windlass.serving.fleet.relay import Relay  # most processes share no socket

    return Relay(shared, path)


def _whole(place: Place, metrics: Metrics) -> Whole | None:
    if place.lead is None:
        return None
    from windlass.serving.fleet.led import numbers_of_all

    return numbers_of_all(place.lead.admin, metrics)


def _handed_on(folder: Folder, sockets: list[socket.socket]) -> socket.socket:
    from windlass.serving.fleet.sharing import hand_on

    return hand_on(folder.path, sockets)


def _bus(inference: Inference) -> InferenceBus | None:
    """What the environment says of a broker; an argument would show its password to everybody."""
    address = Address.from_environment()
    if address is None:
        return None
    from windlass.serving.bus import InferenceBus  # most processes have no broker

    served = inference.deployments.all
    return InferenceBus(address, inference.infer, lambda: [each.name for each in served()])
