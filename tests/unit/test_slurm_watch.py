"""How often a cluster is looked at: seldom while nothing happens, and less while it is in need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import JsonValue

from windlass_adapters.base import AdapterError, TransientError, WaitingError
from windlass_adapters.slurm import watch
from windlass_adapters.slurm.counts import Counts
from windlass_adapters.slurm.login import Greeting, Json, Login
from windlass_adapters.slurm.naming import Place
from windlass_adapters.slurm.params import SlurmParams
from windlass_adapters.slurm.watch import LONGEST_PAUSE, SLOW_FACTOR, Watch
from windlass_adapters.testing.clocks import telling_the_time
from windlass_schemas import Reason

PARAMS = SlurmParams.model_validate(
    {"host": "login", "remoteRoot": "/scratch/ada/windlass", "limits": {"poll": "5s"}}
)
PLACE = Place("owner0owner0", "token0token0")


class Queue(Login):
    """A login node that says what it is told to say, and how long that takes."""

    programs = ("remote-0", "batch-0.sh")

    def __init__(self) -> None:
        self.counts = Counts()
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.state = "PENDING"
        self.slow = 0.0
        self.away = False
        self.why: AdapterError = TransientError("nobody answers")
        self.asked: list[datetime] = []

    async def greeting(self) -> Greeting:
        return Greeting(version="22", max_array=1001, accounting=False, node="n", uid=1)

    async def call(self, command: str, request: Json, blobs: Sequence[bytes] = ()) -> Json:
        self.asked.append(self.now)
        self.now += timedelta(seconds=self.slow)
        if self.away:
            raise self.why
        row: JsonValue = f"1|1|N/A|{self.state}|None||{PLACE.job_name}"
        return {"rows": [row], "records": {}, "submissions": {}, "waited": self.slow}

    async def live(self, seconds: float, watched: Watch) -> list[float]:
        """Ask every second, as passes do; the pauses between the looks that this led to."""
        self.asked.clear()
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            self.now += timedelta(seconds=1)
            with suppress(TransientError):
                await watched.look([PLACE])
        pairs = zip(self.asked, self.asked[1:], strict=False)
        return [(after - before).total_seconds() for before, after in pairs]


@pytest.fixture
def queue() -> Iterator[Queue]:
    """It, and its time."""
    found = Queue()
    with telling_the_time([watch], lambda: found.now):
        yield found


async def test_looks_become_rare_while_nothing_happens_and_frequent_when_it_does(
    queue: Queue,
) -> None:
    """From every five seconds to every sixty, and at once back."""
    watched = Watch(queue, PARAMS)
    pauses = await queue.live(3600, watched)
    assert max(pauses[:8]) < 8
    assert 50 < min(pauses[-5:]) <= max(pauses) < 70
    assert len(pauses) < 3600 / 60 + 30
    queue.state = "RUNNING"
    await queue.live(1, watched)
    while not queue.asked:  # until it is seen
        await queue.live(1, watched)
    assert max(await queue.live(40, watched)) < 8


async def test_what_we_do_ourselves_is_looked_at_soon(queue: Queue) -> None:
    """After a submission nobody waits a minute for the first word of it."""
    watched = Watch(queue, PARAMS)
    await queue.live(1800, watched)
    watched.hurry()
    await queue.live(10, watched)
    assert len(queue.asked) >= 2


async def test_a_controller_that_is_slow_is_asked_less(queue: Queue) -> None:
    """At most a tenth of its time is ours."""
    watched = Watch(queue, PARAMS)
    queue.slow = 4.0
    pauses = await queue.live(600, watched)
    assert min(pauses) >= SLOW_FACTOR * 4.0


async def test_a_cluster_that_is_away_is_asked_ever_less_and_then_found_again(
    queue: Queue,
) -> None:
    """Never in a storm; the failure is what everybody is told meanwhile."""
    watched = Watch(queue, PARAMS)
    queue.away = True
    pauses = await queue.live(3600, watched)
    assert pauses == sorted(pauses)
    assert pauses[0] >= 10
    assert pauses[-1] >= LONGEST_PAUSE
    queue.away = False
    await queue.live(LONGEST_PAUSE + 5, watched)
    assert (await watched.look([PLACE])).rows[PLACE.job_name][0].state == "PENDING"


async def test_a_key_that_is_refused_stays_the_reason_while_nobody_asks_again(
    queue: Queue,
) -> None:
    """Who asks before the next try is told why, not only that the cluster is away."""
    watched = Watch(queue, PARAMS)
    queue.away = True
    queue.why = WaitingError("it does not let us in", reason=Reason.UNAUTHORIZED)
    for _ in range(3):
        with pytest.raises(AdapterError, match="let us in") as told:
            await watched.look([PLACE])
        assert told.value.reason is Reason.UNAUTHORIZED
    assert len(queue.asked) == 1
