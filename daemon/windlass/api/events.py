"""Routes for events (hop 8): page through the log, or follow it as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response

from windlass.api.live import LiveResponse, Write
from windlass.api.problems import ProblemError, split_hint
from windlass.api.runtime import Runtime
from windlass.api.views import EventList, LoggedEvent
from windlass.store.base import Store
from windlass_schemas import Key

PAGE = 500
"""Events read from the store at once."""
KEEP_ALIVE = 15.0
"""Seconds of silence before a comment shows that the stream lives. A lost hint costs no more."""

After = Annotated[int, Query(ge=0, description="A position in the log.")]
Tail = Annotated[
    int | None, Query(ge=0, description="Start so many positions before the end instead.")
]
Only = Annotated[str | None, Query(description="Only events of this object: Kind/namespace/name.")]


async def end_of_log(store: Store) -> int:
    """The position of the newest event, found in a logarithmic number of small reads."""
    low, step = 0, 1
    while await store.events(low + step, 1):
        low += step
        step *= 2
    high = low + step
    while low < high:
        middle = (low + high) // 2
        rest = await store.events(middle, 1)
        if rest:
            low = rest[0][0]
        else:
            high = middle
    return low


def _subject(key: str | None) -> str | None:
    if key is None:
        return None
    try:
        return str(Key.parse(key))
    except ValueError as error:
        raise ProblemError(422, *split_hint(str(error))) from error


async def _start(store: Store, after: int, tail: int | None) -> int:
    return after if tail is None else max(await end_of_log(store) - tail, 0)


def _frame(event: LoggedEvent) -> bytes:
    data = event.event.model_dump_json(by_alias=True)
    return f"id: {event.position}\nevent: {event.event.type}\ndata: {data}\n\n".encode()


async def _hints(stream: AsyncIterator[int], news: asyncio.Event) -> None:
    async for _ in stream:
        news.set()


async def _follow(runtime: Runtime, after: int, subject: str | None, write: Write) -> None:
    """Write every event after a position, then each new one, for ever."""
    news = asyncio.Event()
    async with runtime.subscribe() as stream, asyncio.TaskGroup() as group:
        group.create_task(_hints(stream, news))
        # An id without data: a reader that loses the stream before any event comes back to here.
        await write(f"id: {after}\n: events after this position\n\n".encode())
        while True:
            news.clear()
            page = await runtime.store.events(after, PAGE)
            for position, event in page:
                after = position
                if subject is None or event.subject == subject:
                    await write(_frame(LoggedEvent(position=position, event=event)))
            if page:
                continue
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    await news.wait()
            except TimeoutError:
                await write(b": alive\n\n")


def routes(runtime: Runtime, closing: asyncio.Event) -> APIRouter:
    """``/api/v1/events`` and ``/api/v1/events/stream``."""
    router = APIRouter(prefix="/api/v1/events", tags=["events"])

    @router.get("")
    async def list_events(
        after: After = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE)] = 100,
        tail: Tail = None,
        key: Only = None,
    ) -> EventList:
        """Events in the order in which they were written."""
        subject = _subject(key)
        start = await _start(runtime.store, after, tail)
        page = await runtime.store.events(start, limit)
        return EventList(
            events=tuple(
                LoggedEvent(position=position, event=event)
                for position, event in page
                if subject is None or event.subject == subject
            ),
            next=page[-1][0] if page else start,
            more=len(page) == limit,
        )

    @router.get(
        "/stream",
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {}}, "description": "CloudEvents."}},
    )
    async def stream_events(
        after: After = 0,
        tail: Tail = None,
        key: Only = None,
        last_event_id: Annotated[int | None, Header(ge=0)] = None,
    ) -> LiveResponse:
        """Events as they happen. A reader that comes back sends Last-Event-ID and misses none."""
        subject = _subject(key)
        if last_event_id is not None:
            start = last_event_id
        else:
            start = await _start(runtime.store, after, tail)

        async def produce(write: Write) -> None:
            await _follow(runtime, start, subject, write)

        return LiveResponse(produce, closing=closing, media_type="text/event-stream")

    return router
