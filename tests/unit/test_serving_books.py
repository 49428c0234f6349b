"""What workers have counted is kept once, wherever their supervisor is killed."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from windlass.serving.fleet.books import Books
from windlass.serving.fleet.fleet import Fleet
from windlass.serving.fleet.words import LAST_WORDS, SNAPSHOT, Report
from windlass.serving.fleet.worker import STARTED
from windlass.serving.fleet.yard import Start, Yard
from windlass.serving.numbers import Requests
from windlass.serving.process import Folder
from windlass.serving.snapshot import DeploymentNumbers, Snapshot, VersionNumbers


class Killed(BaseException):
    """The supervisor goes no further."""


def used(count: int) -> Snapshot:
    """So many answers of the Deployment ``m``."""
    return Snapshot(usage={"m": {"": [count, 0]}})


class Place:
    """The folder of a Target, and what lies in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open = ExitStack()

    def kept(self, total: int, closed: str = "", **workers: int) -> None:
        """What the supervisor before has written."""
        entries = [{"deployment": "m", "key": "", "ok": total, "refused": 0}]
        parts = {name.strip("_"): used(count).usage for name, count in workers.items()}
        text = json.dumps({"usage": entries, "workers": parts, "closed": closed})
        (self.path / "usage.json").write_text(text)

    def worker(self, name: str, said: int | None = None) -> Path:
        """The folder of a worker that has ended, with its last words if it said them."""
        folder = self.path / "workers" / name
        folder.mkdir(parents=True)
        if said is not None:
            (folder / LAST_WORDS).write_bytes(SNAPSHOT.dump_json(used(said)))
        return folder

    def living(self, name: str) -> subprocess.Popen[bytes]:
        """A worker that lives: a process, and the lock on its folder."""
        folder = self.worker(name)
        process = subprocess.Popen(["sleep", "600"])
        self._open.callback(process.wait)
        self._open.callback(process.kill)
        Folder(folder).hold()
        (folder / "serving.json").write_text(json.dumps({"pid": process.pid}))
        (folder / STARTED).write_text(json.dumps(["v"]))
        return process

    def fleet(self) -> tuple[Fleet, Yard]:
        """A supervisor's, just started."""
        yard = Yard(self.path / "workers", Start((), "v", ()), most=2, hung=10.0)
        return Fleet(self.path, yard), yard

    def total(self) -> int:
        """What a supervisor that starts now knows and has written."""
        self.fleet()
        (entry,) = json.loads((self.path / "usage.json").read_text())["usage"]
        return int(entry["ok"])

    def end(self) -> None:
        self._open.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.end()


def test_a_worker_without_a_folder_counts_with_what_was_kept(place: Place) -> None:
    place.kept(30, _1=10, _2=15)
    assert [place.total(), place.total()] == [30, 30]


def test_last_words_say_more_than_what_was_kept(place: Place) -> None:
    place.kept(30, _1=10)
    place.worker("1", said=12)
    assert [place.total(), place.total()] == [32, 32]


def test_a_worker_that_said_nothing_counts_with_what_was_kept(place: Place) -> None:
    place.kept(30, _1=10)
    place.worker("1")
    assert [place.total(), place.total()] == [30, 30]


def test_one_that_began_and_ended_between_two_writes_is_counted(place: Place) -> None:
    place.kept(30)
    place.worker("1", said=12)
    assert [place.total(), place.total()] == [42, 42]


def test_one_that_was_closed_and_still_has_its_folder_is_not_counted_twice(place: Place) -> None:
    place.kept(30, closed="1")
    folder = place.worker("1", said=12)
    assert [place.total(), place.total()] == [30, 30]
    assert not folder.exists()
    place.worker("1", said=5)  # a name is given anew when there are no folders
    assert place.total() == 35


