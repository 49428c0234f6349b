"""What a look shows that no pass has seen: whose runs are told, and what it costs the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import JsonValue

from windlass_adapters.base import TransientError
from windlass_adapters.slurm import news, watch
from windlass_adapters.slurm.counts import Counts
from windlass_adapters.slurm.login import Greeting, Json, Login
from windlass_adapters.slurm.naming import Place
from windlass_adapters.slurm.news import MOST_RARELY, RARELY, News, Said
from windlass_adapters.slurm.outcome import Evidence, Verdict, judge
from windlass_adapters.slurm.params import SlurmParams
from windlass_adapters.slurm.snapshot import Look
from windlass_adapters.slurm.watch import Watch
from windlass_adapters.testing.clocks import telling_the_time
from windlass_adapters.testing.life import StageLoop
from windlass_schemas import Key

POLL = 5.0
PARAMS = SlurmParams.model_validate(
    {"host": "login", "remoteRoot": "/scratch/ada/windlass", "limits": {"poll": f"{POLL:g}s"}}
)


class Cluster(Login):
    """As many jobs as are wanted, and somebody who listens."""

    programs = ("remote-0", "batch-0.sh")

    def __init__(self, count: int) -> None:
        self.counts = Counts()
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.places = {Place("owner0owner0", f"token{n:08}"): n for n in range(count)}
        self.states = ["RUNNING"] * count
        self.reasons = ["None"] * count
        self.ended: set[int] = set()
        """Those that have left a record."""
        self.away = False
        self.looks = 0
        self.told: list[tuple[float, str]] = []
        """Virtual seconds and names."""
        self.watch = Watch(self, PARAMS)
        self.news = News(self.watch, self.judge)

    async def greeting(self) -> Greeting:
        return Greeting(version="22", max_array=1001, accounting=False, node="n", uid=1)

    async def call(self, command: str, request: Json, blobs: Sequence[bytes] = ()) -> Json:
        await asyncio.sleep(0.1)
        self.looks += 1
        if self.away:
            raise TransientError("nobody answers")
        rows: list[JsonValue] = [
            f"{n}|{n}|N/A|{self.states[n]}|{self.reasons[n]}|n1|{place.job_name}"
            for place, n in self.places.items()
        ]
        records: Json = {
            place.token: {"order": {"name": "n", "uid": "u", "digest": "d"}, "ends": {"": ["0"]}}
            for place, n in self.places.items()
            if n in self.ended
        }
        return {"rows": rows, "records": records, "submissions": {}, "waited": 0.1}

    def judge(self, place: Place, look: Look) -> Verdict:
        """What a pass would say."""
        rows = look.rows_of(place.token, place.job_name)
        return judge(Evidence(rows=rows, record=look.records.get(place.token)))

    async def pass_over(self, *numbers: int, slowly: float = 0.0) -> None:
        """Passes look at these runs, and do more than that before they say what they saw."""
        places = {p: n for p, n in self.places.items() if not numbers or n in numbers}
        look = await self.watch.look(places)
        if slowly:
            await asyncio.sleep(slowly)
        for place, n in places.items():
            rows = look.rows_of(place.token, place.job_name)
            key = Key("Job", "default", f"job-{n}")
            self.news.say(place, Said(key, judge(Evidence(rows=rows)), rows), look)

    async def listen(self) -> None:
        """As the daemon does."""
        loop = asyncio.get_running_loop()
        while True:
            for key in await self.news.changed():
                self.told.append((loop.time(), key.name))

    def names(self) -> list[str]:
        """What was told since this was asked last."""
        found, self.told = sorted(name for _, name in self.told), []
        return found


@asynccontextmanager
async def listening(count: int = 20, *first: int) -> AsyncIterator[Cluster]:
    """A cluster whose runs all were looked at once, or those alone that are named."""
    cluster = Cluster(count)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StageLoop)

    def pass_by(seconds: float) -> None:
        cluster.now += timedelta(seconds=seconds)

    loop.tell(pass_by)
    with telling_the_time([watch, news], lambda: cluster.now):
        await cluster.pass_over(*first)
        listener = asyncio.create_task(cluster.listen())
        try:
            yield cluster
        finally:
            listener.cancel()
            await asyncio.wait([listener])


def on_stage(play: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """In virtual time."""

    async def run() -> None:
        await play()

    def test() -> None:
        with asyncio.Runner(loop_factory=StageLoop) as runner:
            runner.run(run())

    test.__name__, test.__doc__ = play.__name__, play.__doc__
    return test


@on_stage
async def test_an_end_is_told_at_the_next_look_and_nothing_else_is() -> None:
    """Nobody has asked for any run meanwhile."""
    async with listening() as cluster:
        await asyncio.sleep(60)
        assert cluster.names() == []
        ended = asyncio.get_running_loop().time()
        cluster.states[7], cluster.ended = "COMPLETED", {7}
        await asyncio.sleep(60)
        ((at, name),) = cluster.told
        assert (name, at - ended < POLL + 2) == ("job-7", True)


@on_stage
async def test_a_run_that_the_first_look_showed_unasked_is_told_too() -> None:
    """The first look shows everything below the root, also what is asked for right after it."""
    async with listening(20, 1) as cluster:
        await cluster.pass_over()
        assert cluster.looks == 1
        await asyncio.sleep(60)
        assert cluster.names() == []
        cluster.states[7], cluster.ended = "COMPLETED", {7}
        await asyncio.sleep(2 * POLL)
        assert cluster.names() == ["job-7"]


@on_stage
async def test_what_changed_while_a_pass_was_slow_is_told() -> None:
    """It says what it saw in a look that is not the newest any more."""
    async with listening() as cluster:
        cluster.states = ["PENDING"] * 20
        await asyncio.sleep(2 * POLL)
        slow = asyncio.create_task(cluster.pass_over(3, slowly=2 * POLL))
        await asyncio.sleep(1)
        cluster.names()
        cluster.states[3] = "RUNNING"
        await asyncio.sleep(2 * POLL - 2)
        assert cluster.names() == ["job-3"]
        await slow
        await asyncio.sleep(2 * POLL)
        assert cluster.names() == ["job-3"]


@on_stage
async def test_a_run_that_begins_or_is_held_is_told_and_why_one_waits_is_not() -> None:
    """The scheduler says another reason for each of thousands now and then."""
    async with listening() as cluster:
        cluster.states = ["PENDING"] * 20
        await asyncio.sleep(2 * POLL)
        assert len(cluster.names()) == 20
        cluster.reasons = ["Priority"] * 20
        await asyncio.sleep(2 * POLL)
        assert cluster.names() == []
        cluster.reasons[3] = "JobHeldAdmin"
        cluster.states[4] = "RUNNING"
        cluster.reasons[5] = "BadConstraints"
        await asyncio.sleep(2 * POLL)
        assert cluster.names() == ["job-3", "job-4", "job-5"]


@on_stage
async def test_a_cluster_that_goes_or_comes_back_is_told_of_all_once() -> None:
    """Every status says so; then the passes do as they always have."""
    async with listening() as cluster:
        cluster.away = True
        await asyncio.sleep(300)
        assert len(cluster.names()) == 20
        cluster.away = False
        await asyncio.sleep(400)
        assert len(cluster.names()) == 20


@on_stage
async def test_listening_asks_the_cluster_no_more_often_than_passes_do() -> None:
    """One look in a poll interval; ever fewer while nothing happens; none for nobody."""
    async with listening() as cluster:
        for _ in range(59):  # passes that come by
            await asyncio.sleep(1)
            await cluster.pass_over(1, 2, 3)
        assert cluster.looks <= 60 / (0.9 * POLL) + 1
        for place in list(cluster.places):
            cluster.watch.forget(place)
            cluster.news.forget(place)
        looks = cluster.looks
        await asyncio.sleep(600)
        assert cluster.looks == looks


@on_stage
async def test_runs_are_asked_to_be_patient_only_while_somebody_listens() -> None:
    """By as much as ten thousand passes may take of the daemon's time."""
    async with listening() as cluster:
        await asyncio.sleep(1)
        assert cluster.news.patience == timedelta(seconds=RARELY)
    # the listener is gone
    cluster.now += timedelta(seconds=60)
    with telling_the_time([watch, news], lambda: cluster.now):
        assert cluster.news.patience is None
    async with listening(40_000) as many:
        await asyncio.sleep(1)
        assert many.news.patience == timedelta(seconds=MOST_RARELY)


@on_stage
async def test_a_pass_that_is_not_done_is_called_again_at_once() -> None:
    """A large output comes a turn at a time."""
    async with listening() as cluster:
        await asyncio.sleep(1)
        before = asyncio.get_running_loop().time()
        cluster.news.press(Key("Job", "default", "job-1"))
        await asyncio.sleep(0.01)
        ((at, name),) = cluster.told
        assert name == "job-1"
        assert at == pytest.approx(before, abs=0.01)
