"""The bus port: where events go to, and how those who wait for them are woken. The end of hop 8."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from windlass_schemas import CloudEvent


class Bus(Protocol):
    """Carries events to subscribers, at least once and in order per object."""

    sends: bool = True
    """False where all subscribers read the store's log themselves: then nothing is handed over."""

    @abstractmethod
    def wake(self) -> None:
        """There are new events in the store: those who follow it in this process look again."""

    @abstractmethod
    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Hand events over in their order; returns when all are safe.

        Raises OSError when the bus is away; then any of them may have been carried.
        """

    @abstractmethod
    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[int]]:
        """Numbered wake-ups after events in this process: hints to read the store."""
