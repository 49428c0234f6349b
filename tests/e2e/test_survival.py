"""Killing the daemon at bad moments: nothing that it started stops, and nothing starts twice."""

from __future__ import annotations

import json

from rig.project import Hammer, Project

BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [3.0]}]},
)


def test_a_daemon_killed_in_the_middle_of_training_loses_no_run_and_starts_no_second(
    stub: Project,
) -> None:
    """The run goes on alone; the next daemon takes its result."""
    hold = stub.repository.parent / "go"
    stub.edit("stub.yaml", "factor: 2.0", f"factor: 2.0\n    hold: {hold}")
    stub.commit("Hold the run")
    daemon = stub.up()
    stub.until(hold.with_suffix(".started").exists, "the script runs")
    daemon.kill()

    hold.touch()
    stub.until(lambda: list(stub.state.glob("**/runs/*/exit.json")), "the run ended by itself")
    again = stub.up()
    stub.await_ready("Deployment/stub")
    assert stub.infer("stub", BODY) == {"y": (6.0,)}
    assert len(stub.runs()) == 1
    assert again.interrupt() == 0


def test_a_daemon_started_while_the_run_goes_on_waits_for_that_run(stub: Project) -> None:
    """The run is found again by what it wrote, not by being anybody's child."""
    hold = stub.repository.parent / "go"
    stub.edit("stub.yaml", "factor: 2.0", f"factor: 2.0\n    hold: {hold}")
    stub.commit("Hold the run")
    daemon = stub.up()
    stub.until(hold.with_suffix(".started").exists, "the script runs")
    daemon.kill()

    again = stub.up()
    again.await_answer()
    stub.until(lambda: stub.condition("Job/train", "Reconciling")[0] == "True", "the run is seen")
    hold.touch()
    stub.await_ready("Deployment/stub")
    assert len(stub.runs()) == 1
    assert again.interrupt() == 0


def test_requests_go_on_while_the_daemon_is_dead_and_after_it_is_back(stub: Project) -> None:
    """Killing, absence and restart of the daemon fail no request, and serving is not restarted."""
    daemon = stub.up()
    stub.await_ready("Deployment/stub")
    with Hammer(stub, "stub", BODY, "y") as hammer:
        daemon.kill()
        seen = hammer.requests
        stub.until(lambda: hammer.requests > seen + 50, "requests are answered without a daemon")
        again = stub.up()
        stub.until(lambda: stub.ready("Deployment/stub"), "the new daemon sees the endpoint")
        seen = hammer.requests
        stub.until(lambda: hammer.requests > seen + 50, "requests are answered after the restart")
    assert hammer.failures == []
    assert hammer.answers == [(6.0,)]
    assert len(stub.runs()) == 1
    assert again.interrupt() == 0
