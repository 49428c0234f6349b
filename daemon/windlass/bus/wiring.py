"""The daemon's links to the broker: spec messages in, events out, snapshots on request.

Three connections, so that a broker that holds up publishers still takes acknowledgements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from windlass.bus.address import Address
from windlass.bus.base import Bus
from windlass.bus.events import AmqpBus
from windlass.bus.intake import Hear, SpecIntake
from windlass.bus.link import Link, LinkState
from windlass.bus.snapshots import Snapshots
from windlass.metrics import BusMetrics
from windlass.sources.messages import MessageReader
from windlass.store.base import LeaseLostError, Store


class Links:
    """All links of one daemon."""

    def __init__(
        self,
        address: Address,
        intake: SpecIntake,
        bus: AmqpBus,
        snapshots: Snapshots,
        metrics: BusMetrics,
    ) -> None:
        self.intake = Link("specs", address, intake.serve, (LeaseLostError,))
        self._outward = (
            Link("events", address, bus.serve),
            Link("requests", address, snapshots.serve),
        )
        for link in self.all:
            link.on_change = _Counting(link.name, metrics)

    @property
    def all(self) -> Sequence[Link]:
        """Each of them, for the readiness of the daemon."""
        return (self.intake, *self._outward)

    async def run_outward(self) -> None:
        """Keep what goes out connected until cancelled; the intake is one of the sources."""
        async with asyncio.TaskGroup() as group:
            for link in self._outward:
                group.create_task(link.run())


def connect(
    address: Address,
    bus: Bus,
    reader: MessageReader,
    hear: Hear,
    store: Store,
    metrics: BusMetrics,
) -> Links:
    """Everything that one daemon has to do with a broker; nothing is connected yet."""
    assert isinstance(bus, AmqpBus)
    intake = SpecIntake(reader, hear, store.install, metrics)
    return Links(address, intake, bus, Snapshots(store, metrics), metrics)


class _Counting:
    """Counts the states of one link."""

    def __init__(self, name: str, metrics: BusMetrics) -> None:
        self._up = metrics.up.labels(name)
        self._connects = metrics.connects.labels(name)

    def __call__(self, state: LinkState) -> None:
        self._up.set(state.up)
        if state.up:
            self._connects.inc()
