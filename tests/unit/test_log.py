"""Logs are pretty for people, JSON for programs, and hold no secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from windlass.log import configure

CANARY = "canary-7f3a"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_line_is_one_json_object_where_no_person_reads() -> None:
    """Own records and those of libraries alike, with level and time."""
    stream = io.StringIO()
    configure(stream, json=True)
    structlog.get_logger().info("pass.done", key="Job/default/train", seconds=0.2)
    logging.getLogger("uvicorn.error").error("port %d went away", 8700)
    own, library = _lines(stream)
    assert (own["event"], own["level"], own["key"]) == ("pass.done", "info", "Job/default/train")
    assert library["event"] == "port 8700 went away"
    assert {"at", "level"} <= library.keys()


def test_people_get_text() -> None:
    """A stream that is no terminal gets no colour codes even so."""
    stream = io.StringIO()
    configure(stream, json=False)
    structlog.get_logger().warning("pass.failed", key="Job/default/train")
    assert "pass.failed" in stream.getvalue()
    assert "\x1b[" not in stream.getvalue()


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_reaches_a_log(as_json: bool) -> None:
    """Not under a telling name, not in an address, a header or a query, not deep inside."""
    stream = io.StringIO()
    configure(stream, json=as_json)
    log = structlog.get_logger()
    log.info("a", password=CANARY, db_password=CANARY, token=CANARY, aws_secret_access_key=CANARY)
    log.info("b", url=f"amqp://user:{CANARY}@host/", header=f"Bearer {CANARY}{CANARY}")
    log.info("c", url=f"https://s3/x?X-Amz-Signature={CANARY}&a=1")
    log.info("d", params={"nested": [{"api_key": CANARY}]})
    logging.getLogger("botocore").error("refused %s", f"https://a:{CANARY}@host")
    assert CANARY not in stream.getvalue()
    assert stream.getvalue().count("***") == 9


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_local_variables(as_json: bool) -> None:
    """They may hold resolved secrets."""
    stream = io.StringIO()
    configure(stream, json=as_json)

    def call() -> None:
        resolved = "canary" + "-7f3a"
        raise RuntimeError(f"refused after {len(resolved)} characters")

    try:
        call()
    except RuntimeError:
        structlog.get_logger().exception("pass.failed")
    assert "refused after 11 characters" in stream.getvalue()
    assert CANARY not in stream.getvalue()


def test_references_and_our_own_tokens_stay_readable() -> None:
    """A reference says where the secret is; a sync token is no secret."""
    stream = io.StringIO()
    configure(stream, json=True)
    structlog.get_logger().info("x", password="env:DB_PASSWORD", sync_token="abc", tokens=3)
    (line,) = _lines(stream)
    assert (line["password"], line["sync_token"], line["tokens"]) == ("env:DB_PASSWORD", "abc", 3)


def test_a_second_configure_reaches_every_logger() -> None:
    """The daemon configures once; tests and tools may do so again."""
    first, second = io.StringIO(), io.StringIO()
    log = structlog.get_logger()
    configure(first, json=True)
    log.info("one")
    configure(second, json=True)
    log.info("two")
    assert [line["event"] for line in _lines(first)] == ["one"]
    assert [line["event"] for line in _lines(second)] == ["two"]
