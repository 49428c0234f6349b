"""What a set of specs would change: the values that ``windlass plan`` prints (hop 6, early).

Runs the daemon's own reconciler up to its plan, on a copy of the store that has taken over the
specs, with the real targets answering. So the plan shown is the plan that apply would make; nothing
is written, and no daemon need run.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from windlass.checks import adapter_check
from windlass.clock import utc_now
from windlass.metrics import Metrics
from windlass.plan import Delete, Plan, Situation, plan
from windlass.reading import Reading
from windlass.reconciler import Reconciler
from windlass.registry import Registry
from windlass.settings import Settings
from windlass.sources.namedfiles import hash_only
from windlass.sources.opening import open_source
from windlass.store.base import Object, Store
from windlass.store.moving import copy_to_file
from windlass.store.opening import address_of
from windlass.store.sqlite import DATABASE, SqliteStore
from windlass.targets import Targets
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import AdapterError, Create, Estimates
from windlass_schemas import Key, Target, dump_resource

Verb = Literal["create", "run", "update", "delete", "wait", "keep"]


@dataclass(frozen=True)
class Preview:
    """What would happen to one object."""

    key: Key
    verb: Verb
    target: str
    """Where: the Target's name."""
    details: tuple[str, ...] = ()
    """One line for each thing that would differ, for example ``/spec/model: a -> b``."""
    note: str = ""
    """Why, or what it waits for."""


async def preview(path: Path | None, *, worktree: bool, settings: Settings) -> Sequence[Preview]:
    """Compare the specs at ``path`` with what is recorded; without a path, what is declared now.

    Raises SourceUnavailableError and StoreError.
    """
    async with _copy_of_store(settings) as store:
        before = {object_.key: object_ for object_ in await store.list()}
        registry, metrics = Registry(), Metrics()
        if path is not None:
            check = adapter_check(registry)
            source = await open_source(path, worktree=worktree, keep=hash_only, check=check)
            await store.apply(await source.read(), utc_now())
        targets = Targets(
            store,
            registry,
            ArtifactStore(settings.artifacts or settings.state / "artifacts"),
            settings.state / "targets",
            {"port": settings.serving_port},
            metrics.reconcile.backend_calls,
        )
        reconciler = Reconciler(store, targets, metrics.reconcile)
        try:
            found = [await _look(reconciler, targets, object_) for object_ in await store.list()]
        finally:
            await targets.close()
    changing = {each.object.key for each in found if each.plan is None or each.plan.steps}
    return [_preview(each, before.get(each.object.key), changing) for each in _in_order(found)]


@dataclass(frozen=True)
class _Look:
    """One object with its plan; ``error`` when it could not be planned."""

    object: Object
    situation: Situation | None = None
    plan: Plan | None = None
    error: str = ""
    money: str = ""
    """What it would cost, or what would be left of it; empty for nothing."""


async def _look(reconciler: Reconciler, targets: Targets, object_: Object) -> _Look:
    try:
        situation = await reconciler.situations.of(object_, Reading(reconciler.store))
    except AdapterError as error:
        return _Look(object_, error=str(error))
    decided = plan(situation)
    return _Look(
        object_,
        situation,
        decided,
        money=await _money(targets, Reading(reconciler.store), decided, situation),
    )


async def _money(targets: Targets, reading: Reading, decided: Plan, situation: Situation) -> str:
    """In the words of the adapter, of what is going to change."""
    object_ = situation.object
    if not decided.steps and not decided.finalize:
        return ""
    try:
        adapter = (await targets.of(object_, reading)).adapter
    except AdapterError:
        return ""
    if not isinstance(adapter, Estimates):
        return ""
    if object_.deleting_since is None:
        return adapter.cost(situation.wanted)
    held = [record.wanted for record in object_.externals]
    policy = object_.resource.policy
    return adapter.remains(held, orphaned=policy.on_delete == "orphan" or policy.adopt)


def _in_order(found: Sequence[_Look]) -> Sequence[_Look]:
    """What is needed first comes first."""
    rank = {"Target": 0, "Sweep": 1, "Job": 2, "Model": 3, "Deployment": 4}
    return sorted(found, key=lambda look: (rank.get(look.object.key.kind, 9), look.object.key))


def _preview(look: _Look, before: Object | None, changing: set[Key]) -> Preview:
    object_ = look.object
    target = "" if isinstance(object_.resource, Target) else object_.resource.spec.target
    details = tuple(_differences(before, object_))
    if look.money:
        details = (*details, look.money)
    if look.plan is None or look.situation is None:
        return Preview(object_.key, "keep", target, details, look.error)
    verb: Verb = "keep"
    note = ""
    if look.plan.steps:
        step = look.plan.steps[0]
        verb, note = _verb(step.action, object_), step.message
        if look.plan.aside:
            verb, note = "keep", f"forgets run {step.intent.wanted.name}: {step.message}"
    elif look.plan.finalize:
        verb, note = "delete", "nothing of it is left"
    elif any(blocker.key in changing for blocker in look.situation.blockers):
        changing.add(object_.key)
        verb, note = "wait", look.plan.verdict.message
    elif look.plan.verdict.ready != "True":
        note = f"{look.plan.verdict.reason}: {look.plan.verdict.message}"
    if object_.prune == "blocked":
        note = "its document is gone with too many others; needs windlass approve"
    return Preview(object_.key, verb, target, details, note)


def _verb(action: object, object_: Object) -> Verb:
    if object_.deleting_since is not None or isinstance(action, Delete):
        return "delete"
    if isinstance(action, Create):
        return "run" if action.wanted.completes else "create"
    return "update"


def _differences(before: Object | None, after: Object) -> Iterator[str]:
    """``/spec/params/c: 1.0 -> 0.5`` for each field, and each named file that differs."""
    if before is None or after.deleting_since is not None or before.digest == after.digest:
        return
    old, new = (
        dict(_leaves(dump_resource(before.resource))),
        dict(_leaves(dump_resource(after.resource))),
    )
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) != new.get(path):
            yield f"{path}: {_shown(old, path)} -> {_shown(new, path)}"
    for path in sorted(before.files.keys() | after.files.keys()):
        was, now = before.files.get(path), after.files.get(path)
        if (was and was.digest) != (now and now.digest):
            yield f"{path}: " + ("removed" if now is None else "changed" if was else "added")


def _shown(leaves: Mapping[str, JsonValue], path: str) -> str:
    return repr(leaves[path]) if path in leaves else "(default)"


def _leaves(value: JsonValue, path: str = "") -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}/{name}")
    else:
        yield path, value


@asynccontextmanager
async def _copy_of_store(settings: Settings) -> AsyncIterator[Store]:
    address = address_of(settings)
    with tempfile.TemporaryDirectory(prefix="windlass-plan-") as folder:
        copy = Path(folder) / DATABASE
        if address is None:
            await asyncio.to_thread(_backup, settings.state / DATABASE, copy)
        else:
            await (await SqliteStore.open(copy)).close()
            await copy_to_file(address, copy)
        store = await SqliteStore.open(copy)
        try:
            yield store
        finally:
            await store.close()


def _backup(file: Path, copy: Path) -> None:
    """A consistent copy, also while a daemon writes; none of a store that is not there yet."""
    if not file.exists():
        return
    with (
        closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
