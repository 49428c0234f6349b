"""A worker's side: what its supervisor asks and orders, beside what the admin socket takes anyway.

A worker decides nothing for itself that all workers must agree on. A new version is loaded beside
the one in force and waits there until the supervisor says that every worker has it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from windlass.serving.deployments import Deployments
from windlass.serving.fleet.relay import Relay
from windlass.serving.fleet.words import LAST_WORDS, REPORT, SNAPSHOT, Report, Stand
from windlass.serving.listener import Listener
from windlass.serving.metrics import Metrics
from windlass.serving.process import reachable
from windlass.serving.served import Deployment
from windlass.serving.snapshot import Snapshot

POLITE = 5.0
"""Seconds that the clients of a worker that retires have to ask once more on their connections."""
_ASK = 5.0
"""Seconds that the supervisor has for an answer."""


class Led:
    """The routes, and what they need."""

    def __init__(
        self,
        deployments: Deployments,
        metrics: Metrics,
        listener: Listener,
        relays: Sequence[Relay],
        stop: Callable[[], None],
    ) -> None:
        self._deployments = deployments
        self._metrics = metrics
        self._listener = listener
        self._relays = relays
        self._stop = stop
        self._retiring: asyncio.Task[None] | None = None

    def routes(self) -> list[Route]:
        """For the admin socket."""
        return [
            Route("/report", self._report),
            Route("/open", self._open, methods=["POST"]),
            Route("/retire", self._retire, methods=["POST"]),
            Route("/deployments/{name}/settle", self._settle, methods=["POST"]),
            Route("/deployments/{name}/lanes", self._lanes, methods=["POST"]),
        ]

    def last_words(self, folder: Path) -> None:
        """Leave what was counted to the supervisor."""
        (folder / LAST_WORDS).write_bytes(SNAPSHOT.dump_json(self._metrics.snapshot()))

    async def _report(self, request: Request) -> Response:
        stands = {each.name: _stand(each) for each in self._deployments.all()}
        numbers = self._metrics.snapshot()
        numbers.process.count = int(self._listener.open)
        report = Report(self._listener.open, stands, numbers)
        return Response(REPORT.dump_json(report), media_type="application/json")

    async def _open(self, request: Request) -> Response:
        self._listener.start()
        for relay in self._relays:
            relay.start()
        return Response(status_code=204)

    async def _retire(self, request: Request) -> Response:
        if self._retiring is None:
            self._retiring = asyncio.create_task(self._leave())
        return Response(status_code=202)

    async def _leave(self) -> None:
        for relay in self._relays:
            relay.stop()
        await self._listener.retire(POLITE)
        for relay in self._relays:
            await relay.ended()
        self._stop()

    async def _settle(self, request: Request) -> Response:
        wish = json.loads(await request.body())
        self._deployments.settle(
            request.path_params["name"], wish["digest"], take_over=wish["take_over"]
        )
        return Response(status_code=204)

    async def _lanes(self, request: Request) -> Response:
        wish = json.loads(await request.body())
        self._deployments.set_lanes(request.path_params["name"], wish["lanes"])
        return Response(status_code=204)


def _stand(deployment: Deployment) -> Stand:
    served, candidate, failure = deployment.served, deployment.candidate, deployment.failure
    pending = deployment.pending
    return Stand(
        uid=deployment.owner.uid,
        served=served.order.digest if served is not None else None,
        candidate=candidate.order.digest if candidate is not None else None,
        pending=pending.digest if pending is not None else None,
        failed=failure.digest if failure is not None else None,
        message=failure.message if failure is not None else "",
        lanes=served.queue.lanes if served is not None else 0,
        asleep=served is not None and served.queue.asleep,
        hung=served.queue.hung if served is not None else 0,
        signature=served.model.signature.document() if served is not None else None,
    )


def numbers_of_all(admin: Path, own: Metrics) -> Callable[[], Awaitable[Snapshot]]:
    """Asks the supervisor for what all workers have counted; without one, our own is all."""
    transport = httpx.AsyncHTTPTransport(uds=reachable(admin))
    client = httpx.AsyncClient(transport=transport, base_url="http://supervisor", timeout=_ASK)

    async def ask() -> Snapshot:
        try:
            answer = await client.get("/numbers")
            return SNAPSHOT.validate_json(answer.raise_for_status().content)
        except (httpx.HTTPError, ValueError):
            return own.snapshot()

    return ask
