"""The daemon dies at any moment of a life on SageMaker: no orphan, no duplicate."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rig.cloud import Cloud, cloud_in
from rig.cloud_stories import (
    CHANGE,
    LIFE,
    REMOVE,
    RUNS,
    SERVE,
    Story,
    run_story,
    start_story,
    tell,
)
from windlass_adapters.testing.schedules import FAULTS, TALLY
from windlass_adapters.testing.stepping import Cut

# What is dead never runs again, and so leaves what it had open to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
BEFORE: dict[Story, tuple[Story, ...]] = {SERVE: (), CHANGE: (SERVE,), REMOVE: (SERVE, CHANGE)}
MOST: dict[Story, dict[str, int]] = {
    SERVE: {"CreateModel": 1, "CreateEndpointConfig": 1, "CreateEndpoint": 1},
    CHANGE: {"CreateModel": 1, "CreateEndpointConfig": 1, "UpdateEndpoint": 1},
    REMOVE: {"DeleteEndpoint": 1, "DeleteEndpointConfig": 1, "DeleteModel": 1},
}
"""What each story does, and how often; nothing else that makes or removes."""
RUNNING = {kind: run_story(kind) for kind in RUNS}
STOPPING = {kind: Story(f"stop {kind}", REMOVE.tell, REMOVE.done) for kind in RUNS}
for _kind in RUNS:
    _job = f"{_kind.capitalize()}Job"
    _model = _kind == "transform"
    BEFORE[RUNNING[_kind]] = ()
    BEFORE[STOPPING[_kind]] = (start_story(_kind),)
    MOST[RUNNING[_kind]] = {f"Create{_job}": 1, **({"CreateModel": 1} if _model else {})}
    MOST[STOPPING[_kind]] = {"DeleteModel": 1} if _model else {f"Delete{_job}": 1}
STORIES = [SERVE, CHANGE, REMOVE, *RUNNING.values(), *STOPPING.values()]
MAKES = ("CreateEndpoint", "CreateTr", "CreateProcessing", "CreateModel", "DeleteTr")
COUNTED = ("Create", "UpdateEndpoint", "Delete")


async def awaits(story: Story, folder: Path, *, wire: bool) -> int:
    """How many awaits a story has when nothing goes wrong."""
    whole = Cut()
    random.seed(0)
    async with cloud_in(folder, wire=wire) as cloud:
        await tell(cloud, *BEFORE[story])
        cloud.cut = whole
        await tell(cloud, story)
    return whole.steps


async def play(story: Story, at: Iterable[int], fault: str, *, wire: bool) -> int:
    """Tell a story, cut at each of some awaits, and the rest of the life after it; how often."""
    played = 0
    for step in at:
        random.seed(0)  # readings grow old by chance: every life has the same
        with TemporaryDirectory() as folder:
            async with cloud_in(Path(folder), wire=wire) as cloud:
                await tell(cloud, *BEFORE[story])
                cloud.aws.calls.clear()
                cloud.cut = Cut((step,), FAULTS[fault]())
                try:
                    await tell(cloud, story)
                    cloud.cut.at = ()
                    check(cloud, story)
                    await quiet(cloud)
                except AssertionError as error:
                    told = f"{story.name}, {fault} at await {step}"
                    raise AssertionError(f"{told}: {error}") from error
                played += cloud.cut.struck
    return played


def check(cloud: Cloud, story: Story) -> None:
    """Every effect once, and nothing that must not happen."""
    cloud.aws.monitor.check()
    done = cloud.aws.calls.done()
    made = {name: n for name, n in done.items() if name in MOST[story]}
    assert made == MOST[story], f"effects {made}"
    other = [n for n in done if n.startswith(MAKES) and n not in MOST[story]]
    assert not other, f"made or removed besides: {other}"


async def quiet(cloud: Cloud) -> None:
    """Nothing more is changed in an hour."""
    before = len(cloud.aws.calls.mutations())
    await cloud.after(hours=1)
    late = [call.operation for call in cloud.aws.calls.mutations()[before:]]
    assert [name for name in late if name.startswith(COUNTED)] == []


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_killed_now_and_then_it_exists_once(story: Story, tmp_path: Path) -> None:
    """A few moments of each story; the long tests take all of them."""
    whole = await awaits(story, tmp_path, wire=True)
    moments = range(3, whole, max(1, whole // 3))
    if story not in (SERVE, CHANGE, REMOVE):  # Jobs: one kill where most is under way
        moments = range(whole // 2, whole, whole)
    await play(story, moments, "killed", wire=True)


@pytest.mark.long
@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_killed_at_every_await_it_exists_once(
    story: Story, fault: str, tmp_path: Path
) -> None:
    """Killed, cancelled, out of time, or without a store: at each await."""
    whole = await awaits(story, tmp_path, wire=False)
    assert await play(story, range(whole), fault, wire=False) == whole
    TALLY.schedules += whole


async def test_a_second_daemon_starts_over_the_first_ones_life(tmp_path: Path) -> None:
    """Killed once in every story of a life, at a different moment of each."""
    async with cloud_in(tmp_path) as cloud:
        for number, story in enumerate(LIFE):
            cloud.cut = Cut((7 + 5 * number,), FAULTS["killed"]())
            await tell(cloud, story)
        assert cloud.deaths >= 4
        cloud.aws.monitor.check()
        assert cloud.aws.monitor.held() == []
