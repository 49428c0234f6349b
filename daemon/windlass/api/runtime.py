"""What the API needs of a running daemon. ``windlass.app`` implements it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from windlass.metrics import Metrics
from windlass.orphans import Orphans
from windlass.settings import Settings
from windlass.store.base import Object, Store
from windlass_adapters.base import Adapter
from windlass_schemas import Key


@dataclass(frozen=True)
class Check:
    """One thing that a running daemon must have."""

    name: str
    """``source git:/srv/specs``, ``store``, ``queue``, ``adapter local``."""
    ok: bool
    message: str
    """How it is; when it is not ok, what to do."""


class Runtime(Protocol):
    """A running daemon, as the API sees it."""

    @property
    @abstractmethod
    def store(self) -> Store: ...

    @property
    @abstractmethod
    def settings(self) -> Settings: ...

    @property
    @abstractmethod
    def metrics(self) -> Metrics: ...

    @property
    @abstractmethod
    def orphans(self) -> Orphans: ...

    @abstractmethod
    def enqueue(self, keys: Iterable[Key]) -> None:
        """Look at these objects now; a person asked for it."""

    @abstractmethod
    async def transferred(self, to: str) -> None:
        """An object has that source for its owner now: what that one declares comes into force."""

    @abstractmethod
    def pending(self, key: Key) -> bool:
        """Whether the key is queued or being worked on."""

    @abstractmethod
    async def adapter(self, object: Object) -> Adapter:
        """The adapter of the object's Target. Raises AdapterError."""

    @abstractmethod
    def health(self) -> Sequence[Check]:
        """Sources, store, queue and adapters. The daemon is ready when all are ok."""

    @abstractmethod
    def notes(self) -> Sequence[str]:
        """What sources have to say to people: uncommitted changes, for example."""

    @abstractmethod
    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[int]]:
        """Wakes after new events were written. Only a hint: read the store again."""
