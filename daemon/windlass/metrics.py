"""Numbers for Prometheus, under the names that controller-runtime made common.

Beside the eight hops: the workqueue (3), the reconciler (4 to 8) and the bus (8) count here, and
``GET /metrics`` renders it. The composition root builds one ``Metrics``; nothing is global.
No metric carries an object's name, so that the number of series does not grow with the objects.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from windlass.store.base import Store
from windlass_adapters.base import Number

_SHORT = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60)
"""Buckets for queueing and passes, in seconds."""
_LONG = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)
"""Buckets for reaching Ready, in seconds."""


class WorkqueueMetrics:
    """How the workqueue does. All times in seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "windlass_workqueue_"
        self.depth = Gauge(f"{prefix}depth", "Keys that wait.", registry=registry)
        self.adds = Counter(f"{prefix}adds", "Keys added.", registry=registry)
        self.queue_duration = Histogram(
            f"{prefix}queue_duration_seconds",
            "How long a key waits before a worker takes it.",
            buckets=_SHORT,
            registry=registry,
        )
        self.work_duration = Histogram(
            f"{prefix}work_duration_seconds",
            "How long a worker holds a key.",
            buckets=_SHORT,
            registry=registry,
        )
        self.unfinished_work = Gauge(
            f"{prefix}unfinished_work_seconds",
            "Time spent so far on keys in work, summed.",
            registry=registry,
        )
        self.longest_running = Gauge(
            f"{prefix}longest_running_processor_seconds",
            "Time spent so far on the key that has been in work longest.",
            registry=registry,
        )
        self.retries = Counter(f"{prefix}retries", "Keys added after a failure.", registry=registry)


class ReconcileMetrics:
    """How the passes go. All times in seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "windlass_reconcile_"
        self.total = Counter(
            "windlass_reconcile",
            "Passes by result: success, error, requeue, requeue_after.",
            ["result"],
            registry=registry,
        )
        self.errors = Counter(f"{prefix}errors", "Passes that failed.", registry=registry)
        self.terminal_errors = Counter(
            "windlass_terminal_reconcile_errors",
            "Passes that failed in a way that no retry helps.",
            registry=registry,
        )
        self.time = Histogram(
            f"{prefix}time_seconds", "How long a pass takes.", buckets=_SHORT, registry=registry
        )
        self.max_concurrent = Gauge(
            "windlass_max_concurrent_reconciles", "Workers there are.", registry=registry
        )
        self.active_workers = Gauge(
            "windlass_active_workers", "Workers that are busy.", registry=registry
        )
        self.time_to_ready = Histogram(
            "windlass_time_to_ready_seconds",
            "From a new generation to Ready.",
            buckets=_LONG,
            registry=registry,
        )
        self.drift = Counter(
            "windlass_drift", "Times a backend was found changed from outside.", registry=registry
        )
        self.forgotten = Counter(
            "windlass_runs_forgotten",
            "Earlier runs that were removed, since enough newer ones are kept.",
            registry=registry,
        )
        self.backend_calls = Counter(
            "windlass_backend_calls",
            "Calls to adapters: ok, transient, waiting, terminal or ambiguous.",
            ["op", "class"],
            registry=registry,
        )
        self.hints = Counter(
            "windlass_backend_hints",
            "Objects of which a backend told that they have changed, by target.",
            ["target"],
            registry=registry,
        )


class BusMetrics:
    """What goes over the broker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "windlass_bus_"
        self.consumed = Counter(
            f"{prefix}spec_messages",
            "Spec messages by verdict: accepted, unchanged, deleting, duplicate, stale, conflict,"
            " refused.",
            ["verdict"],
            registry=registry,
        )
        self.dead_lettered = Counter(
            f"{prefix}dead_lettered", "Refused messages that were kept aside.", registry=registry
        )
        self.published = Counter(
            f"{prefix}events_published", "Events that the broker has confirmed.", registry=registry
        )
        self.rejected = Counter(
            f"{prefix}events_rejected",
            "Events that a subscriber's queue refused for good.",
            registry=registry,
        )
        self.held = Counter(
            f"{prefix}events_unconfirmed",
            "Events that a subscriber's queue neither took nor refused; they count as carried.",
            registry=registry,
        )
        self.snapshots = Counter(
            f"{prefix}snapshots", "Snapshots that were asked for and sent.", registry=registry
        )
        self.connects = Counter(
            f"{prefix}connects", "Times that a link was made, by link.", ["link"], registry=registry
        )
        self.up = Gauge(
            f"{prefix}up", "Whether a link is at work, by link.", ["link"], registry=registry
        )


