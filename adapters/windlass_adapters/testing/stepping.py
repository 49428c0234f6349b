"""Stop a coroutine at any await: hops 4 to 8, one suspension at a time.

A ``Cut`` counts the steps of everything that it drives, and at chosen steps it kills (the coroutine
just never runs again, as after kill -9) or throws an error in. A ``Gate`` lets a coroutine go on
only when the test says so, for interleavings.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from types import CoroutineType, coroutine
from typing import Any, ParamSpec, TypeVar

from windlass.store.base import StoreError

P = ParamSpec("P")
T = TypeVar("T")

STORE = "windlass/store/"

Steps = Coroutine[Any, Any, T]  # what a coroutine yields and gets is the event loop's own affair


class Killed(BaseException):
    """The process is dead: nothing catches this, and no ``finally`` has run."""


class InlineExecutor(Executor):
    """Runs work where it is submitted: the real SQL, with each await still a suspension."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:  # as in the base
        self.submitted += 1
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


@coroutine
def driven(
    running: Steps[T],
    strike: Callable[[], BaseException | None],
    leave: Callable[[Steps[T]], None],
) -> Generator[Any, Any, T]:
    """Run a coroutine to its end; before each of its steps ``strike`` says what to throw into it.

    At Killed it takes no step more, and is handed to ``leave`` as it is.
    """
    thrown: BaseException | None = None
    while True:
        thrown = strike() or thrown
        if isinstance(thrown, Killed):
            leave(running)
            raise thrown
        try:
            waits = running.throw(thrown) if thrown is not None else running.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        thrown = None
        try:
            yield waits
        except BaseException as error:  # the outer task is cancelled: that is for the inner one
            thrown = error


@dataclass
class Cut:
    """Where to interfere. Each number counts steps since the interference before it."""

    at: Sequence[int] = ()
    fault: BaseException = field(default_factory=Killed)
    steps: int = 0
    """Steps taken since the last interference; all steps while there was none."""
    struck: int = 0
    """How often it has interfered."""
    dead: list[Steps[Any]] = field(default_factory=list)

    def strike(self, running: Steps[Any]) -> BaseException | None:
        """Count a step, or say with what to interfere instead."""
        if self.struck < len(self.at) and self.steps == self.at[self.struck]:
            self.struck, self.steps = self.struck + 1, 0
            return _fitting(self.fault, running)
        self.steps += 1
        return None

    def leave(self, running: Steps[Any]) -> None:
        """Keep what is dead just as it is: dropped, it would run its ``finally``."""
        if inspect.getcoroutinestate(running) == inspect.CORO_CREATED:
            running.close()  # it has not begun, so nothing is left in the middle
        else:
            self.dead.append(running)

    async def drive(self, running: Steps[T]) -> T:
        """Run a coroutine to its end, or to where it is cut."""
        return await driven(running, lambda: self.strike(running), self.leave)

    def bury(self) -> None:
        """Let go of the dead, when nothing of theirs matters any more."""
        for running in self.dead:
            with suppress(BaseException):
                running.close()
        self.dead.clear()


def _fitting(fault: BaseException, running: Steps[Any]) -> BaseException:
    """A store's error where the store is waited for; elsewhere one that anybody else may have."""
    if not isinstance(fault, StoreError) or any(STORE in place for place in _places(running)):
        return fault
    return OSError(errno.EIO, f"{os.strerror(errno.EIO)} (by the test)")


def _places(running: object) -> Iterator[str]:
    """The files whose coroutines wait, from the outermost in."""
    if isinstance(running, CoroutineType) and running.cr_await is None:
        yield STORE  # it has not begun: all that it can hear of is the store
    while running is not None:
        code = getattr(running, "cr_code", None) or getattr(running, "gi_code", None)
        if code is not None:
            yield code.co_filename
        running = getattr(running, "cr_await", None) or getattr(running, "gi_yieldfrom", None)


class Gate:
    """Runs a coroutine as a task, one step for each ``step``."""

    def __init__(self, running: Steps[T]) -> None:
        self._turn = asyncio.Event()
        self._stopped = asyncio.Event()
        self.steps = 0
        self.finished = False
        self.error: BaseException | None = None
        self._running = asyncio.ensure_future(self._run(running))

    async def _run(self, running: Steps[T]) -> None:
        try:
            await self._paced(running)
        except Exception as error:
            self.error = error
        finally:
            self.finished = True
            self._stopped.set()

    @coroutine
    def _paced(self, running: Steps[T]) -> Generator[Any, Any, None]:
        while True:
            yield from self._turn.wait().__await__()
            self._turn.clear()
            self.steps += 1
            try:
                waits = running.send(None)
            except StopIteration:
                return
            yield waits
            self._stopped.set()

    async def step(self) -> None:
        """Take one step, and wait until what it waits for is there."""
        self._stopped.clear()
        self._turn.set()
        await self._stopped.wait()

    async def finish(self) -> None:
        """Take all steps that are left."""
        while not self.finished:
            await self.step()
        await self._running
