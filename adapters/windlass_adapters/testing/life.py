"""A stage for real adapters: virtual time, no threads, and all that a daemon begins ends with it.

A real adapter leaves work to threads, waits for locks, timeouts and tasks of its own, and asks what
time it is. On a ``StageLoop``

- time stands still while anything can go on, and then jumps to the next timer; the World's clock
  goes with it, and it with the World's;
- what is left to a thread (``asyncio.to_thread``) is done at once, where it is left; its answer is
  an await as ever;
- every await of every task that a pass or the adapter has begun is a step of that daemon's
  ``Life``, at which it may be cut. Killed means: none of its tasks ever goes on.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple, Unpack

from windlass_adapters.testing.stepping import Cut, InlineExecutor, Killed, Steps, driven

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE = 20.0
"""Real seconds until a stage on which nothing can happen any more is given up."""


class _Jumping(selectors.DefaultSelector):
    """Does not wait for time to pass, but lets it."""

    jump: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            found = super().select(PATIENCE)
            if not found:
                raise RuntimeError("nothing can happen on this stage any more: everybody waits")
            return found
        found = super().select(0)
        if timeout > 0 and not found:
            self.jump(timeout)
        return found


class StageLoop(asyncio.SelectorEventLoop):
    """An event loop without an outside: use it with ``asyncio.Runner(loop_factory=StageLoop)``."""

    def __init__(self) -> None:
        selector = _Jumping()
        selector.jump = self._jump
        self._now = 0.0
        self._told: list[Callable[[float], None]] = []
        self._inline = InlineExecutor()
        self._thread = threading.get_ident()
        super().__init__(selector)
        self.set_task_factory(_begin)

    def time(self) -> float:
        """Virtual seconds since the stage was opened."""
        return self._now

    def tell(self, listener: Callable[[float], None]) -> None:
        """Say to somebody how many seconds pass, whenever some do."""
        self._told.append(listener)

    def tell_no_more(self, listener: Callable[[float], None]) -> None:
        """Who has gone need not be told, and is kept by nobody."""
        self._told.remove(listener)

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """What is done at once needs not be woken, which takes a word to a socket of one's own."""
        if threading.get_ident() == self._thread:
            return self.call_soon(callback, *args, context=context)
        return super().call_soon_threadsafe(callback, *args, context=context)

    def _jump(self, seconds: float) -> None:
        self._now += seconds
        for listener in self._told:
            listener(seconds)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """What is left to a thread is done where it is left."""
        return super().run_in_executor(executor or self._inline, func, *args)


class Life:
    """One daemon on a StageLoop: its passes, and every task that comes of them."""

    def __init__(self, cut: Callable[[], Cut]) -> None:
        """``cut`` is asked at every step where to interfere now."""
        self._cut = cut
        self._pass: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, running: Steps[T]) -> T:
        """Run a pass. Raises Killed when the daemon dies in the middle of it."""
        own = copy_context()
        own.run(_LIFE.set, self)
        self._pass = asyncio.get_running_loop().create_task(running, context=own)
        await asyncio.wait({self._pass, self.over}, return_when=asyncio.FIRST_COMPLETED)
        if self.over.done():
            raise Killed
        result: T = self._pass.result()
        return result

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Know a task as this daemon's."""
        self._tasks.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if self.over.done() and not task.cancelled():
            task.exception()  # nobody else asks what became of it

    async def bury(self) -> None:
        """Let go of what has not ended, when nothing of it matters any more."""
        if not self.over.done():
            self.over.set_result(None)
        for task in (left := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def drive(self, running: Steps[T]) -> T:
        """Run one task's coroutine to its end, or to where its daemon dies."""
        return await driven(
            running, lambda: self._strike(running), lambda dead: self._cut().leave(dead)
        )

    def _strike(self, running: Steps[Any]) -> BaseException | None:
        """Whatever is cut next; no task of a dead daemon goes on."""
        fault = None if self.over.done() else self._interfere(self._cut().strike(running))
        return Killed() if self.over.done() else fault

    def _interfere(self, fault: BaseException | None) -> BaseException | None:
        """What to throw at the task that is about to go on."""
        if isinstance(fault, Killed):
            self.over.set_result(None)
        whole = self._pass
        if not isinstance(fault, asyncio.CancelledError) or whole is None or whole.done():
            return fault
        if whole is asyncio.current_task():
            return fault
        whole.cancel()  # a daemon cancels passes, not what these have begun
        return None


_LIFE: ContextVar[Life | None] = ContextVar("life", default=None)


def _begin(
    loop: asyncio.AbstractEventLoop,
    running: Coroutine[Any, Any, T] | Generator[Any, None, T],
    *,
    context: Context | None = None,
) -> asyncio.Task[T]:
    """A task, which belongs to the life in which it is begun."""
    life = _LIFE.get() if context is None else context.get(_LIFE)
    if life is None or not isinstance(running, Coroutine):
        return asyncio.Task(running, loop=loop, context=context)
    task = asyncio.Task(life.drive(running), loop=loop, context=context)
    life.adopt(task)
    return task
