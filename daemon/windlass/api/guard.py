"""Who may speak to the API: programs of this machine, and no page of another site.

The API has no password, so a browser must not be made to use it. Two checks close both ways in:
the Host header must not be a name that somebody else can point at this machine (DNS rebinding),
and a request that changes something must not come from another site's page (its Origin).
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from windlass.api.problems import send_problem

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def host_of(authority: str) -> str | None:
    """The host of ``host``, ``host:port`` or ``[v6]:port``, lower case; None when it is neither."""
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class Guard:
    """ASGI middleware that refuses foreign hosts, and changes asked for by foreign pages."""

    def __init__(self, app: ASGIApp, *, host: str) -> None:
        self._app = app
        bound = _address(host)
        self._everywhere = bound is not None and bound.is_unspecified
        self._names = {"localhost", host.lower()}
        if self._everywhere:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def _known(self, host: str | None) -> bool:
        if host is None:
            return False
        address = _address(host)
        if address is not None and (address.is_loopback or self._everywhere):
            return True  # an address in the Host header cannot come from a rebound name
        return host in self._names

    def refusal(self, method: str, headers: Headers) -> tuple[str, str] | None:
        """Why a request is refused and what to do, or None when it is not."""
        host = headers.get("host", "")
        if not self._known(host_of(host)):
            return (
                f"Host {host!r} is not this daemon's name",
                "use http://127.0.0.1 or http://localhost with the daemon's port",
            )
        if method in _READING:
            return None
        origin = headers.get("origin")
        foreign = origin is not None and origin.lower() not in {
            f"http://{host}".lower(),
            f"https://{host}".lower(),
        }
        if foreign or headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
            return (
                f"a page of another site ({origin}) may not change anything here",
                "use the command line, or a page that this daemon serves itself",
            )
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self.refusal(scope["method"], Headers(scope=scope))
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await send_problem(scope, receive, send, 403, *refused)
