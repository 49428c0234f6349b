"""Named statements inside one transaction: what the SQL of every store is asked through.

The books are kept by coroutines over this port, once for all databases. SQLite answers at once, in
the thread of its file, so that ``at_once`` can run such a coroutine without an event loop.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Protocol, TypeVar

from windlass.store.rows import Row

T = TypeVar("T")
Value = str | int | None


class Transaction(Protocol):
    """All or nothing of what is said through it."""

    @abstractmethod
    async def one(self, statement: str, /, **values: Value) -> Row | None:
        """Run a statement; its first row."""

    @abstractmethod
    async def all(self, statement: str, /, **values: Value) -> list[Row]:
        """Run a statement; its rows."""

    @abstractmethod
    async def many(self, statement: str, rows: Sequence[Mapping[str, Value]], /) -> None:
        """Run a statement once for each row."""


Work = Callable[[Transaction], Awaitable[T]]
"""What to do in one transaction. It may be run again when the first try came to nothing."""


def at_once(work: Coroutine[None, None, T]) -> T:
    """Run a coroutine that never has to wait."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise AssertionError("this database answers at once")
