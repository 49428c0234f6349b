"""``python -m windlass.serving --state DIR``: start and stop of the serving process.

Outside the eight hops: ``serve`` is what runs, or ``fleet`` where several processes serve. Ends on
SIGTERM, SIGINT or ``POST /stop`` after the requests under way, at most 30 s later. Exit codes: 0
stopped, 73 the state folder takes no files, 75 another process holds it, 98 the port is taken, 1
any other reason.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

import structlog

from windlass.serving.certificate import Certificate
from windlass.serving.process import Folder, Lead, Place, StartError
from windlass.serving.turns import take_short_turns

_COLLECT_AFTER = 20_000
"""Objects made and not yet gone, before cycles among them are looked for."""

log = structlog.get_logger()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process; the result is its exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    take_short_turns()  # before libraries start threads
    # Requests leave no cycles behind: looking for some at each tick would cost 3 % of them.
    gc.set_threshold(_COLLECT_AFTER)
    gc.freeze()
    _log_as_json()
    folder = Folder(options.state.absolute())
    try:
        # A worker whose folder is gone before it begins was given up by its supervisor's successor.
        folder.hold(make=options.lead is None)
        _run(_work(folder, _place(options), _version()))
    except StartError as error:
        log.error("cannot start", message=str(error))  # noqa: TRY400 - the message says it all
        with contextlib.suppress(OSError):
            folder.report(error)
        return error.code
    return 0


def _work(folder: Folder, place: Place, version: str) -> Coroutine[None, None, None]:
    # Imported here: a supervisor runs no model, and does without the libraries for it.
    if place.processes > 1 and place.lead is None:
        from windlass.serving.fleet.supervisor import supervise

        return supervise(folder, place, version)
    from windlass.serving.serve import serve

    return serve(folder, place, version)


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
    parser.add_argument("--idle", type=float, help="seconds without anything to do before it ends")
    parser.add_argument("--processes", type=int, default=1, help="processes that serve, at most")
    parser.add_argument(
        "--hung-after",
        type=float,
        default=10.0,
        help="seconds until one without answer is replaced",
    )
    parser.add_argument("--lead", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--socket", type=int, nargs="+", help=argparse.SUPPRESS)
    return parser


def _place(options: argparse.Namespace) -> Place:
    return Place(
        host=options.host,
        port=options.port,
        grpc_port=options.grpc_port,
        tls=Certificate(*options.tls) if options.tls else None,
        keys=options.keys,
        memory=options.memory,
        logged=options.access_log,
        idle=options.idle,
        processes=options.processes,
        hung=options.hung_after,
        lead=Lead(options.lead, *options.socket) if options.lead else None,
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
