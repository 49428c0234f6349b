"""Metrics carry the names that dashboards for controllers know, and no object's name."""

from __future__ import annotations

from windlass.metrics import Metrics
from windlass_adapters.base import Number

NAMES = (
    "workqueue_depth",
    "workqueue_adds_total",
    "workqueue_queue_duration_seconds_count",
    "workqueue_work_duration_seconds_count",
    "workqueue_unfinished_work_seconds",
    "workqueue_longest_running_processor_seconds",
    "workqueue_retries_total",
    "reconcile_errors_total",
    "terminal_reconcile_errors_total",
    "reconcile_time_seconds_count",
    "max_concurrent_reconciles",
    "active_workers",
    "time_to_ready_seconds_count",
    "drift_total",
    "outbox_lag_seconds",
    "suspended_objects",
    "source_faults",
)


def test_every_name_is_there_from_the_start() -> None:
    """A dashboard shows zero, not a gap."""
    text = Metrics().render().decode()
    for name in NAMES:
        assert f"\nwindlass_{name} 0.0" in text, name


def test_results_and_classes_are_labels() -> None:
    """The label sets are small and fixed."""
    metrics = Metrics()
    metrics.reconcile.total.labels("requeue_after").inc()
    metrics.reconcile.backend_calls.labels("apply", "ok").inc(2)
    metrics.objects.labels("Job", "True").set(3)
    text = metrics.render().decode()
    assert 'windlass_reconcile_total{result="requeue_after"} 1.0' in text
    assert 'windlass_backend_calls_total{class="ok",op="apply"} 2.0' in text
    assert 'windlass_objects{kind="Job",ready="True"} 3.0' in text


def test_two_daemons_in_one_process_count_apart() -> None:
    """Nothing is global."""
    first, second = Metrics(), Metrics()
    first.workqueue.adds.inc()
    assert b"windlass_workqueue_adds_total 1.0" in first.render()
    assert b"windlass_workqueue_adds_total 0.0" in second.render()


def test_numbers_of_adapters_are_shown_by_target_and_go_with_it() -> None:
    """One family for all targets, so that a dashboard sums and compares them."""
    metrics = Metrics()

    def numbers(looks: float) -> list[Number]:
        states = [Number("slurm_jobs", "gauge", "Jobs.", 3, {"state": "RUNNING"})]
        return [Number("slurm_looks", "counter", "Looks.", looks), *states]

    metrics.adapters.take({"default/a": numbers(7), "default/b": numbers(1)})
    text = metrics.render().decode()
    assert text.count("# TYPE windlass_slurm_looks_total counter") == 1
    assert 'windlass_slurm_looks_total{target="default/a"} 7.0' in text
    assert 'windlass_slurm_looks_total{target="default/b"} 1.0' in text
    assert 'windlass_slurm_jobs{state="RUNNING",target="default/a"} 3.0' in text
    metrics.adapters.take({"default/b": numbers(2)})
    text = metrics.render().decode()
    assert "default/a" not in text
    assert 'windlass_slurm_looks_total{target="default/b"} 2.0' in text