class SharingMetrics:
    """How the work is shared with other daemons."""

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "windlass_leases_"
        self.held = Gauge(f"{prefix}held", "Objects that this daemon has taken.", registry=registry)
        self.lost = Counter(
            f"{prefix}lost",
            "Passes whose outcome was not written: another daemon had taken the object.",
            registry=registry,
        )
        self.taken_over = Counter(
            f"{prefix}taken_over", "Objects taken from a daemon that was gone.", registry=registry
        )
        self.database_errors = Counter(
            "windlass_database_errors",
            "Times that the database did not answer or broke off.",
            registry=registry,
        )


class AdapterNumbers(Collector):
    """What adapters count on their own, by target; a target's numbers go when it is closed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._taken: Mapping[str, Sequence[Number]] = {}
        registry.register(self)

    def take(self, numbers: Mapping[str, Sequence[Number]]) -> None:
        """Replace all by these, by target."""
        self._taken = numbers

    def collect(self) -> Iterator[Metric]:
        """Families of one name, over all targets."""
        families: dict[str, Metric] = {}
        for target, numbers in self._taken.items():
            for number in numbers:
                name = f"windlass_{number.name}"
                family = families.setdefault(name, Metric(name, number.help, number.kind))
                full = f"{name}_total" if number.kind == "counter" else name
                family.add_sample(full, {"target": target, **number.labels}, number.value)
        yield from families.values()


class Metrics:
    """All metrics of one daemon, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.workqueue = WorkqueueMetrics(self.registry)
        self.reconcile = ReconcileMetrics(self.registry)
        self.bus = BusMetrics(self.registry)
        self.outbox_depth = Gauge(
            "windlass_outbox_depth",
            "Events that the bus has not confirmed.",
            registry=self.registry,
        )
        self.sharing = SharingMetrics(self.registry)
        self.outbox_lag = Gauge(
            "windlass_outbox_lag_seconds",
            "Age of the oldest event that the bus has not confirmed.",
            registry=self.registry,
        )
        self.objects = Gauge(
            "windlass_objects",
            "Objects by kind and Ready: True, False, Unknown.",
            ["kind", "ready"],
            registry=self.registry,
        )
        self.suspended_objects = Gauge(
            "windlass_suspended_objects", "Objects that are suspended.", registry=self.registry
        )
        self.source_faults = Gauge(
            "windlass_source_faults", "Faults in the newest documents.", registry=self.registry
        )
        self.orphans = Gauge(
            "windlass_orphans",
            "Things in a backend that cost money and that no object declares, by target.",
            ["target"],
            registry=self.registry,
        )
        self.api_calls = Gauge(
            "windlass_api_calls",
            "Calls of adapters to remote APIs since the start, by target, operation and result.",
            ["target", "operation", "result"],
            registry=self.registry,
        )
        self.adapters = AdapterNumbers(self.registry)
        ProcessCollector(registry=self.registry)

    async def refresh(self, store: Store, now: datetime) -> None:
        """Count again what the store knows. Raises StoreError."""
        objects = await store.list()
        ready: Tally[tuple[str, str]] = Tally()
        for found in objects:
            condition = found.status.condition("Ready")
            ready[found.key.kind, condition.status if condition else "Unknown"] += 1
        self.objects.clear()
        for (kind, status), count in ready.items():
            self.objects.labels(kind, status).set(count)
        self.suspended_objects.set(sum(found.status.health == "Suspended" for found in objects))
        self.source_faults.set(sum(len(source.faults) for source in await store.sources()))
        waiting = await store.unpublished(1)
        lag = (now - waiting[0][1].time).total_seconds() if waiting else 0.0
        self.outbox_lag.set(max(lag, 0.0))
        self.outbox_depth.set(await store.backlog())

    def count_api_calls(self, target: str, calls: Mapping[tuple[str, str], int]) -> None:
        """Take over what an adapter has counted."""
        for (operation, result), count in calls.items():
            self.api_calls.labels(target, operation, result).set(count)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
