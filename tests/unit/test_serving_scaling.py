"""How many replicas a load gives, and when, second by second on paper."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from windlass.serving.scaling import WINDOW, Autoscaling, Load, Metric, Scaler


def policy(
    metric: Metric = "requestsPerSecond", target: float = 25, up: float = 0, down: float = 30
) -> Autoscaling:
    return Autoscaling(min=1, max=11, metric=metric, target=target, up=up, down=down)


def seconds(scaler: Scaler, load: Load, count: int) -> Iterator[int]:
    """What it decides in each of so many seconds of the same load."""
    for _ in range(count):
        yield scaler.decide(load)


def rate(requests: int) -> Load:
    return Load(requests=requests, at_once=1, answers=requests, seconds=requests * 0.01)


SILENCE = Load(0, 0, 0, 0.0)


class TestRequestsPerSecond:
    def test_the_seeds_profile_gives_one_two_three_eleven_and_one_again(self) -> None:
        scaler = Scaler(policy(), 1)
        for requests, wanted in ((25, 1), (26, 2), (60, 3), (251, 11)):
            *_, last = seconds(scaler, rate(requests), WINDOW * 2)
            assert last == wanted, requests
        *_, last = seconds(scaler, SILENCE, WINDOW + 30)
        assert last == 1, "without new traffic"

    def test_it_never_leaves_min_and_max(self) -> None:
        scaler = Scaler(policy(), 5)
        assert max(seconds(scaler, rate(10_000), 50)) == 11
        assert min(seconds(scaler, SILENCE, 100)) == 1

    def test_loads_about_a_border_do_not_make_it_flap(self) -> None:
        scaler = Scaler(policy(), 1)
        decided = [scaler.decide(rate(25 if second % 2 else 26)) for second in range(300)]
        assert decided[50:] == [decided[50]] * 250
        jitter = [scaler.decide(rate(24 + second % 3)) for second in range(300)]
        assert jitter[50:] == [jitter[50]] * 250

    def test_a_need_must_last_as_long_as_the_spec_says(self) -> None:
        scaler = Scaler(policy(up=5, down=20), 1)
        list(seconds(scaler, rate(20), 30))
        decided = list(seconds(scaler, rate(250), 30))
        first = next(at for at, replicas in enumerate(decided) if replicas > 1)
        assert 4 <= first <= 6
        decided = list(seconds(scaler, SILENCE, 60))
        first = next(at for at, replicas in enumerate(decided) if replicas < decided[0])
        assert first >= 19


class TestOtherMetrics:
    @pytest.mark.parametrize(("at_once", "wanted"), [(0, 1), (4, 1), (5, 2), (40, 10)])
    def test_concurrency_is_requests_at_once_for_each_replica(
        self, at_once: int, wanted: int
    ) -> None:
        scaler = Scaler(policy("concurrency", target=4), 1)
        *_, last = seconds(scaler, Load(1, at_once, 1, 0.1), WINDOW * 2)
        assert last == wanted

    def test_latency_above_the_target_adds_replicas_in_proportion(self) -> None:
        scaler = Scaler(policy("latency", target=100), 2)
        slow = Load(requests=10, at_once=3, answers=10, seconds=10 * 0.15)
        assert next(seconds(scaler, slow, 1)) == 3

    def test_zero_replicas_only_when_nobody_asks_and_nobody_waits(self) -> None:
        asleep = Autoscaling(min=0, max=3, metric="requestsPerSecond", target=25, down=5)
        scaler = Scaler(asleep, 1)
        assert min(seconds(scaler, Load(0, 1, 0, 0.0), 60)) == 1
        *_, last = seconds(scaler, SILENCE, WINDOW + 6)
        assert last == 0
