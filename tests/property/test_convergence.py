"""Whatever is done to it, the kernel comes to what is declared, and says the truth on the way.

Hypothesis edits documents, breaks calls, changes the backend behind our back, kills passes in their
middle and lets others write the store; then it leaves the world alone for three hours of virtual
time. The run of every commit is the same each time; ``WINDLASS_TEST_DEPTH=long`` draws others, more
and longer ones (``WINDLASS_EXAMPLES`` says how many). What it has found is told as short stories in
``integration/test_found_by_chaos.py``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rig.chaos import SOAK, ChaosBackend, ChaosWorld, die, running
from rig.declared import JOBS, KEYS, SOURCES, TARGET, Declared, Variant, document
from rig.truth import Watch, check_converged
from windlass.store.base import (
    Approve,
    Delete,
    Fault,
    Request,
    ResumeObject,
    Snapshot,
    StoreError,
    SuspendObject,
    SyncObject,
)
from windlass_adapters.base import (
    AmbiguousError,
    State,
    TerminalError,
    TransientError,
    WaitingError,
)
from windlass_adapters.testing import DETERMINISTIC, PERSONALITIES
from windlass_adapters.testing.stepping import Killed
from windlass_schemas import Key, Reason

pytestmark = pytest.mark.kit
T = TypeVar("T")
STEPS: Counter[str] = Counter()

keys = st.sampled_from(KEYS)
sources = st.sampled_from(SOURCES)
errors = st.sampled_from([TransientError, WaitingError, TerminalError, AmbiguousError, OSError])
operations = st.sampled_from(["observe_many", "find", "create", "update", "delete"])
moments = st.integers(0, 24)
EDITS: dict[str, st.SearchStrategy[object]] = {
    "param": st.integers(1, 3),
    "script": st.integers(0, 1),
    "retries": st.integers(0, 2),
    "on_change": st.sampled_from(["finish-then-run", "replace", "refuse"]),
    "target": st.sampled_from(["local", "t"]),
    "of": st.sampled_from(["", "b", "n"]),
    "prune": st.sampled_from(["auto", "confirm", "never"]),
    "on_delete": st.sampled_from(["delete", "orphan", "block"]),
    "suspend_hours": st.sampled_from([None, 0, 1, 3]),
    "self_heal": st.sampled_from(["all", "create-only", "none"]),
    "ignores": st.booleans(),
    "ready_minutes": st.sampled_from([None, 1, 10, 120]),
}
edits = st.sampled_from(sorted(EDITS)).flatmap(lambda f: st.tuples(st.just(f), EDITS[f]))


class Convergence(RuleBasedStateMachine):
    """One world, perturbed; each machine has an event loop and a folder of its own."""

    kind: type[ChaosWorld] = ChaosWorld

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="windlass-chaos-"))
        self.declared = Declared()
        self.faulty: dict[str, set[Key]] = {source: set() for source in SOURCES}
        self.watch = Watch()
        self.world: ChaosWorld

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(personality=st.sampled_from(PERSONALITIES), slow=st.booleans())
    def begin(self, personality: object, slow: bool) -> None:
        chosen = next(p for p in PERSONALITIES if p is personality)
        backend = ChaosBackend(personality=chosen)
        backend.settles_after = timedelta(seconds=90) if slow else None
        self.world = self.run(self.kind.begin(self.folder, backend))
        self.world.checks.append(self.watch.after_pass)
        one = self.declared.sources[SOURCES[0]]
        one.update(dict.fromkeys(KEYS, Variant()))
        self.publish(SOURCES[0])
        self.run(self.world.settle())

    # -- documents --------------------------------------------------------------------------------

    def snapshot(self, source: str) -> Snapshot:
        self.world.revision += 1
        held, faulty = self.declared.sources[source], self.faulty[source]
        good = [document(key, v) for key, v in held.items() if key not in faulty]
        bad = [Fault("x.yaml", 3, 5, "spec", "unknown field", key) for key in sorted(faulty)]
        return Snapshot(source, f"r{self.world.revision}", "ann", tuple(good), tuple(bad))

    def publish(self, *changed: str) -> None:
        for source in changed:
            self.run(self.world.take(self.snapshot(source)))

    @rule(key=keys, source=sources, edit=edits)
    def edit(self, key: Key, source: str, edit: tuple[str, object]) -> None:
        self.change(key, source, edit)
        self.publish(source)

    def change(self, key: Key, source: str, edit: tuple[str, object]) -> None:
        held = self.declared.sources[source]
        if key == TARGET and edit[0] == "target":
            return
        if key in held:
            changed = dict([edit])  # each field with a value of its own type: see EDITS
            held[key] = replace(held[key], **changed)  # type: ignore[arg-type]

    @rule(key=keys, source=sources)
    def drop(self, key: Key, source: str) -> None:
        self.declared.sources[source].pop(key, None)
        self.publish(source)

    @rule(key=keys, source=sources, param=st.integers(1, 3))
    def declare(self, key: Key, source: str, param: int) -> None:
        self.declared.sources[source].setdefault(key, Variant(param=param))
        self.publish(source)

    @rule(source=sources, old=st.sampled_from(JOBS), new=st.sampled_from(JOBS))
    def rename(self, source: str, old: Key, new: Key) -> None:
        held = self.declared.sources[source]
        if old in held and new not in held:
            held[new] = held.pop(old)
            self.publish(source)

    @rule(key=keys, order=st.permutations(SOURCES))
    def move(self, key: Key, order: list[str]) -> None:
        owners = list(self.declared.claims(key))
        if len(owners) == 1:
            other = next(s for s in SOURCES if s != owners[0])
            self.declared.sources[other][key] = self.declared.sources[owners[0]].pop(key)
            self.publish(*order)

    @rule(key=keys, source=sources)
    def break_document(self, key: Key, source: str) -> None:
        if key in self.declared.sources[source]:
            self.faulty[source] ^= {key}
            self.publish(source)

    # -- people -----------------------------------------------------------------------------------

    @rule(key=keys, what=st.sampled_from(["suspend", "resume", "sync", "delete", "approve"]))
    def ask(self, key: Key, what: str) -> None:
        self.run(self._ask(key, what))

    async def _ask(self, key: Key, what: str) -> None:
        world = self.world
        request: Request
        match what:
            case "suspend":
                request = SuspendObject(key, "look", "ann")
            case "resume":
                request = ResumeObject(key, "ann")
            case "sync":
                world.revision += 1
                request = SyncObject(key, f"t{world.revision}", "ann")
            case "delete":
                request = Delete(key, "ann")
            case _:
                request = Approve("r", "ann")
        try:
            world.look(await world.store.request(request, world.now))
        except StoreError:
            return  # there is no such thing now, and nothing was written

    # -- the backend ------------------------------------------------------------------------------

    @rule(operation=operations, error=errors, count=st.integers(1, 3))
    def refuse(self, operation: str, error: type[Exception], count: int) -> None:
        self.world.backend.fail(operation, *[error("not now")] * count)

    @rule(operation=st.sampled_from(["create", "update", "delete"]))
    def lose_reply(self, operation: str) -> None:
        self.world.backend.lose_reply(operation)

    @rule(seconds=st.sampled_from([0, 5, 15]))
    def lag(self, seconds: int) -> None:
        self.world.backend.note()
        self.world.backend.lag = timedelta(seconds=seconds)

    @rule(nth=st.integers(0, 5), how=st.sampled_from(["ok", "failed", "infrastructure"]))
    def finish(self, nth: int, how: str) -> None:
        going = running(self.world.backend)
        if going:
            name = going[nth % len(going)].external.name
            counts = how != "infrastructure"
            self.world.backend.finish(name, ok=how == "ok", message=how, counts=counts)

    @rule(nth=st.integers(0, 9), how=st.sampled_from(["delete", "edit", "take"]))
    def meddle(self, nth: int, how: str) -> None:
        self.hand(nth, how)

    def hand(self, nth: int, how: str) -> None:
        """Somebody else changes what the backend holds."""
        backend = self.world.chaos
        held = list(backend.held.values())
        if not held:
            return
        lasting = [h for h in held if h.external.role != "run"]
        held = lasting if how != "delete" and lasting else held
        one = held[nth % len(held)]
        self.watch.meddled_at = self.world.now
        if how == "delete" and one.state is not State.PROGRESSING:
            backend.remove(one)
        elif how == "edit" and one.external.role != "run":
            backend.edit(one, **{"model" if one.external.role == "server" else "source": "other"})
            self.run(self.watch.leave_alone(self.world, one))
        elif how == "take" and one.external.role != "run" and one.state is State.LIVE:
            self.watch.taken[one.external] = one.owner_uid
            one.owner_uid = "somebody"
            backend.note()

    # -- time and death ---------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 5, 30, 61, 600, 3600, 5 * 3600]))
    def wait(self, seconds: int) -> None:
        self.run(self.world.after(seconds=seconds))

    @rule(seconds=st.sampled_from([-30, -2, 60, 900, 4 * 3600]))
    def jump(self, seconds: int) -> None:
        """The clock is set, and nothing runs meanwhile."""
        self.world.now += timedelta(seconds=seconds)
        if seconds > 0:
            self.world.backend.note()

    @rule(count=st.integers(1, 5))
    def passes(self, count: int) -> None:
        for _ in range(count):
            self.run(self.world.next_pass())

    @rule(key=keys, at=moments)
    def kill(self, key: Key, at: int) -> None:
        self.run(self._kill(key, at))

    async def _kill(self, key: Key, at: int) -> None:
        try:
            with self.watch.off():
                await self.world.interrupted_pass(key, at, die)
        except Killed:
            STEPS["killed in a pass"] += 1
        old = self.world
        await old.abandon()
        self.world = await old.reopened()

    @rule(key=keys, at=moments, source=sources, edit=edits)
    def edit_meanwhile(self, key: Key, at: int, source: str, edit: tuple[str, object]) -> None:
        async def act() -> None:
            self.change(key, source, edit)
            await self.world.take(self.snapshot(source))

        self.meanwhile(key, at, act)

    @rule(key=keys, at=moments, source=sources)
    def drop_or_declare_meanwhile(self, key: Key, at: int, source: str) -> None:
        async def act() -> None:
            held = self.declared.sources[source]
            if held.pop(key, None) is None:
                held[key] = Variant()
            await self.world.take(self.snapshot(source))

        self.meanwhile(key, at, act)

    @rule(key=keys, at=moments, what=st.sampled_from(["suspend", "resume", "sync", "delete"]))
    def ask_meanwhile(self, key: Key, at: int, what: str) -> None:
        self.meanwhile(key, at, lambda: self._ask(key, what))

    def meanwhile(
        self, key: Key, at: int, act: Callable[[], Coroutine[object, object, None]]
    ) -> None:
        with self.watch.off():
            if self.run(self.world.interrupted_pass(key, at, act)):
                STEPS["changed in a pass"] += 1

    @precondition(lambda self: self.world.backend.personality is DETERMINISTIC)
    @rule(key=keys, at=moments, passes=st.integers(0, 6))
    def take_over(self, key: Key, at: int, passes: int) -> None:
        """Another daemon opens the store while a pass of ours is held up."""
        self.run(self._take_over(key, at, passes))

    async def _take_over(self, key: Key, at: int, passes: int) -> None:
        old = self.world
        writes = 0

        async def act() -> None:
            nonlocal writes
            self.world = await old.reopened()
            for _ in range(passes):
                await self.world.next_pass()
            writes = old.store.writes

        with self.watch.off():
            await old.taken_over_pass(key, at, act)
        assert old.store.writes == writes, "a daemon that has lost its claim has written"
        await old.abandon()
        self.world.due[key] = self.world.now
        STEPS["taken over in a pass"] += 1

    # -- what always holds ------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            STEPS["steps"] += 1
            self.run(self.watch.check(self.world))

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.run(self._converge())
                STEPS["stories"] += 1
        finally:
            if hasattr(self, "world"):
                self.run(self.world.store.close())
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _converge(self) -> None:
        """Stop perturbing, and give it three hours."""
        world = self.world
        world.backend.faults.clear()
        world.backend.lost_replies.clear()
        world.backend.lag = timedelta(0)
        world.now += SOAK
        self.watch.give_back(world.chaos)
        self.watch.left.clear()
        for source in SOURCES:
            self.faulty[source].clear()
            documents = self.declared.sources[source]
            documents.update({key: variant.healed for key, variant in documents.items()})
            await world.take(self.snapshot(source))
        for state in await world.store.sources():
            if state.blocked:
                world.look(await world.store.request(Approve(state.revision, "ann"), world.now))
        for _ in range(36):
            await world.after(minutes=5)
            for held in running(world.backend):
                world.backend.finish(held.external.name)
            await self._try_failed_again()
            await self.watch.check(world)
        await check_converged(world, self.declared, self.watch)

    async def _try_failed_again(self) -> None:
        """A job that has used up its tries stays failed until somebody asks."""
        for object_ in await self.world.store.list("Job"):
            ready = object_.status.condition("Ready")
            if ready is not None and ready.reason in (Reason.FAILED, Reason.INTERRUPTED):
                await self._ask(object_.key, "sync")


LONG = os.environ.get("WINDLASS_TEST_DEPTH") == "long"
EXAMPLES = int(os.environ.get("WINDLASS_EXAMPLES", "150" if LONG else "14"))
PHASES = (Phase.explicit, Phase.generate)
PROFILE = settings(
    max_examples=EXAMPLES,
    stateful_step_count=60 if LONG else 30,
    deadline=None,
    derandomize=not LONG,
    database=None,
    print_blob=True,
    phases=(*PHASES, Phase.shrink) if "WINDLASS_NO_SHRINK" not in os.environ else PHASES,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.usefixtures("quiet")
@pytest.mark.timeout(0)
def test_it_comes_to_what_is_declared_whatever_is_done_to_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_state_machine_as_test(Convergence, settings=PROFILE)
    with capsys.disabled():
        counted = ", ".join(f"{n} {what}" for what, n in sorted(STEPS.items()))
        sys.stdout.write(f"\nproperty test: {counted}\n")
    assert STEPS["stories"]
