"""Numbers of the serving process in Prometheus format. Outside the eight hops.

Labels hold names of Deployments only, never what a client sent: a stranger cannot fill the memory
with series. A request for a model that is not there counts under an empty name.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from windlass.serving.deployments import Load

_LATENCY_BUCKETS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)


class Metrics:
    """All series, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type here
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "windlass_serving_requests",
            "Inference requests answered, by Deployment and HTTP status.",
            ["deployment", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "windlass_serving_request_duration_seconds",
            "From the head of a request to the answer, body and queue included.",
            ["deployment"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self._loads = Counter(
            "windlass_serving_loads",
            "Versions loaded, by result: ok, failed or superseded.",
            ["deployment", "result"],
            registry=registry,
        )
        self._load_seconds = Histogram(
            "windlass_serving_load_duration_seconds",
            "Loading and probing one version.",
            ["deployment"],
            registry=registry,
        )
        self._under_way = Gauge(
            "windlass_serving_requests_in_flight",
            "Inference requests that wait or run.",
            registry=registry,
        )

    def request_started(self) -> None:
        """Count one request in."""
        self._under_way.inc()

    def request_ended(self, deployment: str, code: int, seconds: float) -> None:
        """Count one request out; ``deployment`` is empty when there is none of the name asked."""
        self._under_way.dec()
        self._requests.labels(deployment, str(code)).inc()
        self._seconds.labels(deployment).observe(seconds)

    def load_ended(self, load: Load) -> None:
        """Count one load."""
        self._loads.labels(load.deployment, load.result).inc()
        self._load_seconds.labels(load.deployment).observe(load.seconds)

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
