"""A kernel in a process of its own that exits, as if killed, at a named point.

``python -m rig.dying STATE SPECS PORT POINT`` takes over the specs and runs passes with the real
store and the real local adapter until everything is as declared. With ``list`` for a point it
prints each point that it comes by; with one of those, for example ``apply>#2``, it ends there with
exit code 137. ``NAME<`` is before a call, ``NAME>`` after it, ``#2`` the second time.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from windlass import log
from windlass.bus.local import LocalBus
from windlass.controller import Controller
from windlass.metrics import Metrics
from windlass.reconciler import Reconciler
from windlass.registry import Registry
from windlass.sources.base import Source
from windlass.sources.opening import open_source
from windlass.store.base import Store
from windlass.store.database import Database
from windlass.store.sqlite import DATABASE, SqliteStore
from windlass.targets import OpenTarget, Targets
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.local import modelfolders, processes, runs, starting
from windlass_adapters.local.admin import Admin
from windlass_adapters.local.modelfolders import ModelFolders
from windlass_adapters.local.runfolder import RunFolders
from windlass_adapters.local.runs import Runs
from windlass_adapters.local.servers import Server
from windlass_adapters.local.starting import Starter
from windlass_schemas import key_of

KILLED = 137
LIST = "list"
PATIENCE = 60.0

Place = tuple[type[object] | ModuleType, str]

PLACES: tuple[Place, ...] = (
    (SqliteStore, "apply"),
    (SqliteStore, "claim"),
    (SqliteStore, "intend"),
    (SqliteStore, "commit"),
    (Database, "_commit"),
    (OpenTarget, "observe"),
    (OpenTarget, "find"),
    (OpenTarget, "apply"),
    (OpenTarget, "delete"),
    (Runs, "begin"),
    (RunFolders, "make"),
    (RunFolders, "_fill"),
    (RunFolders, "prepare"),
    (Starter, "start"),
    (Starter, "_runner"),
    (starting, "_send"),
    (runs, "claim"),
    (Runs, "_remove"),
    (ModelFolders, "_prepare"),
    (modelfolders, "save"),
    (Server, "start"),
    (Admin, "put"),
    (Admin, "delete"),
)
"""What is worth dying at. The functions are the real ones; only the way in and out is watched."""
STATEMENTS = ("insert_history", "put_external", "insert_event", "put_object", "delete_desired")
"""Statements inside transactions."""


class Death:
    """Counts the points that are reached, and ends the process at one of them."""

    def __init__(self, point: str) -> None:
        self._point = point
        self._reached: Counter[str] = Counter()

    def reach(self, name: str) -> None:
        """Come by a point."""
        self._reached[name] += 1
        here = f"{name}#{self._reached[name]}"
        if self._point == LIST:
            sys.stdout.write(f"{here}\n")
        elif self._point == here:
            os._exit(KILLED)

    def watch(self, place: Place) -> None:
        """Let the way in and out of a function be points."""
        owner, attribute = place
        function: Callable[..., Any] = getattr(owner, attribute)
        name = f"{owner.__name__.rpartition('.')[2]}.{attribute.strip('_')}"

        @functools.wraps(function)
        async def awaited(*arguments: Any, **named: Any) -> object:
            self.reach(f"{name}<")
            result = await function(*arguments, **named)
            self.reach(f"{name}>")
            return result

        @functools.wraps(function)
        def called(*arguments: Any, **named: Any) -> object:
            self.reach(f"{name}<")
            result = function(*arguments, **named)
            self.reach(f"{name}>")
            return result

        setattr(owner, attribute, awaited if inspect.iscoroutinefunction(function) else called)

    def watch_statements(self) -> None:
        """Let the statements of a transaction be points."""
        one = Database.one

        def stated(database: Database, statement: str, /, **values: Any) -> object:
            if statement in STATEMENTS:
                self.reach(f"{statement}<")
            return one(database, statement, **values)

        setattr(Database, "one", stated)  # noqa: B010 - a method is replaced on purpose

    def watch_launches(self) -> None:
        """Let the moment be a point when a process is started and has not said a word."""
        run = subprocess.run

        def running(command: list[str], **named: Any) -> object:
            name = f"launched {command[3].rpartition('.')[2]}"
            if self._point == LIST:
                self.reach(name)
            elif self._point.startswith(f"{name}#"):
                named.pop("timeout")
                named.pop("check")
                subprocess.Popen(command, **named)
                self.reach(name)
            return run(command, **named)

        processes.subprocess.run = running  # type: ignore[attr-defined]


async def settle(store: Store, source: Source) -> None:
    """Wait until everything that is declared is Ready, and nothing else is there."""
    wanted = {key_of(each.resource): each.digest for each in (await source.read()).documents}
    while True:
        found = await store.list()
        ready = all(each.status.is_true("Ready", each.generation) for each in found)
        if ready and {each.key: each.digest for each in found} == wanted:
            return
        await asyncio.sleep(0.02)


async def live(state: Path, specs: Path, port: int) -> None:
    """Run until everything is as declared."""
    metrics = Metrics()
    artifacts = ArtifactStore(state / "artifacts")
    source = await open_source(specs, worktree=True, keep=artifacts.put_stream)
    store = await SqliteStore.open(state / DATABASE)
    calls = metrics.reconcile.backend_calls
    targets = Targets(store, Registry(), artifacts, state / "targets", {"port": port}, calls)
    reconciler = Reconciler(store, targets, metrics.reconcile)
    controller = Controller(reconciler, targets, [source], LocalBus(), metrics)
    stop = asyncio.Event()
    try:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            group.create_task(controller.run(stop, 4, 5))
            await settle(store, source)
            stop.set()
    finally:
        await targets.close()
        await store.close()


def main() -> None:
    """Live, and die where told."""
    state, specs, port, point = sys.argv[1:]
    log.configure(sys.stderr, json=True)
    death = Death(point)
    for place in PLACES:
        death.watch(place)
    death.watch_statements()
    death.watch_launches()
    asyncio.run(live(Path(state), Path(specs), int(port)))


if __name__ == "__main__":
    main()
