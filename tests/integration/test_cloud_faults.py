"""Whatever goes wrong between the daemon and AWS, what is declared comes about, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rig.cloud import Cloud, cloud_in
from rig.cloud_stories import LIFE, Story, tell
from rig.sagemaker.double import SageMakerDouble
from windlass_adapters.sagemaker import api
from windlass_adapters.testing.schedules import TALLY

PATIENCE = 600.0
"""Virtual seconds after the last fault in which everything must be as declared."""
KINDS = (
    "throttle",
    "internal",
    "unavailable",
    "html",
    "reset",
    "lost",
    "half",
    "denied",
    "expired",
)
EFFECTS = {
    "CreateModel": 2,
    "CreateEndpointConfig": 2,
    "CreateEndpoint": 1,
    "UpdateEndpoint": 1,
    "DeleteEndpoint": 1,
}
"""How often each thing is done in a life, whatever goes wrong: no duplicate, no second fleet."""


async def operations(folder: Path) -> dict[str, list[str]]:
    """The operations of each story when nothing goes wrong."""
    found: dict[str, list[str]] = {}
    async with cloud_in(folder, wire=False) as cloud:
        for story in LIFE:
            cloud.aws.calls.clear()
            await tell(cloud, story)
            found[story.name] = sorted(cloud.aws.calls.counts())
    return found


async def tell_in_time(cloud: Cloud, story: Story) -> None:
    """Tell a story; it must be over soon after the last fault."""
    await tell(cloud, story)
    struck = cloud.aws.faults.last_struck
    if struck is not None:
        late = cloud.aws.clock.seconds - struck
        assert late <= PATIENCE, f"{story.name}: {late:g} s after the last fault"


def check(cloud: Cloud) -> None:
    """Each effect as often as without faults, and nothing that must not happen."""
    cloud.aws.monitor.check()
    made = effects(cloud)
    assert made == EFFECTS, f"effects: {made}"
    assert cloud.aws.monitor.held() == []


def effects(cloud: Cloud) -> dict[str, int]:
    """What had its effect, also where the answer was lost."""
    without = {f"fault.{kind}" for kind in KINDS}
    counted = dict.fromkeys(EFFECTS, 0)
    for call in cloud.aws.calls:
        if (
            call.operation in counted
            and call.error in ("", "reset", "502")
            and not (call.rule in without and call.rule != "fault.lost")
        ):
            counted[call.operation] += 1
    return counted


ALIKE = ("unavailable", "half")
"""Kinds that are told from another one only by their words: for the long tests."""


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.long] if k in ALIKE else []) for k in KINDS]
)
async def test_each_call_may_go_wrong_once(kind: str, tmp_path: Path) -> None:
    """All calls of a whole life fail the first time that they are made."""
    async with cloud_in(tmp_path) as cloud:
        for story in LIFE:
            for operation in OPERATIONS:
                cloud.aws.faults.add(kind, operation)
            await tell_in_time(cloud, story)
            cloud.aws.faults.rules.clear()
        check(cloud)


OPERATIONS = (
    "AddTags",
    "CreateEndpoint",
    "CreateEndpointConfig",
    "CreateModel",
    "DeleteEndpoint",
    "DeleteEndpointConfig",
    "DeleteModel",
    "DeleteObject",
    "DeregisterScalableTarget",
    "DescribeEndpoint",
    "DescribeEndpointConfig",
    "DescribeModel",
    "DescribeScalableTargets",
    "DescribeScalingPolicies",
    "GetCallerIdentity",
    "GetResources",
    "HeadObject",
    "ListEndpoints",
    "ListMultipartUploads",
    "ListObjectsV2",
    "ListTags",
    "PutObject",
    "PutScalingPolicy",
    "RegisterScalableTarget",
    "Search",
    "UpdateEndpoint",
    "UpdateEndpointWeightsAndCapacities",
)
"""Everything that a life calls."""


async def test_the_operations_are_all_that_a_life_calls(tmp_path: Path) -> None:
    """Else a new call would escape the faults."""
    found = await operations(tmp_path)
    assert sorted({name for names in found.values() for name in names}) == sorted(OPERATIONS)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
async def test_each_fault_on_each_call_converges(kind: str, tmp_path: Path) -> None:
    """One operation at a time, in each story that calls it, at its first three calls."""
    (tmp_path / "plain").mkdir()
    struck = 0
    for story, names in (await operations(tmp_path / "plain")).items():
        for name in names:
            for skip in range(3):
                with TemporaryDirectory() as folder:
                    async with cloud_in(Path(folder), wire=False) as cloud:
                        await live(cloud, kind, (story, name, skip))
                        struck += cloud.aws.faults.last_struck is not None
    assert struck > 50, f"{kind} has struck only {struck} lives"
    TALLY.schedules += struck


async def live(cloud: Cloud, kind: str, where: tuple[str, str, int]) -> None:
    """A life with one fault in it."""
    story, name, skip = where
    try:
        for told in LIFE:
            if told.name == story:
                cloud.aws.faults.add(kind, name, skip=skip)
            await tell_in_time(cloud, told)
        check(cloud)
    except AssertionError as error:
        raise AssertionError(f"{kind} at call {skip} of {name} in {story}: {error}") from error


def _lag(aws: SageMakerDouble) -> None:
    aws.account.unseen.update({"endpoint-config": 8, "model": 8, "endpoint": 8})


def _stale(aws: SageMakerDouble) -> None:
    aws.account.search_lag = 600


def _short_pages(aws: SageMakerDouble) -> None:
    aws.account.page_limit, aws.account.empty_first_page = 1, True


def _rates(aws: SageMakerDouble) -> None:
    aws.faults.rates.update(dict.fromkeys(OPERATIONS, (1.0, 6)))


@pytest.mark.parametrize("weather", [_lag, _stale, _short_pages, _rates])
async def test_it_comes_about_in_any_weather(
    weather: Callable[[SageMakerDouble], None], tmp_path: Path
) -> None:
    """Read-your-write lag, a stale index, short pages, tight rates: all the time."""
    async with cloud_in(tmp_path) as cloud:
        weather(cloud.aws)
        await tell(cloud, *LIFE)
        check(cloud)


async def test_a_quota_is_waited_for_with_its_numbers(tmp_path: Path) -> None:
    """Waiting, and no attempt is counted; when there is room it goes on by itself."""
    async with cloud_in(tmp_path) as cloud:
        cloud.aws.account.quota["ml.m5.large"] = 0
        await LIFE[0].tell(cloud)
        await cloud.after(minutes=30)
        ready = await cloud.ready("Deployment/wine")
        assert (ready.status, ready.reason) == ("False", "WaitingForExternal")
        assert "is 0 Instances" in ready.message
        cloud.aws.account.quota.clear()
        freed = cloud.now
        await cloud.until_ready("Deployment/wine")
        assert (cloud.now - freed).total_seconds() <= PATIENCE


async def test_an_answer_that_never_comes_is_given_up_and_looked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each first call of a life is answered too late."""
    monkeypatch.setattr(api, "TIMEOUT", 1.0)
    async with cloud_in(tmp_path) as cloud:
        for operation in ("CreateModel", "CreateEndpoint", "UpdateEndpoint", "DeleteEndpoint"):
            cloud.aws.faults.add("slow", operation, seconds=2.0)
        await tell(cloud, *LIFE)
        cloud.aws.monitor.check()
        assert cloud.aws.monitor.held() == []
