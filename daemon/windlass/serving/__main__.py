"""``python -m windlass.serving --state DIR``: start and stop of the serving process.

Composition root of the data plane; outside the eight hops. Ends on SIGTERM, SIGINT or
``POST /stop`` after the requests under way, at most 30 s later. Exit codes: 0 stopped, 73 the state
folder takes no files, 75 another process holds it, 98 the port is taken, 1 any other reason.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvicorn
from starlette.applications import Starlette

from windlass.bus.address import Address
from windlass.serving.access import LOOK, Keys
from windlass.serving.admin import Admin
from windlass.serving.deployments import Deployments
from windlass.serving.front import Front
from windlass.serving.http import Limits
from windlass.serving.inference import Inference
from windlass.serving.listener import STOP_GRACE, Listener
from windlass.serving.metrics import Metrics
from windlass.serving.pages import Pages
from windlass.serving.process import Certificate, Folder, Place, StartError, public_socket
from windlass.serving.usage import WRITE, Usage

if TYPE_CHECKING:
    from windlass.serving.bus import InferenceBus

LOADERS = 2
"""Versions that are loaded at the same time, over all Deployments."""
_COLLECT_AFTER = 20_000
"""Objects made and not yet gone, before cycles among them are looked for."""

log = structlog.get_logger()


class HttpServer(uvicorn.Server):
    """One HTTP listener of several in the same loop; signals are the process's, not its own."""

    def __init__(self, app: Starlette, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_GRACE,
            )
        )
        self._listener = listener

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_stopped(self) -> None:
        """Serve until ``should_exit`` is set and the requests under way have ended."""
        await self.serve(sockets=[self._listener])


async def serve(folder: Folder, place: Place) -> None:
    """Listen, announce, and serve until a signal comes. Raises StartError."""
    version = _version()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tls = place.tls.context() if place.tls is not None else None
    public = public_socket(place.host, place.port)
    private = folder.admin_socket()
    port = public.getsockname()[1]
    metrics, limits = Metrics(), Limits(logged=place.logged)
    async with _plain_errors(), asyncio.TaskGroup() as tasks:
        loads = ThreadPoolExecutor(LOADERS, "load")
        deployments = Deployments(tasks, loads, metrics.load_ended, place.memory)
        keys, usage = Keys(place.keys), Usage(folder.path / "usage.json")
        keys.refresh()
        inference = Inference(deployments, limits, keys, usage)
        metrics.watch(deployments.all, inference.strangers)
        front = Front(inference, Pages(inference, metrics, version), metrics, limits)
        admin = HttpServer(Admin(deployments, version, stop.set).app(), private)
        async with contextlib.AsyncExitStack() as open_ports:
            grpc_port = None
            if place.grpc_port is not None:
                from windlass.serving.grpc_v2.server import Calls, GrpcServer

                calls = Calls(inference, metrics, version)
                server = GrpcServer(calls, place, limits)
                await open_ports.enter_async_context(server)
                grpc_port = server.port
            listener = Listener(front, limits, public, tls)
            await open_ports.enter_async_context(listener)
            tasks.create_task(admin.run_until_stopped())
            folder.announce(place.host, port, version, **_asked(place, grpc_port))
            where = {"host": place.host, "port": port, "grpc_port": grpc_port}
            log.info("serving", **where, pid=os.getpid(), version=version)
            refreshing = tasks.create_task(_again_and_again(LOOK, keys.refresh))
            keeping = tasks.create_task(_again_and_again(WRITE, usage.write))
            bus = _bus(inference)
            answering = tasks.create_task(bus.run()) if bus is not None else None
            await stop.wait()
            log.info("stopping", grace=STOP_GRACE)
            if answering is not None:
                answering.cancel()
        refreshing.cancel()
        keeping.cancel()
        usage.write()
        admin.should_exit = True
        deployments.cancel()
    folder.withdraw()
    log.info("stopped")


def _bus(inference: Inference) -> InferenceBus | None:
    """What the environment says of a broker; an argument would show its password to everybody."""
    address = Address.from_environment()
    if address is None:
        return None
    from windlass.serving.bus import InferenceBus  # most processes have no broker

    served = inference.deployments.all
    return InferenceBus(address, inference.infer, lambda: [each.name for each in served()])


async def _again_and_again(seconds: float, act: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            act()
        except Exception:  # requests must go on
            log.exception("a look that comes again and again")


@contextlib.asynccontextmanager
async def _plain_errors() -> AsyncIterator[None]:
    """A start that failed inside a group of tasks is still one error with one message."""
    try:
        yield
    except BaseExceptionGroup as group:
        found = group.subgroup(StartError)
        if found is None:
            raise
        raise found.exceptions[0] from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process; the result is its exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Requests leave no cycles behind: looking for some at each tick would cost 3 % of them.
    gc.set_threshold(_COLLECT_AFTER)
    gc.freeze()
    _log_as_json()
    folder = Folder(options.state.absolute())
    try:
        folder.hold()
        _run(serve(folder, _place(options)))
    except StartError as error:
        log.error("cannot start", message=str(error))  # noqa: TRY400 - the message says it all
        with contextlib.suppress(OSError):
            folder.report(error)
        return error.code
    return 0


def _run(work: Coroutine[None, None, None]) -> None:
    """In uvloop where it is installed; the loop of the standard library does as well."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m windlass.serving", description="Serve Deployments over HTTP."
    )
    parser.add_argument("--state", type=Path, required=True, help="folder of this process's own")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_port, default=8701, help="port; 0 takes a free one")
    parser.add_argument("--access-log", type=float, default=0.0, help="share of requests to log")
    parser.add_argument("--tls", type=Path, nargs=2, help="files of certificate and key, in PEM")
    parser.add_argument("--keys", type=Path, help="file with the hashes of API keys")
    parser.add_argument("--memory", type=int, help="bytes that all models together may take")
    parser.add_argument("--grpc-port", type=_port, help="port for gRPC; 0 takes a free one")
    return parser


def _asked(place: Place, grpc_port: int | None) -> dict[str, float | None]:
    """What else the adapter compares with the Target."""
    asked = {"grpc_port": grpc_port, "memory": place.memory, "tls": place.tls is not None}
    return {**asked, "access_log": place.logged}


def _place(options: argparse.Namespace) -> Place:
    return Place(
        host=options.host,
        port=options.port,
        grpc_port=options.grpc_port,
        tls=Certificate(*options.tls) if options.tls else None,
        keys=options.keys,
        memory=options.memory,
        logged=options.access_log,
    )


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port; use 0 to 65535")
    return number


def _version() -> str:
    try:
        return installed_version("windlass")
    except PackageNotFoundError:
        return "0+source"


def _log_as_json() -> None:
    """One JSON line an event on stderr, the libraries' warnings too."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Not sys.exit: it would wait for a thread in which a model runs or loads without end.
    os._exit(code)
