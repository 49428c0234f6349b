"""All runs of one Target, as the daemon sees them: hops 5 and 7.

Nothing is concluded from a question that failed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import structlog

from windlass_adapters.base import (
    Absent,
    AdapterError,
    AmbiguousError,
    Create,
    External,
    Found,
    LogChunk,
    Observation,
    Owner,
    TerminalError,
    TransientError,
    Unknown,
)
from windlass_adapters.slurm.asking import Asking, Cancellation
from windlass_adapters.slurm.fetching import Fetching
from windlass_adapters.slurm.findings import ended, order_of, progressing
from windlass_adapters.slurm.login import Login
from windlass_adapters.slurm.memory import Memories, Memory
from windlass_adapters.slurm.naming import Place, owner_tag, place_of
from windlass_adapters.slurm.news import News, Said
from windlass_adapters.slurm.outcome import LOST, UNSCHEDULABLE, Kind, Verdict, judge
from windlass_adapters.slurm.params import SlurmParams
from windlass_adapters.slurm.snapshot import Look, Order
from windlass_adapters.slurm.submission import Submitter
from windlass_adapters.slurm.tails import Tails
from windlass_adapters.slurm.watch import Watch
from windlass_schemas import Key, Reason

HOPELESS_AFTER = 60.0
"""Seconds after which a job that can never start is taken out of the queue."""

_log = structlog.get_logger("windlass.slurm")


class Asked(NamedTuple):
    """A run that somebody asks for."""

    owner: Owner
    external: External
    place: Place
    memory: Memory


class Runs:
    """Submits runs, looks at them, stops them."""

    def __init__(
        self,
        login: Login,
        submitter: Submitter,
        fetching: Fetching,
        params: SlurmParams,
        target: str,
    ) -> None:
        self._submitter = submitter
        self._fetching = fetching
        self._params = params
        self._target = target
        self._memories = Memories(target, params.lost_after.total_seconds())
        self._orphans: frozenset[str] = frozenset()
        self._tails = Tails(login)
        self._asking = Asking(login, params.grace)
        self.watch = Watch(login, params)
        self._news = News(
            self.watch, lambda place, look: judge(self._memories.evidence(place, look))
        )

    # ---- hop 7

    async def create(self, owner: Owner, action: Create) -> Found:
        """Submit a run, unless that was done before. Raises AdapterError."""
        name = action.wanted.name
        place = place_of(self._target, owner, name)
        job = await self._submitter.submit(owner, action)
        memory = self._memories.of(place)
        memory.submitted, memory.job = time.monotonic(), job
        self.watch.hurry()
        return progressing(name, owner.uid, f"submitted as job {job}", digest=action.wanted.digest)

    async def delete(self, owner: Owner, external: External) -> None:
        """Ask a run to stop; remove it once the queue shows nothing of it."""
        place = place_of(self._target, owner, external.name)
        said = await self._asking.cancel(Cancellation(place, owner.uid))
        self.watch.hurry()
        if said == "foreign":
            raise TerminalError(f"run {external.name} belongs to another object and is left alone")
        if said == "unclear":
            raise AmbiguousError(
                f"run {external.name}: Slurm has not said yet whether it has it; looking again"
            )
        if said == "gone":
            self._memories.forget(place)
            self.watch.forget(place)
            self._news.forget(place)

    async def find(self, owner: Owner) -> list[Found]:
        """Every run of an owner. Raises AdapterError, also while a submission is not clear."""
        found = []
        for run in await self._asking.find(owner_tag(self._target, owner)):
            name, state, uid = str(run.get("name")), run.get("state"), str(run.get("uid"))
            if uid != owner.uid or state == "no":
                continue
            if state != "yes":
                raise AmbiguousError(
                    f"run {name} may have been submitted: Slurm has not said yet; looking again"
                )
            found.append(progressing(name, uid, "was submitted", digest=str(run.get("digest"))))
        return found

    # ---- hop 5

    async def observe(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        """How runs stand. Raises AdapterError when nothing can be said of any."""
        asked = [Asked(owner, e, *self._memories.recall(owner, e.name)) for owner, e in externals]
        look = await self.watch.look([a.place for a in asked if a.memory.over is None])
        self._report_orphans(look)
        answers: dict[External, Observation] = {}
        judged: list[tuple[Asked, Verdict]] = []
        for each in asked:
            said = each.memory.over or self._unchanged(each, look)
            if said is not None:
                answers[each.external] = said
            else:
                judged.append((each, judge(self._memories.evidence(each.place, look))))
        good = [each.place for each, verdict in judged if verdict.kind is Kind.GOOD]
        await self._fetching.ask([p for p in good if (o := order_of(look, p)) and o.outputs])
        for each, verdict in judged:
            answers[each.external] = await self._observe(each, look, verdict)
        return answers

    def _unchanged(self, asked: Asked, look: Look) -> Found | None:
        """What was said of a run of which the queue says what it said then, and nobody else more.

        Most runs wait or run during most looks: they must cost next to nothing.
        """
        memory = asked.memory
        if memory.alive is None or asked.place.token in look.records:
            return None
        if not self._news.knows(asked.place):
            return None
        if look.rows_of(asked.place.token, asked.place.job_name) != memory.rows:
            return None
        if memory.alive.look_again != (patience := self._news.patience):
            memory.alive = replace(memory.alive, look_again=patience)
        return memory.alive

    async def changed(self) -> Collection[Key]:
        """Wait until a pass would see something new; the objects that it would see it of."""
        return await self._news.changed()

    async def read_log(
        self, external: External, stream: Literal["stdout", "stderr"], offset: int
    ) -> LogChunk:
        """A piece of a run's output."""
        place = self._memories.named(external.name) or await self._place(external.name)
        return await self._tails.read(place, stream, offset)

    async def _place(self, name: str) -> Place:
        """The place of a run of which nothing was seen since the daemon began."""
        place = await self._asking.place(name)
        if place is None:
            raise TransientError(f"run {name} is not on the cluster any more, or not yet")
        self._memories.name(name, place)
        return place

    async def _observe(self, asked: Asked, look: Look, verdict: Verdict) -> Observation:
        owner, external, place, memory = asked
        if memory.over is not None:  # while another was waited for
            return memory.over
        if memory.submitted is not None and memory.submitted > look.taken:
            return progressing(external.name, owner.uid, f"submitted as job {memory.job}")
        order = order_of(look, place)
        if order is not None and order.uid != owner.uid:
            return progressing(external.name, order.uid, "belongs to another object")
        try:
            said = await self._conclude(owner, external, place, verdict, order)
        except AdapterError as error:
            return Unknown.because(error)
        if memory.over is not None:
            return said
        rows = look.rows_of(place.token, place.job_name)
        self._news.say(place, Said(owner.key, verdict, rows), look)
        if verdict.kind is Kind.ALIVE:
            assert isinstance(said, Found), "what is alive is found"
            said = replace(said, look_again=self._news.patience)
            if place.token not in look.records:
                memory.rows, memory.alive = rows, said if rows else None
        return said

    async def _conclude(
        self, owner: Owner, external: External, place: Place, verdict: Verdict, order: Order | None
    ) -> Observation:
        memory = self._memories.of(place)
        name, uid = external.name, owner.uid
        match verdict.kind:
            case Kind.GONE:
                recent = memory.submitted is not None and (
                    time.monotonic() - memory.submitted < self._params.lost_after.total_seconds()
                )
                if recent:  # another login node may not show the folder yet
                    return progressing(name, uid, "submitted; its folder is not to be seen yet")
                return Absent()
            case Kind.ALIVE:
                memory.hopeless = None
                return progressing(name, uid, verdict.message, verdict.reason)
            case Kind.HOPELESS:
                return await self._give_up(place, name, uid, verdict)
            case Kind.LOST:
                return await self._bury(place, name, uid, verdict)
            case Kind.BAD:
                return self._over(place, ended(name, uid, verdict, order))
        assert verdict.kind is Kind.GOOD
        fetched = await self._fetching.fetch(place, order.outputs if order else {})
        if fetched.left:
            said = f"it ended well; {fetched.left >> 20} MiB of its outputs are still to be fetched"
            self._news.press(owner.key)
            return progressing(name, uid, said)
        if fetched.bad:
            missing = Verdict(Kind.BAD, fetched.bad, Reason.OUTPUT_MISSING, exit_code=0)
            return self._over(place, ended(name, uid, missing, order))
        done = replace(ended(name, uid, verdict, order), outputs=fetched.outputs)
        return self._over(place, done)

    def _over(self, place: Place, found: Found) -> Found:
        self._memories.of(place).over = found
        self.watch.settle(place)
        self.watch.forget(place)
        self._news.forget(place)
        self._memories.forget_old()
        return found

    async def _give_up(self, place: Place, name: str, uid: str, verdict: Verdict) -> Found:
        """Say why it cannot start; after a while, take it out of the queue."""
        memory = self._memories.of(place)
        memory.hopeless = memory.hopeless or time.monotonic()
        if time.monotonic() - memory.hopeless > HOPELESS_AFTER:
            await self._asking.cancel(
                Cancellation(place, uid, f"{UNSCHEDULABLE}: {verdict.message}")
            )
            self.watch.hurry()
        return progressing(name, uid, verdict.message, Reason.UNSCHEDULABLE)

    async def _bury(self, place: Place, name: str, uid: str, verdict: Verdict) -> Found:
        """Make sure that it can never begin any more; the next look then says that it is lost."""
        await self._asking.bury(place, f"{LOST}: {verdict.message}")
        self.watch.hurry()
        _log.warning("a run is lost", run=name, why=verdict.message)
        return progressing(name, uid, verdict.message)

    def _report_orphans(self, look: Look) -> None:
        """Jobs with names like ours and no folder are told of, and left alone."""
        if not look.whole:
            return
        found = frozenset(look.orphans)
        if found - self._orphans:
            _log.warning(
                "jobs of ours without a folder; look, then scancel them", names=sorted(found)
            )
        self._orphans = found
