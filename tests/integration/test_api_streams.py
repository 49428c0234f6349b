"""Events and logs can be followed; the server starts, refuses and stops as a part of the daemon."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from rig.api_daemon import ApiDaemon, TalkingAdapter, api_daemon, deployment, job, record, until
from windlass.api.events import end_of_log
from windlass.api.listening import PortUnavailableError, answer, bind
from windlass.api.server import create_app, serve
from windlass_schemas import CloudEvent, Key, Reason


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(tmp_path) as found:
        await found.declare(job("train"), deployment("wine"))
        yield found


@pytest.fixture
async def http(daemon: ApiDaemon) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=daemon.url, trust_env=False, timeout=10) as client:
        yield client


async def _happen(daemon: ApiDaemon, *messages: str) -> None:
    for message in messages:
        await daemon.conclude("Job/train", "False", Reason.PROGRESSING, message)


async def _events(response: httpx.Response) -> AsyncGenerator[tuple[int, str], None]:
    position = 0
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            position = int(value)
        elif field == "data":
            yield position, CloudEvent.model_validate_json(value).data.message


async def _take(
    http: httpx.AsyncClient, count: int, **request: dict[str, str]
) -> list[tuple[int, str]]:
    """The first events of a new stream."""
    found: list[tuple[int, str]] = []
    async with asyncio.timeout(10):
        async with http.stream("GET", "/api/v1/events/stream", **request) as response:  # type: ignore[arg-type]  # params and headers only
            assert response.headers["content-type"].startswith("text/event-stream")
            async with aclosing(_events(response)) as events:
                async for event in events:
                    found.append(event)
                    if len(found) == count:
                        break
    return found


async def test_events_are_paged_in_order(daemon: ApiDaemon, http: httpx.AsyncClient) -> None:
    """``next`` leads on until there is no more; ``tail`` starts before the end."""
    await _happen(daemon, "one", "two", "three")
    page = (await http.get("/api/v1/events", params={"limit": 2})).json()
    assert [e["event"]["data"]["message"] for e in page["events"]] == ["one", "two"]
    assert page["more"]
    rest = (await http.get("/api/v1/events", params={"after": page["next"]})).json()
    assert [e["event"]["data"]["message"] for e in rest["events"]] == ["three"]
    assert not rest["more"]
    tail = (await http.get("/api/v1/events", params={"tail": 1})).json()
    assert [e["event"]["data"]["message"] for e in tail["events"]] == ["three"]
    other = (await http.get("/api/v1/events", params={"key": "deployment/wine"})).json()
    assert (other["events"], other["next"]) == ([], rest["next"])


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9])
async def test_the_end_of_the_log_is_found_without_reading_it(
    daemon: ApiDaemon, count: int
) -> None:
    """Whatever its length."""
    await _happen(daemon, *map(str, range(count)))
    log = await daemon.store.events(0, 100)
    assert await end_of_log(daemon.store) == (log[-1][0] if log else 0)


async def test_a_reader_that_comes_back_misses_no_event_and_sees_none_twice(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """It says which event it saw last."""
    await _happen(daemon, "one", "two")
    first = await _take(http, 1)
    await _happen(daemon, "three")
    again = {"Last-Event-ID": str(first[-1][0])}
    assert [said for _, said in await _take(http, 2, headers=again)] == ["two", "three"]


async def test_a_new_event_reaches_a_reader_at_once(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """The daemon's hint wakes the stream; the store is what is read."""
    await _happen(daemon, "old")
    async with asyncio.TaskGroup() as group:
        taken = group.create_task(_take(http, 1, params={"tail": "0"}))
        await until(lambda: len(daemon.readers) == 1)
        await _happen(daemon, "new")
    assert [said for _, said in taken.result()] == ["new"]
    await until(lambda: not daemon.readers)  # the stream lets go when its reader has gone


async def test_a_log_is_followed_until_the_run_ends(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """What is written meanwhile comes along; the end of the run ends the response."""
    adapter = daemon.back
    assert isinstance(adapter, TalkingAdapter)
    run = record("run", "train-a1", completes=True)
    await daemon.conclude("Job/train", "False", Reason.PROGRESSING, externals=(run,))
    adapter.output["train-a1", "stdout"], adapter.ended = b"epoch 1\n", False
    seen = b""
    path = "/api/v1/objects/job/default/train/logs"
    async with asyncio.timeout(10), http.stream("GET", path, params={"follow": "1"}) as response:
        async for data in response.aiter_bytes():
            seen += data
            if seen == b"epoch 1\n":
                adapter.output["train-a1", "stdout"] += b"epoch 2\n"
                adapter.ended = True
    assert seen == b"epoch 1\nepoch 2\n"


async def test_a_stop_ends_every_stream_and_frees_the_port(tmp_path: Path) -> None:
    """Nobody has to hang up first, and no request hangs."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        async with api_daemon(tmp_path) as daemon:
            port = int(daemon.url.rpartition(":")[2])
            url = f"{daemon.url}/api/v1/events/stream"
            response = await client.send(client.build_request("GET", url), stream=True)
        async with asyncio.timeout(5):
            await response.aread()
    bind("127.0.0.1", port).close()


async def test_a_cancelled_server_lets_go_of_its_port(daemon: ApiDaemon) -> None:
    """A daemon whose other part failed does not leave a listener behind."""
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with asyncio.TaskGroup() as group:
        served = group.create_task(serve(create_app(daemon), listener, asyncio.Event()))
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/healthz")
            assert answer.status_code == 200
        served.cancel()
    bind("127.0.0.1", port).close()


def test_a_port_in_use_is_said_in_words() -> None:
    """Which port, and how to take another."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortUnavailableError, match=f"port {port} .* in use.*--api-port"):
            bind("127.0.0.1", port)
    with pytest.raises(PortUnavailableError, match="no address of this machine"):
        bind("host.invalid", 0)
    with pytest.raises(PortUnavailableError, match=r"192\.0\.2\.1"):
        bind("192.0.2.1", 0)


async def test_whoever_comes_before_the_news_is_answered_after_it(
    daemon: ApiDaemon,
) -> None:
    listener, stop, news = bind("127.0.0.1", 0), asyncio.Event(), asyncio.Event()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def wait() -> None:
        await news.wait()

    answering = asyncio.create_task(answer(daemon, listener, wait(), stop))
    async with httpx.AsyncClient() as client:
        asking = asyncio.create_task(client.get(f"{url}/healthz"))
        await asyncio.sleep(0.1)
        assert not asking.done()
        news.set()
        assert (await asking).status_code == 200
    stop.set()
    await answering


async def test_a_daemon_that_stops_before_the_news_answers_nobody(daemon: ApiDaemon) -> None:
    listener, stop = bind("127.0.0.1", 0), asyncio.Event()
    stop.set()
    async with asyncio.timeout(1):
        await answer(daemon, listener, asyncio.sleep(60), stop)
    assert listener.fileno() == -1


async def test_a_foreign_page_cannot_change_anything(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """The refusal comes before any route is reached, and reads like the others."""
    path = "/api/v1/objects/job/default/train/suspend"
    refused = await http.post(
        path, json={"reason": "x"}, headers={"origin": "https://evil.example"}
    )
    assert refused.status_code == 403
    assert set(refused.json()) == {"error", "hint"}
    rebound = await http.get("/api/v1/objects", headers={"host": "evil.example:8700"})
    assert rebound.status_code == 403
    found = await daemon.store.get(Key.parse("Job/train"))
    assert found is not None
    assert not found.suspended
