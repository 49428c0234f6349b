"""``AdapterContract``: what every adapter must do, to be subclassed in about five lines.

    class TestMyAdapter(AdapterContract):
        def make(self, folder: Path) -> Rig:
            return MyRig(folder)

Needs pytest with pytest-asyncio in ``auto`` mode. A ``Rig`` is the test's hand on the backend. Each
check opens a backend of its own. The schedules are played where there is a ``theatre``, with a fake
that can be stopped at every await; without one, the checks of the adapter itself remain.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from windlass.store.base import Document
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import (
    Absent,
    Adapter,
    AdapterContext,
    AdapterError,
    AmbiguousError,
    Create,
    Desired,
    External,
    Found,
    Owner,
    State,
    TellsChanges,
    TerminalError,
    TransientError,
    WaitingError,
    Wanted,
)
from windlass_adapters.testing.adapter import MemoryAdapter
from windlass_adapters.testing.backend import MemoryBackend
from windlass_adapters.testing.documents import job, kept_file
from windlass_adapters.testing.personality import Personality
from windlass_adapters.testing.schedules import FAULTS, Depth, Theatre
from windlass_schemas import Artifact, Key, digest_of, key_of

CLASSES = (TransientError, WaitingError, TerminalError, AmbiguousError)
LIMIT = 60.0
"""Seconds until a state that must come is given up."""


class Rig(Protocol):
    """The test's hand on one fresh backend."""

    adapter: Adapter
    """Built for the backend, not opened yet."""
    documents: Sequence[Document]
    """One of each kind that the adapter serves, valid, and with what it names kept."""
    inputs: Mapping[str, Artifact] = {}
    """What they need from other objects, by slot (``Model/default/wine:artifact``), and kept."""

    @abstractmethod
    async def count(self, owner: Owner) -> int:
        """How many resources the owner really holds, asked past the adapter."""

    @abstractmethod
    async def finish(self, external: External) -> None:
        """Let a run end well now, if it does not do so by itself."""

    @abstractmethod
    def lose_reply(self) -> bool:
        """Let the next create have its effect and no reply. False where that cannot be staged."""

    @abstractmethod
    def break_off(self) -> bool:
        """Make every question fail from now on. False where that cannot be staged."""

    @abstractmethod
    async def close(self) -> None:
        """Stop and remove everything of the backend."""


class Schedules:
    """Each story is cut at each await. One class for each sort of documents that an adapter has."""

    depth = Depth(stride=48)
    """How many pairs of cuts are tried."""

    def theatre(self) -> Theatre | None:
        """Where they are played, for a backend that can be stopped at every await."""
        return None

    def test_killed_at_every_await_it_exists_once_and_ends_as_declared(self) -> None:
        """All five oracles after each schedule, with a second kill in the recovery."""
        self._play("killed")

    def test_cancelled_at_every_await_it_ends_as_declared(self) -> None:
        """A pass that is cancelled is a pass that is looked after later."""
        self._play("cancelled")

    def test_timing_out_at_every_await_it_ends_as_declared(self) -> None:
        """Nobody knows whether it happened."""
        self._play("timeout")

    def test_with_a_store_error_at_every_await_it_ends_as_declared(self) -> None:
        """The outcome could not be written, or was and nobody knows."""
        self._play("store error")

    def _play(self, fault: str) -> None:
        assert fault in FAULTS
        theatre = self.theatre()
        if theatre is not None:  # else stopped by real kills, in tests of its own
            theatre.play(self.depth.for_fault(fault), fault)


