"""What is told to a kernel with a deliberate bug: each scenario suits some of the bugs.

A scenario is told twice: undisturbed to the real kernel, for reference, and disturbed to the one
that is examined. All five oracles are asked of both.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from rig.interrupt import Interrupted
from windlass.store.base import (
    Fault,
    ResumeObject,
    Snapshot,
    StoreError,
    SuspendObject,
    SyncObject,
)
from windlass.store.recording import TakenError
from windlass_adapters.base import State, TerminalError
from windlass_adapters.testing import DETERMINISTIC, SERVER_CHOSEN, MemoryBackend, Personality
from windlass_adapters.testing.documents import deployment, document, job, kept_file, model
from windlass_adapters.testing.oracles import EndState, check_end
from windlass_adapters.testing.schedules import Theatre
from windlass_adapters.testing.stepping import Cut, Killed
from windlass_adapters.testing.stories import Story
from windlass_adapters.testing.world import SOURCE, World
from windlass_schemas import Key

WINE = Key.parse("Model/wine")
TRAIN = Key.parse("Job/train")
LAG = timedelta(seconds=15)

Tell = Callable[[World, bool], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """A story with a disturbance, and the backend that it is told about."""

    name: str
    tell: Tell
    personality: Personality = DETERMINISTIC
    lag: timedelta = timedelta(0)
    everywhere: bool = False
    """Whether it is told once for each await, and killed there."""

    def theatre(self) -> Theatre:
        """A stage of its own."""
        return StrictTheatre(self.name, lambda: MemoryBackend(self.personality, lag=self.lag))

    async def reference(self) -> EndState:
        """Told undisturbed."""
        return await self._told(self.theatre(), Cut(), disturbed=False)

    async def examine(self, reference: EndState) -> None:
        """Told disturbed. Raises AssertionError that names the oracle."""
        theatre = self.theatre()
        cuts = [Cut()]
        if self.everywhere:
            whole = Cut()
            async with theatre.stage() as world:
                world.cut = whole
                await self.tell(world, True)
            cuts = [Cut((at,), Killed()) for at in range(whole.steps)]
        for cut in cuts:
            check_end(await self._told(theatre, cut, disturbed=True), reference)

    async def _told(self, theatre: Theatre, cut: Cut, *, disturbed: bool) -> EndState:
        return await theatre.tell(Story(self.name, lambda world: self.tell(world, disturbed)), cut)

    async def caught_by(self, reference: EndState) -> str:
        """Which oracle catches what is wrong now; empty when none does."""
        try:
            await self.examine(reference)
        except TakenError:  # the log's own key: a number was given twice
            return "e"
        except AssertionError as error:
            return _oracle_of(str(error))
        return ""


def _oracle_of(message: str) -> str:
    named = re.match(r"\(([a-e])\)", message)
    if named:
        return named[1]
    if message.startswith("it did not come to that"):
        return "a"
    if message.startswith("not settled"):
        return "c"
    raise AssertionError(f"no oracle said this: {message}")


class StrictTheatre(Theatre):
    """Asks after every pass as well whether what the status says was told in events."""

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[World]:
        async with super().stage() as world:
            world.checks.append(check_told)
            yield world


async def check_told(world: World) -> None:
    """Oracle (e): who only follows the events knows every condition."""
    told = {(e.data.uid, e.data.condition): e.data.to_status for e in await world.events()}
    for object_ in await world.store.list():
        for condition in object_.status.conditions:
            heard = told.get((object_.uid, condition.type), "False")
            assert heard == condition.status, f"(e) {object_.key} {condition.type} was not told"


# -- stories ---------------------------------------------------------------------------------------


async def trained(world: World) -> None:
    await world.declare(job(), model(), deployment())
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Deployment/wine")


async def run_a_job(world: World, disturbed: bool) -> None:
    await world.declare(job())
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Job/train")


async def questions_fail(world: World, disturbed: bool) -> None:
    await world.declare(job())
    await world.until_running()
    if disturbed:
        world.backend.fail("observe_many", *[OSError("no route to host")] * 3)
    await world.after(minutes=5)
    assert len(world.backend.held) == 1, f"(b) started again: {world.backend.held}"
    world.backend.finish()
    await world.until_ready("Job/train")


async def reply_lost(world: World, disturbed: bool) -> None:
    if disturbed:
        world.backend.lose_reply("create")
    await run_a_job(world, disturbed)


async def there_and_back(world: World, disturbed: bool) -> None:
    await world.declare(kept_file())
    await world.until_ready("Model/wine")
    await world.after(minutes=5)
    await world.declare(kept_file(version=2))
    await world.settle()
    await world.declare(kept_file())
    await world.settle()
    await world.after(minutes=5)
    await world.until_ready("Model/wine")


async def somebody_takes_the_name(world: World, disturbed: bool) -> None:
    await world.declare(kept_file())
    await world.until_ready("Model/wine")
    held = world.backend.named("artifact")
    uid = held.owner_uid
    if disturbed:
        world.backend.hand_over(held, "somebody")
        await world.reconcile(WINE)
        await world.after(minutes=5)
        world.backend.hand_over(held, uid)
    await world.after(minutes=5)
    await world.until_ready("Model/wine")


async def an_old_daemon_goes_on(world: World, disturbed: bool) -> None:
    await world.declare(kept_file())
    await world.until_ready("Model/wine")
    old = world.store
    await world._open()
    await world.declare(kept_file(version=2))
    await world.until_ready("Model/wine")
    if disturbed:
        with suppress(StoreError):
            await old.apply(Snapshot(SOURCE, "r1", "ann", (kept_file(),)), world.now)
    await old.close()
    world.look([WINE])
    await world.after(minutes=5)


async def two_passes_of_one_key(world: World, disturbed: bool) -> None:
    """The second ends while the first is under way: at each of its awaits, for a job each."""
    jobs = [job(f"j{at}") for at in range(14)]
    await world.declare(*jobs)

    async def overtake(name: str) -> None:
        if world.backend.all("run", f"default.{name}-"):
            world.backend.finish(f"default.{name}-")
        await world.reconciler.reconcile(Key.parse(f"Job/{name}"))

    for at in range(len(jobs)) if disturbed else ():
        key = Key.parse(f"Job/j{at}")
        with suppress(StoreError):
            first = world.reconciler.reconcile(key)
            await Interrupted(first, at, partial(overtake, key.name))
        world.look([key])
        await check_told(world)
    await world.settle()
    for held in world.backend.all("run"):
        if held.state is State.PROGRESSING:
            world.backend.finish(held.external.name)
    await world.until_ready(*[f"Job/j{at}" for at in range(len(jobs))])
    await world.after(minutes=2)


async def declared_again(world: World, disturbed: bool) -> None:
    keep, orphan = kept_file("keep"), kept_file("wine", onDelete="orphan")
    await world.declare(keep, orphan)
    await world.until_ready("Model/keep", "Model/wine")
    if disturbed:
        for at in range(4):  # later ones may come after the commit, when it is gone
            await world.declare(keep)

            async def again() -> None:
                await world.declare(keep, orphan)

            middle = Interrupted(world.reconciler.reconcile(WINE), at, again)
            with suppress(StoreError):
                await middle
            if not middle.reached:
                break
            assert await world.store.get(WINE) is not None, f"(a) it is declared and gone: {at}"
            await world.settle()
        await world.declare(keep, orphan)
    await world.until_ready("Model/wine")


async def refused_for_good(world: World, disturbed: bool) -> None:
    await world.declare(job())
    if disturbed:
        world.backend.fail("create", *[TerminalError("no such image")] * 500)
        for _ in range(55):
            world.look([TRAIN])  # something else wakes it all the time
            await world.after(minutes=1)
        calls = world.backend.calls["create"]
        assert calls <= 2, f"(b) what cannot help was tried {calls} times in an hour"
        world.backend.faults.clear()
        world.look(await world.store.request(SyncObject(TRAIN, "t", "ann"), world.now))
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Job/train")


async def a_document_breaks(world: World, disturbed: bool) -> None:
    await world.declare(kept_file("keep"), kept_file())
    await world.until_ready("Model/keep", "Model/wine")
    if disturbed:
        fault = Fault("wine.yaml", 3, 5, "spec.sorce", "unknown field", WINE)
        await world.declare(kept_file("keep"), faults=[fault])
        await world.after(minutes=2)
    await world.declare(kept_file("keep"), kept_file())
    await world.until_ready("Model/keep", "Model/wine")


async def most_is_left_out(world: World, disturbed: bool) -> None:
    files = [kept_file(f"m{i}") for i in range(7)]
    names = [f"Model/m{i}" for i in range(7)]
    await world.declare(*files)
    await world.until_ready(*names)
    if disturbed:
        await world.declare(files[0])
        await world.after(minutes=2)
    await world.declare(*files)
    await world.until_ready(*names)
    await world.after(minutes=2)


async def the_backend_forgets(world: World, disturbed: bool) -> None:
    await run_a_job(world, disturbed)
    if disturbed:
        world.backend.held.clear()
    world.look([TRAIN])
    await world.after(minutes=5)


async def edited_after_its_last_try(world: World, disturbed: bool) -> None:
    spec = {"command": ["train"], "outputs": {"model": "model.onnx"}}
    await world.declare(document("Job", "train", spec))
    await world.until_running()
    world.backend.finish(ok=False, message="exit 1")
    await world.after(minutes=5)
    await world.declare(document("Job", "train", {**spec, "timeLimit": "2h"}))
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Job/train")


async def the_machine_stops(world: World, disturbed: bool) -> None:
    await world.declare(job())
    await world.until_running()
    world.backend.finish(ok=False, message="machine stopped", counts=False)
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Job/train")


async def edited(world: World, disturbed: bool) -> None:
    await world.declare(kept_file())
    await world.until_ready("Model/wine")
    await world.declare(kept_file(version=2))
    await world.until_ready("Model/wine")


async def edited_at_the_base(world: World, disturbed: bool) -> None:
    """While what is at the base is made anew, nothing new is made from what it was."""
    await trained(world)
    more = [model("two"), deployment("two")]
    await world.declare(job(params={"c": 2}), model(), deployment(), *more)
    for text in ("Deployment/two", "Model/two", "Deployment/two"):
        await world.reconcile(Key.parse(text))
    early = [*world.backend.all("artifact", "default.two")]
    early += world.backend.all("server", "default.two")
    assert not early, f"(d) made from what is no longer declared: {early}"
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Deployment/wine", "Deployment/two")


async def new_on_an_old_base(world: World, disturbed: bool) -> None:
    """A new server of a model whose own job is being run again: two links away."""
    await trained(world)
    await world.declare(job(params={"c": 2}), model(), deployment(), deployment("two"))
    await world.reconcile(Key.parse("Deployment/two"))
    early = world.backend.all("server", "default.two")
    assert not early, f"(d) made from what is no longer declared: {early}"
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Deployment/wine", "Deployment/two")


async def edited_while_suspended(world: World, disturbed: bool) -> None:
    await world.declare(kept_file())
    await world.until_ready("Model/wine")
    world.look(await world.store.request(SuspendObject(WINE, "audit", "ann"), world.now))
    await world.declare(kept_file(version=2))
    effects = world.backend.mutations()
    await world.after(minutes=2)
    assert world.backend.mutations() == effects, "(b) acted on while suspended"
    world.look(await world.store.request(ResumeObject(WINE, "ann"), world.now))
    await world.until_ready("Model/wine")


async def all_removed_at_once(world: World, disturbed: bool) -> None:
    await trained(world)
    await world.declare(kept_file("keep"))
    for text in ("Job/train", "Model/wine", "Deployment/wine"):
        await world.until_gone(text)
    gone = [e.subject for e in await world.events() if e.data.condition == "Deleted"]
    wanted = ["Deployment/default/wine", "Model/default/wine", "Job/default/train"]
    assert gone == wanted, f"(e) the order of the goodbyes: {gone}"


_ALL = (
    Scenario("killed at every await", run_a_job, SERVER_CHOSEN, LAG, everywhere=True),
    Scenario("questions fail", questions_fail),
    Scenario("reply lost while lists lag", reply_lost, SERVER_CHOSEN, LAG),
    Scenario("there and back while lists lag", there_and_back, lag=LAG),
    Scenario("somebody takes the name", somebody_takes_the_name),
    Scenario("an old daemon goes on", an_old_daemon_goes_on),
    Scenario("two passes of one key", two_passes_of_one_key),
    Scenario("declared again in the last pass", declared_again),
    Scenario("refused for good", refused_for_good),
    Scenario("a document breaks", a_document_breaks),
    Scenario("a revision leaves most out", most_is_left_out),
    Scenario("the backend forgets", the_backend_forgets),
    Scenario("edited after its last try", edited_after_its_last_try),
    Scenario("the machine stops", the_machine_stops),
    Scenario("edited", edited),
    Scenario("edited at the base", edited_at_the_base),
    Scenario("a new one on an old base", new_on_an_old_base),
    Scenario("edited while suspended", edited_while_suspended),
    Scenario("all removed at once", all_removed_at_once),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
