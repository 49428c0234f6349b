"""Stop a coroutine in the middle: at its k-th suspension, do something else first, or die."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TypeVar

from windlass_adapters.testing.stepping import Killed

T = TypeVar("T")
Raw = Generator[object, object, T]


_DEAD: list[Raw[object]] = []
"""What was killed stays referenced, so that none of its ``finally`` blocks runs."""


class Interrupted(Awaitable[T]):
    """Awaits a coroutine, and runs ``act`` when it suspends for the k-th time.

    When ``act`` raises Killed, the coroutine is left where it is, as a dead process leaves it.
    """

    def __init__(
        self,
        coroutine: Coroutine[object, object, T],
        at: int,
        act: Callable[[], Awaitable[None]],
    ) -> None:
        self._inner: Raw[T] = coroutine.__await__()
        self._at = at
        self._act = act
        self.reached = False
        """Whether the coroutine has suspended that often."""

    def __await__(self) -> Generator[object, object, T]:
        count = 0
        inner = self._inner
        resume: Callable[[], object] = lambda: inner.send(None)  # noqa: E731
        while True:
            try:
                waited_for = resume()
            except StopIteration as end:
                result: T = end.value
                return result
            if count == self._at:
                self.reached = True
                try:
                    yield from self._act().__await__()
                except Killed:
                    _DEAD.append(inner)
                    raise
            count += 1
            try:
                yield waited_for
            except BaseException as error:
                thrown = error
                resume = lambda: inner.throw(thrown)  # noqa: E731, B023
            else:
                resume = lambda: inner.send(None)  # noqa: E731