class AdapterContract(Schedules):
    """Subclass it and give it a rig; every check below is then run on your adapter."""

    def make(self, folder: Path) -> Rig:
        """A fresh backend with its adapter, in an empty folder."""
        raise NotImplementedError

    @asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[tuple[Rig, Adapter]]:
        """A rig with its adapter opened."""
        rig = self.make(folder)
        try:
            async with rig.adapter as adapter:
                yield rig, adapter
        finally:
            await rig.close()

    async def test_what_is_wanted_is_named_the_same_each_time(self, tmp_path: Path) -> None:
        """Names decide what is looked up after a crash."""
        async with self.open(tmp_path) as (rig, adapter):
            for document in rig.documents:
                first = adapter.normalise(_desired(rig, document))
                assert first, f"{document.resource.kind} wants nothing"
                assert first == adapter.normalise(_desired(rig, document))
                assert len({(w.role, w.name) for w in first}) == len(first)

    async def test_creating_twice_makes_one(self, tmp_path: Path) -> None:
        """What this owner already holds under that name is returned."""
        async with self.open(tmp_path) as (rig, adapter):
            for document in rig.documents:
                made = await _create(rig, adapter, document)
                again = await _create(rig, adapter, document)
                assert [f.external for f in again] == [f.external for f in made]
                assert await rig.count(_owner(document)) == len(made)

    async def test_what_was_made_is_found_by_its_owner_though_the_reply_was_lost(
        self, tmp_path: Path
    ) -> None:
        """The reply is lost, the effect is not."""
        async with self.open(tmp_path) as (rig, adapter):
            document = rig.documents[0]
            lost = rig.lose_reply()
            with suppress(AdapterError):
                await _create(rig, adapter, document)
                assert not lost, "the reply came though the rig has lost it"
            owner = _owner(document)
            wanted = adapter.normalise(_desired(rig, document))[0]
            found = await adapter.find(owner)
            names = [(f.external.role, f.external.name) for f in found]
            assert names == [(wanted.role, _attempt(wanted).name)]
            assert all(f.owner_uid in (None, owner.uid) for f in found)

    async def test_what_was_made_is_observed_and_what_was_not_is_absent(
        self, tmp_path: Path
    ) -> None:
        """Every question has its own answer."""
        async with self.open(tmp_path) as (rig, adapter):
            for document in rig.documents:
                owner = _owner(document)
                made = (await _create(rig, adapter, document))[0].external
                other = External(made.role, f"{made.name}-x", f"{made.external_id}-x")
                seen = await adapter.observe_many([(owner, made), (owner, other)])
                assert isinstance(seen[made], Found)
                assert isinstance(seen[other], Absent)

    async def test_a_run_ends_and_says_so(self, tmp_path: Path) -> None:
        """What completes is seen to have succeeded."""
        async with self.open(tmp_path) as (rig, adapter):
            for document in (d for d in rig.documents if d.resource.kind in ("Job", "Sweep")):
                owner = _owner(document)
                run = (await _create(rig, adapter, document))[-1].external  # what it needs is first
                await rig.finish(run)
                async with asyncio.timeout(LIMIT):
                    while not await _succeeded(adapter, owner, run):
                        await asyncio.sleep(0.05)

    async def test_that_a_run_has_changed_is_told_to_whoever_listens(self, tmp_path: Path) -> None:
        """Where an adapter tells of changes. It asks for patience only while somebody listens."""
        async with self.open(tmp_path) as (rig, adapter):
            for document in (d for d in rig.documents if d.resource.kind == "Job"):
                if isinstance(adapter, TellsChanges):
                    await self._listen(rig, adapter, document)

    async def _listen(self, rig: Rig, adapter: Adapter, document: Document) -> None:
        assert isinstance(adapter, TellsChanges)
        owner = _owner(document)
        run = (await _create(rig, adapter, document))[-1].external
        unheard = (await adapter.observe_many([(owner, run)]))[run]
        assert isinstance(unheard, Found)
        assert unheard.look_again is None, "nobody listens, and it asks for patience"
        told, hint = set[Key](), asyncio.Event()

        async def listen() -> None:
            while True:
                told.update(await adapter.changed())
                hint.set()

        listening = asyncio.create_task(listen())
        try:
            async with asyncio.timeout(LIMIT):
                while (wait := await _patience(adapter, owner, run)) is None:
                    await asyncio.sleep(0.05)
                assert wait <= adapter.capabilities.resync_interval, "a lost hint costs too much"
                await rig.finish(run)
                ended = False
                while not ended:
                    await hint.wait()  # nobody asks before
                    hint.clear()
                    ended = await _succeeded(adapter, owner, run)
            assert told == {owner.key}
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def test_removing_leaves_nothing_and_removing_again_is_no_error(
        self, tmp_path: Path
    ) -> None:
        """Absent is success."""
        async with self.open(tmp_path) as (rig, adapter):
            for document in rig.documents:
                owner = _owner(document)
                made = await _create(rig, adapter, document)
                async with asyncio.timeout(LIMIT):
                    while await rig.count(owner) or await adapter.find(owner):
                        for found in reversed(made):  # asked again while it is there, as by passes
                            with suppress(WaitingError):  # something else must have gone before
                                await adapter.delete(owner, found.external)
                        await asyncio.sleep(0.05)
                for found in made:
                    await adapter.delete(owner, found.external)

    async def test_what_another_owner_holds_is_not_touched(self, tmp_path: Path) -> None:
        """The uid decides, not the name."""
        async with self.open(tmp_path) as (rig, adapter):
            for document in rig.documents:
                made = await _create(rig, adapter, document)
                stranger = _owner(document, uid="f" * 32)
                for found in made:
                    with suppress(AdapterError):
                        await adapter.delete(stranger, found.external)
                assert await adapter.find(stranger) == []
                assert await rig.count(_owner(document)) == len(made)

    async def test_a_question_that_fails_never_says_absent(self, tmp_path: Path) -> None:
        """Unknown is not absent: else everything would be made anew while the backend is away."""
        async with self.open(tmp_path) as (rig, adapter):
            document = rig.documents[0]
            made = (await _create(rig, adapter, document))[0].external
            owner = _owner(document)
            if not rig.break_off():
                return  # a backend on this very machine is never away
            with suppress(Exception):
                seen = await adapter.observe_many([(owner, made)])
                assert not isinstance(seen[made], Absent), "(unknown) said absent"
            found = None
            with suppress(Exception):
                found = await adapter.find(owner)
            assert found is None or found, "find said that there is nothing"

    async def test_every_error_has_a_class(self, tmp_path: Path) -> None:
        """Whatever the client library raises is one of the four."""
        async with self.open(tmp_path) as (_, adapter):
            for error in (OSError(5, "I/O"), TimeoutError(), ValueError("x"), KeyError("x")):
                assert adapter.classify(error) in CLASSES
            assert adapter.classify(TimeoutError()) is AmbiguousError


