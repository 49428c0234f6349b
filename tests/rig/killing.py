"""A user's project whose daemon is killed with ``kill -9`` again and again, and what must hold.

Black box: git, the console script, HTTP and, at the end, the books that the daemon has kept. The
scripts write a line into a ledger when they start, which nobody of ours can take back.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from rig.project import Daemon, Hammer, Project
from windlass_schemas import CloudEvent

INPUT = 3.0
BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [INPUT]}]},
)
_LEDGER = 'import os\nopen({path!r}, "a").write(os.environ["WINDLASS_RUN"] + "\\n")\n'
_PATIENCE = 60.0


class Story:
    """Edits, reverts, deletions and additions, with a daemon that dies at random moments.

    ``stub`` is served all the time; ``extra`` comes and goes as a whole.
    """

    def __init__(self, project: Project, seed: int) -> None:
        self.project = project
        self.rounds = 0
        self.moves: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._ledger = project.repository.parent / "ledger"
        self._ledger.touch()
        self._factors = [2.0]
        self._extra = (project.repository / "stub.yaml").read_text()
        self._extra = self._extra.replace("name: stub", "name: extra").replace("train\n", "more\n")
        self._extra = self._extra.replace("model: stub", "model: extra").replace("2.0", "7.0")
        script = project.repository / "train.py"
        head, mark, rest = script.read_text().partition("import argparse\n")
        script.write_text(head + mark + _LEDGER.format(path=str(self._ledger)) + rest)
        project.commit("Keep a ledger")

    @property
    def factor(self) -> float:
        """What the served model multiplies by, once everything is as declared."""
        return self._factors[-1]

    def declared(self) -> list[str]:
        """What is declared now."""
        names = ["Job/train", "Model/stub", "Deployment/stub"]
        return names + ["Job/more", "Model/extra", "Deployment/extra"] * self._extra_file.exists()

    @property
    def _extra_file(self) -> Path:
        return self.project.repository / "extra.yaml"

    def begin(self) -> None:
        """The first daemon, until the model is served; then it dies too."""
        daemon = self.project.up()
        self.settle()
        daemon.kill()

    def round(self) -> None:
        """A daemon starts, somebody commits something, the daemon is killed at a random moment."""
        self.rounds += 1
        first = self._random.random() < 0.3
        if first:
            self.move()
        daemon = self.project.up()
        lives = self._random.uniform(0.05, 1.8)
        end = time.monotonic() + lives
        if not first:
            time.sleep(self._random.uniform(0.0, lives))  # the moment is what is random here
            self.move()
        time.sleep(max(0.0, end - time.monotonic()))
        daemon.kill()

    def move(self) -> None:
        """Commit one change, of a random sort."""
        sort = self._random.choice(("edit", "edit", "revert", "extra", "script", "nothing"))
        self.moves[sort] += 1
        match sort:
            case "edit":
                self._set_factor(max(self._factors) + 1.0)
            case "revert":
                self._set_factor(self._random.choice(self._factors))
            case "extra" if self._extra_file.exists():
                self._extra_file.unlink()
            case "extra":
                self._extra_file.write_text(self._extra)
            case "script":
                with (self.project.repository / "train.py").open("a") as script:
                    script.write(f"# {self.rounds}\n")
            case _:
                return
        if self.project.git("status", "--porcelain"):
            self.project.commit(f"Round {self.rounds}: {sort}")

    def _set_factor(self, factor: float) -> None:
        self.project.edit("stub.yaml", f"factor: {self.factor}", f"factor: {factor}")
        self._factors.append(factor)

    def settle(self) -> None:
        """Wait until everything is as declared, and the answer is the right one."""
        head = self.project.git("rev-parse", "HEAD")
        self.project.until(lambda: self._seen(head), "HEAD is taken over", _PATIENCE)
        for name in self.declared():
            self.project.until(lambda n=name: self.project.ready(n), f"{name} Ready", _PATIENCE)  # type: ignore[misc]
        self.project.until(lambda: self._names() == sorted(self.declared()), "the rest is gone")
        answer = {"y": (self.factor * INPUT,)}
        assert self.project.infer("stub", BODY) == answer, (
            answer,
            self.project.infer("stub", BODY),
        )

    def _seen(self, head: str) -> bool:
        sources = self.project.ask("/api/v1/sources")
        return head in json.dumps(sources)

    def _names(self) -> list[str]:
        shown = self.project.ask("/api/v1/objects")
        items = shown["objects"] if isinstance(shown, dict) else []
        assert isinstance(items, list)
        return sorted(f"{each['kind']}/{each['name']}" for each in items if isinstance(each, dict))

    def starts(self) -> Counter[str]:
        """How often the script was started, by run folder."""
        return Counter(self._ledger.read_text().splitlines())

    def quiet(self, seconds: float) -> None:
        """For that long, nothing is written and nothing is started."""
        before = (self.books().counts(), self.starts())
        time.sleep(seconds)
        assert (self.books().counts(), self.starts()) == before

    def books(self) -> Books:
        """What the daemon has written down."""
        return Books(self.project.state / "windlass.db")


class Books:
    """The daemon's database, read as it is on disk."""

    def __init__(self, file: Path) -> None:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            self.events = [
                (uid, seq, CloudEvent.model_validate_json(event))
                for uid, seq, event in database.execute(
                    "SELECT uid, seq, event FROM outbox ORDER BY position"
                )
            ]
            self.history = database.execute("SELECT key, entry FROM history").fetchall()
            self.objects = dict(
                database.execute("SELECT d.uid, o.seq FROM desired d JOIN object o USING (uid)")
            )
            self.damage = database.execute("PRAGMA integrity_check").fetchone()[0]

    def counts(self) -> tuple[int, int]:
        """How much has been written."""
        return len(self.events), len(self.history)

    def faults(self) -> Iterator[str]:
        """What is wrong with the books; nothing, if all is well."""
        if self.damage != "ok":
            yield f"the database is damaged: {self.damage}"
        last: dict[str, int] = {}
        truth: dict[tuple[str, str], str] = {}
        gone: set[str] = set()
        for uid, seq, event in self.events:
            data = event.data
            if seq != last.get(uid, 0) + 1 or data.seq != seq:
                yield f"{event.subject}: event {seq} follows {last.get(uid, 0)}"
            if uid in gone:
                yield f"{event.subject}: event {seq} comes after its deletion"
            before = truth.get((uid, data.condition))
            if before is not None and before != data.from_status:
                found = f"from {data.from_status}, was {before}"
                yield f"{event.subject}: {data.condition} goes {found}"
            last[uid], truth[uid, data.condition] = seq, data.to_status
            gone |= {uid} if data.condition == "Deleted" else set()
        for uid, seq in self.objects.items():
            if last.get(uid, 0) != seq:
                yield f"{uid} has seq {seq} and its last event {last.get(uid, 0)}"
        for uid in last.keys() - self.objects.keys() - gone:
            yield f"{uid} is gone and said no farewell"


