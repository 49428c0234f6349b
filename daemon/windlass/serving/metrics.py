"""Numbers of the serving process in Prometheus format. Outside the eight hops.

Counted in plain numbers on the way of a request (``numbers``), made into series at a scrape. Beside
its own names the page has those of Triton (``nv_inference_*``) and ``app_*``, so that dashboards
made for them go on to work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from windlass.serving.deployments import Deployment, Load, Served
from windlass.serving.numbers import Histogram, Requests, Runs

Numbers = Callable[[Runs], float]

_TRITON: Sequence[tuple[str, str, Numbers]] = (
    ("nv_inference_request_success", "Requests answered.", lambda r: r.successes),
    ("nv_inference_count", "Rows answered.", lambda r: r.rows),
    ("nv_inference_request_duration_us", "Requests, whole.", lambda r: r.seconds * 1e6),
    ("nv_inference_queue_duration_us", "Waiting in the queue.", lambda r: r.queue * 1e6),
    ("nv_inference_compute_input_duration_us", "Reading.", lambda r: r.reading * 1e6),
    ("nv_inference_compute_infer_duration_us", "Running.", lambda r: r.compute * 1e6),
    ("nv_inference_compute_output_duration_us", "Writing.", lambda r: r.writing * 1e6),
)
_BATCHES = tuple(1 << power for power in range(11))


class Metrics:
    """All series of one process."""

    def __init__(self) -> None:
        self.under_way = 0
        """Inference requests that wait or run."""
        self._loads: dict[tuple[str, str], int] = {}
        self._load_seconds: dict[str, tuple[int, float]] = {}
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._sources: _Sources | None = None

    def watch(self, deployments: Callable[[], list[Deployment]], strangers: Requests) -> None:
        """Say where the numbers are."""
        self._sources = _Sources(self, deployments, strangers)
        self._registry.register(self._sources)

    def load_ended(self, load: Load) -> None:
        """Count one load."""
        key = load.deployment, load.result
        self._loads[key] = self._loads.get(key, 0) + 1
        count, seconds = self._load_seconds.get(load.deployment, (0, 0.0))
        self._load_seconds[load.deployment] = count + 1, seconds + load.seconds

    def loads(self) -> Iterator[Metric]:
        """Series of loads."""
        loads = CounterMetricFamily(
            "windlass_serving_loads",
            "Versions loaded, by result: ok, failed or superseded.",
            labels=["deployment", "result"],
        )
        for key, count in self._loads.items():
            loads.add_metric(key, count)
        yield loads
        seconds = CounterMetricFamily(
            "windlass_serving_load_seconds",
            "Time spent on loading and probing versions.",
            labels=["deployment"],
        )
        for name, (_, total) in self._load_seconds.items():
            seconds.add_metric([name], total)
        yield seconds

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)


class _Sources(Collector):
    """Makes series of what was counted."""

    def __init__(
        self, metrics: Metrics, deployments: Callable[[], list[Deployment]], strangers: Requests
    ) -> None:
        self._metrics = metrics
        self._deployments = deployments
        self._strangers = strangers

    def collect(self) -> Iterator[Metric]:
        deployments = self._deployments()
        yield GaugeMetricFamily(
            "windlass_serving_requests_in_flight",
            "Inference requests that wait or run.",
            value=self._metrics.under_way,
        )
        yield from _requests([(each.name, each.requests) for each in deployments], self._strangers)
        yield from self._metrics.loads()
        served = [
            (deployment.name, version)
            for deployment in deployments
            for version in deployment.versions()
        ]
        yield from _triton(served)
        yield from _queues(served)


def _requests(named: Sequence[tuple[str, Requests]], strangers: Requests) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "windlass_serving_requests",
        "Inference requests answered, by Deployment and HTTP status.",
        labels=["deployment", "code"],
    )
    seconds = HistogramMetricFamily(
        "windlass_serving_request_duration_seconds",
        "From the head of a request to the answer, body and queue included.",
        labels=["deployment"],
    )
    count = CounterMetricFamily(
        "app_request_count", "Inference requests answered.", labels=["model", "application"]
    )
    app = HistogramMetricFamily(
        "app_response_time_seconds", "Time of answers.", labels=["model", "application"]
    )
    for name, numbers in (*named, ("", strangers)):
        for code, number in numbers.by_code.items():
            requests.add_metric([name, str(code)], number)
        _add(seconds, [name], numbers.duration)
        if name:
            count.add_metric([name, "windlass"], sum(numbers.by_code.values()))
            _add(app, [name, "windlass"], numbers.duration)
    yield from (requests, seconds, count, app)


def _add(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    family.add_metric(labels, histogram.cumulative(), histogram.seconds)


def _triton(served: Sequence[tuple[str, Served]]) -> Iterator[Metric]:
    labels = ["model", "version"]
    for name, text, value in _TRITON:
        family = CounterMetricFamily(name, text, labels=labels)
        for model, version in served:
            family.add_metric([model, version.order.version], value(version.runs))
        # Triton's counters have no _total at the end; a gauge is written without one.
        yield _bare(family)
    executions = CounterMetricFamily("nv_inference_exec_count", "Runs.", labels=labels)
    failures = CounterMetricFamily(
        "nv_inference_request_failure", "Requests refused.", labels=[*labels, "reason"]
    )
    pending = GaugeMetricFamily(
        "nv_inference_pending_request_count", "Requests that wait.", labels=labels
    )
    for model, version in served:
        named = [model, version.order.version]
        executions.add_metric(named, version.queue.executions)
        pending.add_metric(named, len(version.queue.waiting))
        for reason, number in version.runs.by_reason.items():
            failures.add_metric([*named, reason], number)
    yield from (_bare(executions), _bare(failures), pending)


def _bare(counter: CounterMetricFamily) -> Metric:
    """A counter whose name is written as it is."""
    plain = Metric(counter.name, counter.documentation, "unknown")
    for sample in counter.samples:
        plain.add_sample(sample.name.removesuffix("_total"), sample.labels, sample.value)
    return plain


def _queues(served: Sequence[tuple[str, Served]]) -> Iterator[Metric]:
    labels = ["deployment", "version"]
    sizes = HistogramMetricFamily(
        "windlass_serving_batch_rows", "Rows of a run of the model.", labels=labels
    )
    lanes = GaugeMetricFamily(
        "windlass_serving_replicas", "Runs of the model that may go on at once.", labels=labels
    )
    for name, version in served:
        named = [name, version.order.version]
        lanes.add_metric(named, version.queue.lanes)
        runs = {rows: count for rows, (count, _) in version.queue.batches.items()}
        buckets = [
            (str(bound), sum(count for rows, count in runs.items() if rows <= bound))
            for bound in _BATCHES
        ]
        total = sum(rows * count for rows, count in runs.items())
        sizes.add_metric(named, [*buckets, ("+Inf", sum(runs.values()))], total)
    yield from (sizes, lanes)