class MemoryRig(Rig):
    """The memory adapter under the contract, in one personality."""

    kind: type[MemoryAdapter] = MemoryAdapter

    def __init__(self, folder: Path, personality: Personality) -> None:
        self._backend = MemoryBackend(personality)
        context = AdapterContext("install", "default/memory", folder, ArtifactStore(folder / "a"))
        kind = self.kind.for_backend(self._backend)
        self.adapter = kind(context, kind.params_model())
        self.documents = (kept_file(), job())

    async def count(self, owner: Owner) -> int:
        return sum(h.owner_uid == owner.uid for h in self._backend.held.values())

    async def finish(self, external: External) -> None:
        self._backend.finish(external.name)

    def lose_reply(self) -> bool:
        self._backend.lose_reply("create")
        return True

    def break_off(self) -> bool:
        for operation in ("observe_many", "find"):
            self._backend.fail(operation, *[OSError("no route to host")] * 10)
        return True

    async def close(self) -> None:
        return None


def _owner(document: Document, uid: str = "") -> Owner:
    key = key_of(document.resource)
    return Owner("install", uid or digest_of(str(key))[-32:], key)


def _attempt(wanted: Wanted) -> Wanted:
    """As the kernel names it: a run's name ends in the number of the attempt."""
    return replace(wanted, name=f"{wanted.name}-a1") if wanted.completes else wanted


def _desired(rig: Rig, document: Document) -> Desired:
    return Desired(_owner(document), document.resource, document.files, rig.inputs)


async def _patience(adapter: Adapter, owner: Owner, run: External) -> timedelta | None:
    seen = (await adapter.observe_many([(owner, run)]))[run]
    assert isinstance(seen, Found)
    return seen.look_again


async def _succeeded(adapter: Adapter, owner: Owner, run: External) -> bool:
    seen = (await adapter.observe_many([(owner, run)]))[run]
    return isinstance(seen, Found) and seen.state is State.SUCCEEDED


async def _create(rig: Rig, adapter: Adapter, document: Document) -> list[Found]:
    """Everything that a document wants. What must be waited for first is asked for again."""
    made = []
    async with asyncio.timeout(LIMIT):
        for wanted in adapter.normalise(_desired(rig, document)):
            while True:
                try:
                    made.append(await adapter.apply(_owner(document), Create(_attempt(wanted))))
                    break
                except WaitingError:
                    await asyncio.sleep(0.05)
    return made
