"""All runs of one Target, as the daemon sees them: hops 5 and 7.

What is kept here is only how long something has not been seen; everything else is on the cluster.
Nothing is concluded from a question that failed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import structlog
from pydantic import JsonValue

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
    State,
    TerminalError,
    TransientError,
    Unknown,
)
from windlass_adapters.slurm.asking import Asking, Cancellation
from windlass_adapters.slurm.fetching import Fetching
from windlass_adapters.slurm.jobs import RUN_ROLE
from windlass_adapters.slurm.login import Login
from windlass_adapters.slurm.naming import Place, owner_tag, place_of
from windlass_adapters.slurm.news import News, Said
from windlass_adapters.slurm.outcome import (
    LIVE,
    LOST,
    UNSCHEDULABLE,
    Evidence,
    Kind,
    Verdict,
    judge,
)
from windlass_adapters.slurm.params import SlurmParams
from windlass_adapters.slurm.snapshot import Look, Order, Row
from windlass_adapters.slurm.submission import Submitter
from windlass_adapters.slurm.tails import Tails
from windlass_adapters.slurm.watch import FORGET, Watch
from windlass_schemas import Key, Reason

TIDY = 60.0
"""Seconds between two times that what nobody asks for any more is forgotten."""
HOPELESS_AFTER = 60.0
"""Seconds after which a job that can never start is taken out of the queue."""

_log = structlog.get_logger("windlass.slurm")


@dataclass
class Memory:
    """What one has seen of a run so far, on the monotonic clock."""

    asked: float
    submitted: float | None = None
    job: str = ""
    unseen: float | None = None
    """Since when it is not alive in the queue."""
    hopeless: float | None = None
    over: Found | None = None
    """How it ended, once that is known for good."""
    rows: Sequence[Row] = ()
    """The queue's lines that ``alive`` was said of."""
    alive: Found | None = None
    """What was said of it, as long as the queue alone says enough."""


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
        self._memory: dict[Place, Memory] = {}
        self._places: dict[tuple[Owner, str], Place] = {}
        """Of runs that were asked for."""
        self._names: dict[str, Place] = {}
        """The same, for those who know no more than a run's name."""
        self._tidied = time.monotonic()
        self._orphans: frozenset[str] = frozenset()
        self._tails = Tails(login)
        self._asking = Asking(login, params.grace)
        self.watch = Watch(login, params)
        self._news = News(self.watch, lambda place, look: judge(self._evidence(place, look)))

    # ---- hop 7

    async def create(self, owner: Owner, action: Create) -> Found:
        """Submit a run, unless that was done before. Raises AdapterError."""
        name = action.wanted.name
        place = place_of(self._target, owner, name)
        job = await self._submitter.submit(owner, action)
        memory = self._remember(place)
        memory.submitted, memory.job = time.monotonic(), job
        self.watch.hurry()
        return _progressing(name, owner.uid, f"submitted as job {job}", digest=action.wanted.digest)

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
            self._memory.pop(place, None)
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
            found.append(_progressing(name, uid, "was submitted", digest=str(run.get("digest"))))
        return found

    # ---- hop 5

    async def observe(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        """How runs stand. Raises AdapterError when nothing can be said of any."""
        asked = [Asked(owner, e, *self._recall(owner, e.name)) for owner, e in externals]
        look = await self.watch.look([a.place for a in asked if a.memory.over is None])
        self._report_orphans(look)
        answers: dict[External, Observation] = {}
        judged: list[tuple[Asked, Verdict]] = []
        for each in asked:
            said = each.memory.over or self._unchanged(each, look)
            if said is not None:
                answers[each.external] = said
            else:
                judged.append((each, judge(self._evidence(each.place, look))))
        good = [each.place for each, verdict in judged if verdict.kind is Kind.GOOD]
        await self._fetching.ask([p for p in good if (o := _order(look, p)) and o.outputs])
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
        place = self._names.get(external.name) or await self._place(external.name)
        return await self._tails.read(place, stream, offset)

    async def _place(self, name: str) -> Place:
        """The place of a run of which nothing was seen since the daemon began."""
        place = await self._asking.place(name)
        if place is None:
            raise TransientError(f"run {name} is not on the cluster any more, or not yet")
        self._names[name] = place
        return place

    def _recall(self, owner: Owner, name: str) -> tuple[Place, Memory]:
        """Where a run lies, and what was seen of it."""
        place = self._places.get((owner, name))
        if place is None:
            place = self._places[owner, name] = place_of(self._target, owner, name)
            self._names[name] = place
        return place, self._remember(place)

    def _remember(self, place: Place) -> Memory:
        now = time.monotonic()
        memory = self._memory.get(place)
        if memory is None:
            memory = self._memory[place] = Memory(now)
        memory.asked = now
        return memory

    async def _observe(self, asked: Asked, look: Look, verdict: Verdict) -> Observation:
        owner, external, place, memory = asked
        if memory.over is not None:  # while another was waited for
            return memory.over
        if memory.submitted is not None and memory.submitted > look.taken:
            return _progressing(external.name, owner.uid, f"submitted as job {memory.job}")
        order = _order(look, place)
        if order is not None and order.uid != owner.uid:
            return _progressing(external.name, order.uid, "belongs to another object")
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

    def _evidence(self, place: Place, look: Look) -> Evidence:
        memory = self._memory.get(place) or self._remember(place)
        rows = look.rows_of(place.token, place.job_name)
        alive = any(row.state in LIVE for row in rows)
        memory.unseen = None if alive else memory.unseen or look.taken
        return Evidence(
            rows=rows,
            record=look.records.get(place.token),
            accounts=look.accounts_of(place.token, place.job_name),
            has_accounting=look.has_accounting,
            unseen_for=0.0 if memory.unseen is None else look.taken - memory.unseen,
            lost_after=self._params.lost_after.total_seconds(),
        )

    async def _conclude(
        self, owner: Owner, external: External, place: Place, verdict: Verdict, order: Order | None
    ) -> Observation:
        memory = self._remember(place)
        name, uid = external.name, owner.uid
        match verdict.kind:
            case Kind.GONE:
                recent = memory.submitted is not None and (
                    time.monotonic() - memory.submitted < self._params.lost_after.total_seconds()
                )
                if recent:  # another login node may not show the folder yet
                    return _progressing(name, uid, "submitted; its folder is not to be seen yet")
                return Absent()
            case Kind.ALIVE:
                memory.hopeless = None
                return _progressing(name, uid, verdict.message, verdict.reason)
            case Kind.HOPELESS:
                return await self._give_up(place, name, uid, verdict)
            case Kind.LOST:
                return await self._bury(place, name, uid, verdict)
            case Kind.BAD:
                return self._over(place, _ended(name, uid, verdict, order))
        assert verdict.kind is Kind.GOOD
        fetched = await self._fetching.fetch(place, order.outputs if order else {})
        if fetched.left:
            said = f"it ended well; {fetched.left >> 20} MiB of its outputs are still to be fetched"
            self._news.press(owner.key)
            return _progressing(name, uid, said)
        if fetched.bad:
            missing = Verdict(Kind.BAD, fetched.bad, Reason.OUTPUT_MISSING, exit_code=0)
            return self._over(place, _ended(name, uid, missing, order))
        done = replace(_ended(name, uid, verdict, order), outputs=fetched.outputs)
        return self._over(place, done)

    def _over(self, place: Place, found: Found) -> Found:
        self._remember(place).over = found
        self.watch.settle(place)
        self.watch.forget(place)
        self._news.forget(place)
        self._forget_old()
        return found

    async def _give_up(self, place: Place, name: str, uid: str, verdict: Verdict) -> Found:
        """Say why it cannot start; after a while, take it out of the queue."""
        memory = self._remember(place)
        memory.hopeless = memory.hopeless or time.monotonic()
        if time.monotonic() - memory.hopeless > HOPELESS_AFTER:
            await self._asking.cancel(
                Cancellation(place, uid, f"{UNSCHEDULABLE}: {verdict.message}")
            )
            self.watch.hurry()
        return _progressing(name, uid, verdict.message, Reason.UNSCHEDULABLE)

    async def _bury(self, place: Place, name: str, uid: str, verdict: Verdict) -> Found:
        """Make sure that it can never begin any more; the next look then says that it is lost."""
        await self._asking.bury(place, f"{LOST}: {verdict.message}")
        self.watch.hurry()
        _log.warning("a run is lost", run=name, why=verdict.message)
        return _progressing(name, uid, verdict.message)

    def _forget_old(self) -> None:
        now = time.monotonic()
        if now - self._tidied < TIDY:
            return
        self._tidied = now
        self._memory = {p: m for p, m in self._memory.items() if m.asked > now - FORGET}
        self._places = {who: p for who, p in self._places.items() if p in self._memory}
        self._names = {name: p for name, p in self._names.items() if p in self._memory}

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


def _order(look: Look, place: Place) -> Order | None:
    """What the run's folder says of it, if the look has read that."""
    record = look.records.get(place.token)
    return record.order if record else None


def _progressing(
    name: str, uid: str, message: str, reason: Reason | None = None, digest: str | None = None
) -> Found:
    return Found(
        external=External(RUN_ROLE, name, name),
        owner_uid=uid,
        state=State.PROGRESSING,
        digest=digest,
        reason=reason,
        message=message,
    )


def _ended(name: str, uid: str, verdict: Verdict, order: Order | None) -> Found:
    bad = verdict.kind is Kind.BAD
    detail: dict[str, JsonValue] = {"job": verdict.job} if verdict.job else {}
    if verdict.exit_code is not None:
        detail["exit_code"] = verdict.exit_code
    return Found(
        external=External(RUN_ROLE, name, name),
        owner_uid=uid,
        state=State.FAILED if bad else State.SUCCEEDED,
        digest=order.digest if order else None,
        reason=verdict.reason if bad else None,
        message=verdict.message,
        attempt_counts=verdict.counts,
        detail=detail,
    )
