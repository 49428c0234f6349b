"""When a new version takes over and when the old one comes back, on paper."""

from __future__ import annotations

from windlass.serving.numbers import Runs
from windlass.serving.rollout import Rollout, Trial

CANARY = Rollout("canary", weight=10, duration=60, min_requests=20)


def done(runs: Runs, answers: int, seconds: float = 0.001, refused: int = 0) -> Runs:
    """A version that has answered so many requests more."""
    runs.successes += answers
    for _ in range(answers):
        runs.total.add(seconds)
    for _ in range(refused):
        runs.failed(500, seconds)
    return runs


def test_a_canary_that_does_well_long_enough_takes_over() -> None:
    old, new = done(Runs(), 1000), Runs()
    trial = Trial(CANARY, old, began=100.0)
    done(old, 900)
    done(new, 100)
    assert trial.verdict(old, new, 159.0) is None
    assert trial.verdict(old, new, 160.0) is True


def test_without_enough_requests_there_is_no_verdict() -> None:
    old, new = Runs(), done(Runs(), 10, refused=9)
    assert Trial(CANARY, old, 0.0).verdict(old, new, 1e6) is None


def test_a_canary_that_refuses_is_rolled_back_at_once() -> None:
    old, new = done(Runs(), 1000), done(Runs(), 19, refused=1)
    verdict = Trial(CANARY, old, 0.0).verdict(old, new, 1.0)
    assert verdict == "the canary refused 1 of 20 requests (5.0%; the old version 0.0%)"


def test_what_the_old_version_refuses_too_is_not_held_against_it() -> None:
    old, new = Runs(), Runs()
    trial = Trial(CANARY, old, 0.0)
    done(old, 900, refused=100)
    done(new, 90, refused=10)
    assert trial.verdict(old, new, 100.0) is True


def test_a_full_queue_and_clients_that_leave_are_nobodys_fault() -> None:
    old, new = done(Runs(), 1000), done(Runs(), 100)
    for status in (429, 499, 503, 504):
        for _ in range(50):
            new.failed(status, 0.0)
    assert Trial(CANARY, old, 0.0).verdict(old, new, 100.0) is True


def test_a_slow_canary_is_rolled_back_and_only_the_time_of_the_trial_counts() -> None:
    old, new = done(Runs(), 1000, seconds=0.5), done(Runs(), 100, seconds=0.04)
    trial = Trial(CANARY, old, 0.0)
    done(old, 1000, seconds=0.004)
    verdict = trial.verdict(old, new, 60.0)
    assert isinstance(verdict, str)
    assert "95th percentile of 48.5 ms; the old version 4.85 ms" in verdict


def test_a_shadow_is_judged_by_its_refusals_alone() -> None:
    shadow = Rollout("shadow", weight=100, duration=60, min_requests=1)
    old, new = Runs(), done(Runs(), 100, seconds=0.5)
    trial = Trial(shadow, old, 0.0)
    done(old, 100)
    assert trial.verdict(old, new, 60.0) is True