def kill_rounds(project: Project, rounds: int, seed: int, idle: float) -> Story:
    """Play the story and check every oracle. Raises AssertionError."""
    story = Story(project, seed)
    story.begin()
    serving = serving_pid(project)
    with Hammer(project, "stub", BODY, "y", pause=0.02) as hammer:
        for _ in range(rounds):
            story.round()
            if story.rounds % 25 == 0:
                check(story)
        last = project.up()
        story.settle()
        story.quiet(idle)
    assert serving_pid(project) == serving, "the serving process was replaced"
    assert hammer.failures == [], f"{len(hammer.failures)} of {hammer.requests} requests failed"
    assert last.interrupt() == 0
    faults = [*story.books().faults(), *double_starts(story)]
    assert faults == []
    return story


def check(story: Story) -> None:
    """A daemon that is left alone brings everything to where it is declared, and dies again."""
    daemon: Daemon = story.project.up()
    story.settle()
    daemon.kill()
    faults = [*story.books().faults(), *double_starts(story)]
    assert faults == []


def double_starts(story: Story) -> list[str]:
    """Runs that were started more than once."""
    return [f"{run} was started {n} times" for run, n in story.starts().items() if n > 1]


def serving_pid(project: Project) -> list[int]:
    """The serving process."""
    return [
        pid
        for pid in project.processes()
        if b"windlass.serving" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
