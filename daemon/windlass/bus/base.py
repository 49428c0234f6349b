"""The bus port: where events go to, and how those who wait for them are woken. The end of hop 8."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from windlass_schemas import CloudEvent


class Bus(Protocol):
    """Carries events to subscribers, at least once and in order per object."""

    @abstractmethod
    async def publish(self, event: CloudEvent) -> None:
        """Hand one event over; returns when it is safe. Raises OSError when the bus is away."""

    @abstractmethod
    def wake(self) -> None:
        """Another daemon has written events: wake who has subscribed in this process."""

    @abstractmethod
    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[int]]:
        """Numbered wake-ups after events in this process: hints to read the store."""