def test_the_living_count_with_what_was_kept_until_they_report(place: Place) -> None:
    place.kept(30, _1=10)
    place.living("1")
    assert [place.total(), place.total()] == [30, 30]
    fleet, yard = place.fleet()
    yard.workers[0].report = Report(open=True, numbers=used(14))
    fleet.write()
    assert place.total() == 34


@pytest.mark.parametrize("cut", ["close", "write", "remove", "never"])
@pytest.mark.parametrize("reported", [True, False])
def test_a_supervisor_that_is_killed_at_a_burial_counts_nothing_twice_and_all_of_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, cut: str, reported: bool
) -> None:
    place.kept(30, _1=10, _2=5)
    processes = [place.living(name) for name in ("1", "2")]
    fleet, yard = place.fleet()
    if reported:
        for worker, count in zip(yard.workers, (14, 7), strict=True):
            worker.report = Report(open=True, numbers=used(count))
        fleet.write()
    for process, name in zip(processes, ("1", "2"), strict=True):
        words = SNAPSHOT.dump_json(used({"1": 16, "2": 8}[name]))
        (place.path / "workers" / name / LAST_WORDS).write_bytes(words)
        process.kill()
        process.wait()

    def killed(*arguments: object, **named: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if cut == "close":
            patch.setattr(Books, "close", killed)
        elif cut == "write":
            patch.setattr(Path, "replace", killed)
        elif cut == "remove":
            patch.setattr(shutil, "rmtree", killed)
        if cut == "never":
            asyncio.run(fleet.stop())
        else:
            with pytest.raises(Killed):
                asyncio.run(fleet.stop())
    place.end()
    for folder in (place.path / "workers").iterdir():
        (folder / "serving.lock").unlink()  # held by this process and not by the one that ended
    assert [place.total(), place.total()] == [15 + 16 + 8, 15 + 16 + 8]
    assert not list((place.path / "workers").iterdir())


def test_a_name_that_is_given_anew_is_another_worker(place: Place) -> None:
    place.kept(30, _1=10)
    books = Books(place.path / "usage.json")
    books.close_others(())
    assert books.whole({"1": used(3)}).usage == used(33).usage


def test_a_burial_that_is_cut_off_leaves_no_folder_behind(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the last that was closed is known by name."""
    place.living("1").kill()
    fleet, yard = place.fleet()

    async def cut_off(self: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(httpx.AsyncClient, "aclose", cut_off)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(yard.stop(fleet._close))
    assert not list((place.path / "workers").iterdir())


def test_books_that_cannot_be_written_cost_what_came_since_the_last_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.kept(30, _1=10)
    books = Books(place.path / "usage.json")
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "write_text", lambda *a, **n: (_ for _ in ()).throw(OSError(28, "full"))
        )
        books.close("1", used(12))
        books.write({})
    assert place.total() == 30


def test_a_file_that_contradicts_itself_begins_anew(place: Place) -> None:
    place.kept(30)
    text = json.loads((place.path / "usage.json").read_text())
    text["workers"] = {"1": {"other": {"": [1, 0]}}}
    (place.path / "usage.json").write_text(json.dumps(text))
    assert Books(place.path / "usage.json").whole({}).usage == {}


def test_counters_of_workers_that_are_gone_stay_while_nobody_has_reported(tmp_path: Path) -> None:
    books = Books(tmp_path / "usage.json")
    versions = {"v1": VersionNumbers(executions=3), "v2": VersionNumbers(executions=4)}
    last = Snapshot(deployments={"m": DeploymentNumbers(Requests({200: 7}), versions)})
    books.close("1", last)
    books.keep({"m": {"v1"}})
    found = books.whole({}).deployments["m"]
    assert found.requests.total == 7
    assert {name: each.executions for name, each in found.versions.items()} == {"v1": 3}
    books.keep({"other": {"v1"}})
    assert books.whole({}).deployments == {}


def test_a_worker_does_not_make_a_folder_that_was_taken_away(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot write in"):
        Folder(tmp_path / "gone").hold(make=False)
    assert not (tmp_path / "gone").exists()
