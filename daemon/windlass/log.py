"""Logs of the daemon: for people on a terminal, one JSON object a line anywhere else.

Outside the eight hops; hop 8 writes one line a pass here. Nothing that looks like a secret leaves
the process: values under telling names, passwords in addresses and tokens in headers are masked,
and a traceback never shows local variables.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "***"

_SECRET_NAME = re.compile(
    r"(^|[_-])(pass(word|wd|phrase)|secrets?|authorization|credentials?|cookie"
    r"|(api|access|private|secret)[_-]?key|(auth|access|bearer|refresh|session)[_-]?token)($|[_-])"
    r"|^token$",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"^(env|file):\S+$")
_IN_TEXT = (
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]*@", re.IGNORECASE), rf"\1{MASK}@"),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    (
        re.compile(
            r"([?&][\w-]*(?:token|signature|secret|password|key)=)[^&\s\"']+", re.IGNORECASE
        ),
        rf"\1{MASK}",
    ),
)


def _mask_text(text: str) -> str:
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def _masked(name: str, value: object) -> object:
    if _SECRET_NAME.search(name) and isinstance(value, str | bytes):
        # A reference says where a secret lies, which is what a reader needs; it is no secret.
        return value if isinstance(value, str) and _REFERENCE.match(value) else MASK
    if isinstance(value, str):
        return _mask_text(value)
    if isinstance(value, Mapping):
        return {key: _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_masked(name, inner) for inner in value]
    return value


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor: mask what looks like a secret, at any depth."""
    return {name: _masked(name, value) for name, value in event.items() if name[0] != "_"} | {
        name: value for name, value in event.items() if name[0] == "_"
    }


_FOR_MACHINES = ("duration", "generation", "pass_id", "requeue_after", "level")


def for_people(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Processor: leave out what only a machine reads, and what says nothing."""
    hidden = _FOR_MACHINES if method in ("info", "debug") else ()
    return {
        name: value for name, value in event.items() if value is not None and name not in hidden
    }


def configure(stream: TextIO, json: bool, *, level: int = logging.INFO) -> None:
    """Send structlog's and the standard library's records to one stream. May be called again."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at")
        if json
        else structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False, key="at"),
        structlog.processors.StackInfoRenderer(),
    ]
    tail: list[Processor] = [structlog.processors.format_exc_info, mask_secrets]
    if json:
        tail.append(structlog.processors.JSONRenderer(default=str))
    else:
        people = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), timestamp_key="at", pad_event_to=0, sort_keys=False
        )
        tail += [for_people, people]
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,  # a second configure must reach every logger
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))  # libraries speak up only when something is wrong
