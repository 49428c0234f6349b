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

from windlass.serving import decimals
from windlass.serving.deployments import Load
from windlass.serving.numbers import Histogram, Requests, Runs
from windlass.serving.served import Deployment
from windlass.serving.snapshot import ProcessNumbers, Snapshot, VersionNumbers
from windlass.serving.usage import Usage

Numbers = Callable[[Runs], float]
Versions = Sequence[tuple[str, str, VersionNumbers]]

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
    """The counters of one process."""

    def __init__(self) -> None:
        self.under_way = 0
        """Inference requests that wait or run."""
        self._loads: dict[str, dict[str, int]] = {}
        self._load_seconds: dict[str, float] = {}
        self._process = ProcessCollector(registry=None)
        self._deployments: Callable[[], list[Deployment]] = list
        self._strangers = Requests()
        self._usage = Usage()

    def watch(
        self, deployments: Callable[[], list[Deployment]], strangers: Requests, usage: Usage
    ) -> None:
        """Say where the numbers are."""
        self._deployments, self._strangers, self._usage = deployments, strangers, usage

    def load_ended(self, load: Load) -> None:
        """Count one load."""
        results = self._loads.setdefault(load.deployment, {})
        results[load.result] = results.get(load.result, 0) + 1
        seconds = self._load_seconds.get(load.deployment, 0.0)
        self._load_seconds[load.deployment] = seconds + load.seconds

    def snapshot(self) -> Snapshot:
        """How everything stands."""
        return Snapshot(
            process=self._of_process(),
            under_way=self.under_way,
            strangers=self._strangers,
            deployments={each.name: each.numbers() for each in self._deployments()},
            loads=self._loads,
            load_seconds=self._load_seconds,
            usage=self._usage.counts(),
        )

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return page_of(self.snapshot())

    def _of_process(self) -> ProcessNumbers:
        found = {
            sample.name: sample.value
            for family in self._process.collect()
            for sample in family.samples
        }
        return ProcessNumbers(
            count=1,
            cpu_seconds=found.get("process_cpu_seconds_total", 0.0),
            resident=found.get("process_resident_memory_bytes", 0.0),
            virtual=found.get("process_virtual_memory_bytes", 0.0),
            open_fds=found.get("process_open_fds", 0.0),
            max_fds=found.get("process_max_fds", 0.0),
            started=found.get("process_start_time_seconds", 0.0),
        )


def page_of(snapshot: Snapshot) -> bytes:
    """The text that Prometheus scrapes, of one process or of several."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Series(snapshot))
    return generate_latest(registry)


class _Series(Collector):
    """Makes series of what was counted."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: the registry is for one page."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot
        yield from _process(snapshot.process)
        yield GaugeMetricFamily(
            "windlass_serving_requests_in_flight",
            "Inference requests that wait or run.",
            value=snapshot.under_way,
        )
        yield from _requests(snapshot)
        yield from _loads(snapshot)
        versions = [
            (name, version, numbers)
            for name, deployment in snapshot.deployments.items()
            for version, numbers in deployment.versions.items()
        ]
        yield from _triton(versions)
        yield from _queues(versions)


def _process(process: ProcessNumbers) -> Iterator[Metric]:
    gauge, counter = GaugeMetricFamily, CounterMetricFamily
    yield gauge("windlass_serving_processes", "Processes that serve.", value=process.count)
    compiled = "Whether compiled code reads the numbers of JSON requests."
    yield gauge("windlass_serving_compiled", compiled, value=decimals.floats is not None)
    yield counter("process_cpu_seconds", "Of user and system.", value=process.cpu_seconds)
    yield gauge("process_resident_memory_bytes", "Memory that is held.", value=process.resident)
    yield gauge("process_virtual_memory_bytes", "Addresses in use.", value=process.virtual)
    yield gauge("process_open_fds", "Open files.", value=process.open_fds)
    yield gauge("process_max_fds", "Files of one process, at most.", value=process.max_fds)
    yield gauge("process_start_time_seconds", "Since 1970.", value=process.started)


def _loads(snapshot: Snapshot) -> Iterator[Metric]:
    loads = CounterMetricFamily(
        "windlass_serving_loads",
        "Versions loaded, by result: ok, failed or superseded.",
        labels=["deployment", "result"],
    )
    for name, results in snapshot.loads.items():
        for result, count in results.items():
            loads.add_metric([name, result], count)
    yield loads
    seconds = CounterMetricFamily(
        "windlass_serving_load_seconds",
        "Time spent on loading and probing versions.",
        labels=["deployment"],
    )
    for name, total in snapshot.load_seconds.items():
        seconds.add_metric([name], total)
    yield seconds


def _requests(snapshot: Snapshot) -> Iterator[Metric]:
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
    named = {name: each.requests for name, each in snapshot.deployments.items()}
    for name, numbers in (*named.items(), ("", snapshot.strangers)):
        for code, number in numbers.by_code.items():
            requests.add_metric([name, str(code)], number)
        _add(seconds, [name], numbers.duration)
        if name:
            count.add_metric([name, "windlass"], sum(numbers.by_code.values()))
            _add(app, [name, "windlass"], numbers.duration)
    yield from (requests, seconds, count, app)


def _add(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    family.add_metric(labels, histogram.cumulative(), histogram.seconds)


def _triton(versions: Versions) -> Iterator[Metric]:
    labels = ["model", "version"]
    for name, text, value in _TRITON:
        family = CounterMetricFamily(name, text, labels=labels)
        for model, version, numbers in versions:
            family.add_metric([model, version], value(numbers.runs))
        # Triton's counters have no _total at the end; a gauge is written without one.
        yield _bare(family)
    executions = CounterMetricFamily("nv_inference_exec_count", "Runs.", labels=labels)
    failures = CounterMetricFamily(
        "nv_inference_request_failure", "Requests refused.", labels=[*labels, "reason"]
    )
    pending = GaugeMetricFamily(
        "nv_inference_pending_request_count", "Requests that wait.", labels=labels
    )
    for model, version, numbers in versions:
        executions.add_metric([model, version], numbers.executions)
        pending.add_metric([model, version], numbers.pending)
        for reason, number in numbers.runs.by_reason.items():
            failures.add_metric([model, version, reason], number)
    yield from (_bare(executions), _bare(failures), pending)


def _bare(counter: CounterMetricFamily) -> Metric:
    """A counter whose name is written as it is."""
    plain = Metric(counter.name, counter.documentation, "unknown")
    for sample in counter.samples:
        plain.add_sample(sample.name.removesuffix("_total"), sample.labels, sample.value)
    return plain


def _queues(versions: Versions) -> Iterator[Metric]:
    labels = ["deployment", "version"]
    sizes = HistogramMetricFamily(
        "windlass_serving_batch_rows", "Rows of a run of the model.", labels=labels
    )
    lanes = GaugeMetricFamily(
        "windlass_serving_replicas", "Runs of the model that may go on at once.", labels=labels
    )
    for name, version, numbers in versions:
        named = [name, version]
        lanes.add_metric(named, numbers.lanes)
        runs = {rows: count for rows, (count, _) in numbers.batches.items()}
        buckets = [
            (str(bound), sum(count for rows, count in runs.items() if rows <= bound))
            for bound in _BATCHES
        ]
        total = sum(rows * count for rows, count in runs.items())
        sizes.add_metric(named, [*buckets, ("+Inf", sum(runs.values()))], total)
    yield from (sizes, lanes)
