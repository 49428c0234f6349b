"""Only programs of this machine speak to the API; a page of another site cannot use it."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from windlass.api.guard import Guard


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("not called")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8700", "127.8.8.8", "localhost:8700", "LOCALHOST", "[::1]:8700"]
)
def test_names_and_addresses_of_this_machine_are_answered(host: str) -> None:
    """Whatever the port."""
    assert Guard(_nothing, host="127.0.0.1").refusal("GET", Headers({"host": host})) is None


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8700", "localhost.evil.example", "192.0.2.7", "[::1", "a b"],
)
def test_a_name_that_somebody_else_can_point_here_is_refused(host: str) -> None:
    """That is how DNS rebinding reads an API that listens on loopback only; reading counts too."""
    assert Guard(_nothing, host="127.0.0.1").refusal("GET", Headers({"host": host})) is not None


def test_a_daemon_that_listens_everywhere_is_reached_by_any_address_but_not_by_any_name() -> None:
    """An address cannot be rebound; a configured name is known."""
    everywhere = Guard(_nothing, host="0.0.0.0")
    assert everywhere.refusal("GET", Headers({"host": "192.0.2.7:8700"})) is None
    assert everywhere.refusal("GET", Headers({"host": "evil.example"})) is not None
    named = Guard(_nothing, host="build.internal")
    assert named.refusal("GET", Headers({"host": "build.internal:8700"})) is None


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"origin": "http://127.0.0.1:8700"}, False),
        ({"origin": "http://127.0.0.1:8700", "sec-fetch-site": "same-origin"}, False),
        ({"origin": "http://127.0.0.1:9999"}, True),
        ({"origin": "https://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_a_change_asked_for_by_a_foreign_page_is_refused(
    method: str, headers: dict[str, str], refused: bool
) -> None:
    """Programs send no Origin; a page sends its own, and cannot leave it out."""
    guard = Guard(_nothing, host="127.0.0.1")
    found = guard.refusal(method, Headers({"host": "127.0.0.1:8700", **headers}))
    assert (found is not None) is refused


def test_reading_needs_no_origin_check() -> None:
    """Without CORS headers a browser does not show the answer to a foreign page anyway."""
    guard = Guard(_nothing, host="127.0.0.1")
    headers = Headers({"host": "127.0.0.1:8700", "origin": "https://evil.example"})
    assert guard.refusal("GET", headers) is None
