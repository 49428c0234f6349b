"""The limits of the HTTP front, with small ones so that they are reached soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import httpx

from windlass.serving.deployments import Deployments
from windlass.serving.front import Front, Limits
from windlass.serving.metrics import Metrics


async def post(limits: Limits, body: AsyncIterator[bytes]) -> httpx.Response:
    """Send a body in pieces to a front without a model."""
    metrics = Metrics()
    with ThreadPoolExecutor(1) as threads:
        async with asyncio.TaskGroup() as tasks:
            deployments = Deployments(tasks, threads, metrics.load_ended)
            app = Front(deployments, metrics, threads, "1.0", limits).app()
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
                return await client.post("/v2/models/m/infer", content=body)


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    """A body of that many bytes at a time."""
    for size in sizes:
        yield b" " * size


async def stuck() -> AsyncIterator[bytes]:
    """A body that stops coming."""
    yield b" "
    await asyncio.Event().wait()


async def test_a_body_within_the_limit_is_read_whole() -> None:
    assert (await post(Limits(body=10), pieces(5, 5))).status_code == 404


async def test_a_body_without_a_declared_length_is_stopped_at_the_limit() -> None:
    response = await post(Limits(body=10), pieces(5, 6))
    assert response.status_code == 413
    assert response.json()["error"].startswith("the body is larger than 10 bytes")


async def test_a_body_without_an_end_is_not_read_for_ever() -> None:
    response = await post(Limits(body=10), pieces(*[30] * 1000))
    assert response.status_code == 413


async def test_a_body_that_stops_coming_is_given_up() -> None:
    response = await post(Limits(body_idle=0.01), stuck())
    assert response.status_code == 408
    assert response.json() == {"error": "the body stopped coming for 0.01 s; send it again"}
    assert response.headers["connection"] == "close"
