"""Daemons that share a PostgreSQL store, each in a process of its own, with a shelf for a backend.

``python -m rig.crew CONFIG`` is one of them: the real store, sources, controller and signals.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

from rig.postgres import Postgres
from rig.shelf import Shelf, ShelfAdapter
from windlass import log
from windlass.bus.local import LocalBus
from windlass.controller import Controller
from windlass.metrics import Metrics
from windlass.reconciler import Reconciler
from windlass.registry import Registry
from windlass.sources.opening import open_source
from windlass.store.address import Address
from windlass.store.postgres import PostgresStore
from windlass.store.roster import Member
from windlass.targets import Targets
from windlass_adapters.artifacts import ArtifactStore

PATIENCE = 120.0
LEASE = 2.0


@dataclass(frozen=True)
class Config:
    """One daemon."""

    name: str
    url: str
    folder: str
    """Of all daemons: specs, shelf, artifacts, and a folder for each."""
    latency: float = 0.02
    """Seconds for each call to the backend."""
    workers: int = 4
    lease: float = LEASE
    bound: bool = False
    """Whether what the target holds is on one host only."""


async def live(config: Config) -> None:
    """Run until TERM."""
    folder = Path(config.folder)
    state = folder / config.name
    state.mkdir(exist_ok=True)
    lease = timedelta(seconds=config.lease)
    member = Member(
        config.name, str(state), f"host-{config.name}", os.getpid(), "test", config.workers, lease
    )
    artifacts = ArtifactStore(folder / "artifacts")
    source = await open_source(folder / "specs", worktree=True, keep=artifacts.put_stream)
    store = await PostgresStore.open(Address.parse(config.url), member)
    adapter = ShelfAdapter.bound(
        folder / "shelf",
        config.name,
        config.latency,
        config.workers,
        "" if config.bound else None,
    )
    metrics = Metrics()
    targets = Targets(
        store,
        Registry({"local": adapter}),
        artifacts,
        state / "targets",
        {},
        metrics.reconcile.backend_calls,
    )
    reconciler = Reconciler(store, targets, metrics.reconcile)
    controller = Controller(reconciler, targets, [source], LocalBus(), metrics)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        await controller.run(stop, config.workers, 30)
    finally:
        await targets.close()
        await store.close()


@dataclass
class Hand:
    """One daemon's process."""

    config: Config
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """As the system kills it when memory is short."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def freeze(self) -> None:
        """As a laptop's lid does."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on, as if nothing had been."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """TERM, and its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """Stop it, whatever it does."""
        if self.process.poll() is None:
            self.thaw()
            self.kill()


@dataclass
class Crew:
    """The daemons, their database and their backend."""

    server: Postgres
    folder: Path
    url: str = ""
    hands: list[Hand] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.url = self.url or self.server.database()
        (self.folder / "specs").mkdir()
        (self.folder / "shelf").mkdir()
        (self.folder / "specs" / "model.onnx").write_bytes(b"v1")

    @property
    def shelf(self) -> Shelf:
        return Shelf(self.folder / "shelf")

    @property
    def database(self) -> str:
        """Its name on the server."""
        return self.url.rpartition("/")[2]

    def declare(self, count: int, *, deployments: bool = True) -> None:
        """Save that many Models, each with a Deployment."""
        documents: list[str] = []
        for i in range(count):
            source = "source: {file: model.onnx}\n  format: onnx"
            documents.append(_document("Model", f"m{i}", source))
            if deployments:
                documents.append(_document("Deployment", f"m{i}", f"model: m{i}"))
        text = "---\n".join(documents)
        draft = self.folder / "draft"
        draft.write_text(text)
        draft.replace(self.folder / "specs" / "all.yaml")

    def start(self, name: str, url: str = "", **more: float | bool) -> Hand:
        """Start a daemon."""
        config = Config(name, url or self.url, str(self.folder), **more)  # type: ignore[arg-type]  # its fields
        with (self.folder / f"{name}.log").open("ab") as log_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "rig.crew", json.dumps(asdict(config))],
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                stdout=log_file,
                stderr=log_file,
            )
        self.hands.append(Hand(config, process))
        return self.hands[-1]

    def ask(self, query: str) -> list[str]:
        """Rows of the database, as psql prints them."""
        return self.server.execute(f"SET search_path = windlass; {query}", self.database).split()

    def ready(self) -> int:
        """How many objects are Ready at their newest generation."""
        return int(
            self.ask(
                "SELECT count(*) FROM desired d JOIN object o USING (uid),"
                " jsonb_path_query(o.status::jsonb, '$.conditions[*]"
                ' ? (@.type == "Ready" && @.status == "True")\') c'
                " WHERE (c ->> 'observedGeneration')::int = d.generation"
            )[0]
        )

    def until(self, true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Look until it is so."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"not within {seconds:g} s: {what}\n{self.logs()}"
            time.sleep(0.05)

    def logs(self) -> str:
        """The end of what each daemon has said."""
        return "\n".join(
            f"{file.name}: {file.read_text()[-3000:]}" for file in self.folder.glob("*.log")
        )

    def joined(self, *names: str) -> None:
        """Wait until these are at work: each has said a word after it has joined."""
        self.until(self._exists, "the schema is there")
        for hand in self.hands:
            if hand.config.name in names:
                spoken = (
                    f"SELECT 1 FROM daemon WHERE name = '{hand.config.name}' AND until > now()"
                    f" AND pid = {hand.process.pid}"
                    f" AND until - started_at > interval '{hand.config.lease} s'"
                )
                self.until(lambda query=spoken: self.ask(query) == ["1"], f"{names} are there")  # type: ignore[misc]  # bound at once

    def settled(self, count: int, seconds: float = PATIENCE) -> None:
        """Wait until that many are Ready."""
        self.until(self._exists, "the schema is there")
        self.until(lambda: self.ready() == count, f"{count} Ready", seconds)

    def _exists(self) -> bool:
        found = self.server.execute(
            "SELECT to_regclass('windlass.agenda') IS NOT NULL", self.database
        )
        return found.strip() == "t"

    def faults(self) -> list[str]:
        """What is wrong with the books or the backend; nothing, if all is well."""
        twice = [f"{what} {n} times" for what, n in self.shelf.counts().items() if n > 1]
        gaps = self.ask(
            "SELECT uid FROM outbox GROUP BY uid HAVING count(*) <> max(seq) OR min(seq) <> 1"
        )
        behind = self.ask(
            "SELECT uid FROM object o WHERE seq <>"
            " (SELECT count(*) FROM outbox e WHERE e.uid = o.uid)"
        )
        return [*twice, *(f"events of {uid} have gaps" for uid in [*gaps, *behind])]


def _document(kind: str, name: str, spec: str) -> str:
    return f"apiVersion: windlass/v1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n  {spec}\n"


@contextmanager
def crew(server: Postgres, folder: Path) -> Iterator[Crew]:
    """A crew whose processes are gone afterwards."""
    made = Crew(server, folder)
    try:
        yield made
    finally:
        for hand in made.hands:
            hand.close()


if __name__ == "__main__":
    log.configure(sys.stderr, json=True)
    asyncio.run(live(Config(**json.loads(sys.argv[1]))))
