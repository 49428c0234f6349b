"""The processes that start runs here: whatever dies, a run begins once, and nobody is left."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.local import LocalTarget, gone, lives, look, settled, start, until
from windlass_adapters.base import (
    Absent,
    AmbiguousError,
    Create,
    Found,
    Owner,
    State,
    TransientError,
)
from windlass_adapters.local import LocalAdapter, starting
from windlass_adapters.local.runs import Begun, Runs
from windlass_schemas import Reason


@pytest.fixture
def target(tmp_path: Path) -> LocalTarget:
    return LocalTarget(tmp_path, {"grace": "300ms"})


@pytest.fixture
async def adapter(target: LocalTarget) -> AsyncIterator[LocalAdapter]:
    async with target.adapter() as adapter:
        yield adapter


def nurseries(target: LocalTarget) -> list[int]:
    """The nursery and its runners, known by the target's folder on their command line."""
    return sorted(_named(str(target.state)))


def _named(folder: str) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and lives(int(entry.name)):
            try:
                words = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if folder in words and any(word.endswith("nursery") for word in words):
                yield int(entry.name)


def nursery_of(target: LocalTarget) -> int:
    """The one that forks the others: the leader of the session that the daemon made for it."""
    (found,) = (pid for pid in nurseries(target) if parent_of(pid) == os.getpid())
    return found


def parent_of(pid: int) -> int:
    """0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def ready(target: LocalTarget) -> list[int]:
    """The runners that the nursery of now has forked, and their guards have not seen end."""
    nursery = nursery_of(target)
    guards = {pid for pid in nurseries(target) if parent_of(pid) == nursery}
    return [pid for pid in nurseries(target) if parent_of(pid) in guards]


async def run(target: LocalTarget, adapter: LocalAdapter, uid: str) -> Found:
    """One run to its end; it says how often it was begun."""
    desired = target.script("open('../started', 'a').write('x')", uid=uid)
    found = await start(adapter, desired)
    ended = await settled(adapter, desired.owner, found.external)
    folder = target.state / "runs" / found.external.name
    assert (folder / "started").read_text() == "x"
    assert ended.state is State.SUCCEEDED, ended.message
    return ended


async def test_a_killed_nursery_is_replaced_and_the_next_run_begins(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Those that it had ready are still of use; then there is a new one."""
    await run(target, adapter, "a000000000000000")
    first = nursery_of(target)
    os.kill(first, signal.SIGKILL)
    await until(lambda: not lives(first), "the end of the nursery")
    for number in range(5):
        await run(target, adapter, f"b{number}00000000000000")
    assert nursery_of(target) != first


async def test_killed_runners_that_were_ready_cost_no_run(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """An order that nobody answers goes to the next; when all were killed, somebody else looks."""
    await run(target, adapter, "a000000000000000")
    await until(lambda: len(ready(target)) == 2, "two are ready")
    killed = ready(target)[0]
    os.kill(killed, signal.SIGKILL)
    await until(lambda: not lives(killed), "its end")
    await run(target, adapter, "b000000000000000")
    await until(lambda: len(ready(target)) == 2, "two are ready again")
    for pid in ready(target):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: nurseries(target) == [nursery_of(target)], "their end, and their guards'")
    desired = target.script("pass", uid="c000000000000000")
    with pytest.raises(AmbiguousError, match="two runners were killed"):
        await start(adapter, desired)
    found = await start(adapter, desired)
    assert (await settled(adapter, desired.owner, found.external)).state is State.SUCCEEDED


async def test_a_killed_runner_takes_its_program_along_with_nobody_looking(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Its guard stops what it started, also what has left its group and session."""
    desired = target.script(
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "open('../pids', 'w').write(f'{os.getpid()} {child.pid} ')\n"
        "time.sleep(60)\n"
    )
    found = await start(adapter, desired)
    folder = target.state / "runs" / found.external.name
    await until(lambda: (folder / "pids").exists(), "it runs")
    await until(lambda: (folder / "pids").read_text().endswith(" "), "it says what it started")
    os.kill(json.loads((folder / "claim.json").read_text())["pid"], signal.SIGKILL)
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    await until(lambda: not [pid for pid in pids if lives(pid)], "the end of both")


async def test_a_nursery_that_cannot_start_is_tried_again_and_says_where_it_told_why(
    target: LocalTarget, adapter: LocalAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example an installation that somebody has broken."""
    monkeypatch.setattr(starting, "NURSERY_MODULE", "windlass_adapters.local.not_there")
    with pytest.raises(TransientError, match=r"nursery\.log"):
        await start(adapter, target.script("pass"))
    assert "not_there" in (target.state / "nursery.log").read_text()


async def test_many_runs_at_once_each_begin_once(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """More than are ready: the others wait for theirs."""
    said = [
        target.script("open('../started', 'a').write('x')", uid=f"{n:08x}00000000")
        for n in range(12)
    ]
    founds = [await start(adapter, each) for each in said]
    for desired, found in zip(said, founds, strict=True):
        await settled(adapter, desired.owner, found.external)
        assert (target.state / "runs" / found.external.name / "started").read_text() == "x"
    await until(lambda: len(ready(target)) == 2, "as many are ready as before")


async def test_runs_that_are_started_together_do_not_wait_for_each_other(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Who waits for a runner keeps nobody from asking for one."""
    said = [target.script("pass", uid=f"{n:08x}00000000") for n in range(8)]
    founds = await asyncio.gather(*(start(adapter, each) for each in said))
    for desired, found in zip(said, founds, strict=True):
        ended = await settled(adapter, desired.owner, found.external)
        assert ended.state is State.SUCCEEDED, ended.message


def beside(target: LocalTarget) -> list[str]:
    """What was made ready for runs to come: folders that are no run's yet, and claims."""
    return sorted(path.name.rpartition("-")[0] for path in target.state.glob(".*-*"))


async def test_what_was_made_ready_is_used_and_goes_with_the_daemon(target: LocalTarget) -> None:
    """After a run there is a folder for the next one; nothing is left when the daemon stops."""
    async with target.adapter() as adapter:
        await run(target, adapter, "a000000000000000")
        await until(lambda: beside(target) == [".rehearsal", ".rehearsal", ".staging"], "all ready")
        (folder,) = target.state.glob(".staging-*")
        inode = folder.stat().st_ino
        second = await run(target, adapter, "b000000000000000")
        assert (target.state / "runs" / second.external.name).stat().st_ino == inode
    await until(lambda: not beside(target), "nothing is ready any more")


async def command(target: LocalTarget, adapter: LocalAdapter, uid: str) -> None:
    """The same as ``run``, of a Job without files."""
    spec: dict[str, JsonValue] = {"command": ["sh", "-c", "printf x >> ../started"]}
    desired = target.desired("Job", "train", spec, uid=uid)
    found = await start(adapter, desired)
    ended = await settled(adapter, desired.owner, found.external)
    assert ended.state is State.SUCCEEDED, ended.message
    assert (target.state / "runs" / found.external.name / "started").read_text() == "x"


async def test_a_run_for_which_all_is_ready_begins_without_a_thread(
    target: LocalTarget, adapter: LocalAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its answer is waited for in one. What brings files is started in one as a whole."""
    begun: list[bool] = []
    create = Runs.create

    def noted(self: Runs, owner: Owner, action: Create, before: Begun | None = None) -> Found:
        begun.append(before is not None)
        return create(self, owner, action, before)

    monkeypatch.setattr(Runs, "create", noted)
    await command(target, adapter, "a000000000000000")
    await until(lambda: len(beside(target)) == 3, "all ready")
    await command(target, adapter, "b000000000000000")
    await until(lambda: len(beside(target)) == 3, "all ready")
    await run(target, adapter, "c000000000000000")
    assert begun == [False, True, False]


async def test_killed_runners_cost_no_run_that_begins_without_a_thread(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """The order goes to the next one, and if that is dead as well, somebody looks first."""
    await command(target, adapter, "a000000000000000")
    for number, many in enumerate((1, 2)):
        await until(lambda: len(ready(target)) == 2, "two are ready")
        killed = ready(target)[:many]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        await until(lambda pids=killed: not any(map(lives, pids)), "their end")  # type: ignore[misc]
        await command(target, adapter, f"b{number}00000000000000")


async def test_what_was_made_ready_and_is_gone_costs_no_run(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Somebody has tidied up: folder and claim are made when they are needed."""
    await run(target, adapter, "a000000000000000")
    await until(lambda: beside(target) == [".rehearsal", ".rehearsal", ".staging"], "all ready")
    for path in target.state.glob(".*-*"):
        shutil.rmtree(path)
    for number in range(2):
        await run(target, adapter, f"b{number}00000000000000")


async def test_a_program_is_found_by_the_path_that_its_job_declares(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """In the order of its folders; what may not be run does not hide what may."""
    for name, mode in (("first", 0o644), ("second", 0o755)):
        program = target.root / name / "greet"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho {name} in $(pwd)\n")
        program.chmod(mode)
    path = f"{target.root / 'none'}:{target.root / 'first'}:{target.root / 'second'}:/usr/bin:/bin"
    desired = target.desired("Job", "greet", {"command": ["greet"], "env": {"PATH": path}})
    found = await start(adapter, desired)
    ended = await settled(adapter, desired.owner, found.external)
    assert ended.state is State.SUCCEEDED, ended.message
    folder = target.state / "runs" / found.external.name
    assert (folder / "stdout.log").read_text() == f"second in {folder / 'work'}\n"


DAEMON = """
import asyncio, sys, time
from pathlib import Path
from rig.local import LocalTarget, start

async def main():
    target = LocalTarget(Path(sys.argv[1]))
    async with target.adapter() as adapter:
        await start(adapter, target.script("import time; time.sleep(60)"))
        print("started", flush=True)
        if sys.argv[2] == "killed":
            time.sleep(60)
    print("closed", flush=True)
    time.sleep(60)

asyncio.run(main())
"""


def daemon_process(root: Path, end: str) -> subprocess.Popen[bytes]:
    """Starts a run and then is killed, or closes its adapter."""
    return subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(root), end],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


@pytest.mark.parametrize("end", ["killed", "closed"])
async def test_the_nursery_ends_with_its_daemon_and_the_run_goes_on(
    target: LocalTarget, end: str
) -> None:
    """However the daemon ends, nobody is left who waits for orders."""
    daemon = daemon_process(target.root, end)
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"started\n"
        (claim,) = target.state.glob("runs/*/claim.json")
        runner = json.loads(claim.read_text())["pid"]
        if end == "killed":
            daemon.kill()
        else:
            assert daemon.stdout.readline() == b"closed\n"
        await until(
            lambda: nurseries(target) == sorted([runner, parent_of(runner)]),
            "only the run's own runner and its guard live",
        )
        await until(lambda: ".rehearsal" not in beside(target), "what they had ready is gone")
        desired = target.script("import time; time.sleep(60)")
        async with target.adapter() as adapter:
            (found,) = await adapter.find(desired.owner)
            assert found.state is State.PROGRESSING
            await gone(adapter, desired.owner, found.external)
    finally:
        daemon.kill()
        daemon.wait()
        assert daemon.stdout is not None
        daemon.stdout.close()


async def test_after_a_power_cut_a_run_without_a_claim_counts_as_interrupted(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """What is not on the disk yet when the power goes is at most that it had begun."""
    desired = target.script("pass")
    found = await start(adapter, desired)
    await settled(adapter, desired.owner, found.external)
    folder = target.state / "runs" / found.external.name
    (folder / "exit.json").unlink()
    (folder / "claim.json").write_bytes(b"")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"boot": "an earlier one"}))
    seen = await look(adapter, desired.owner, found.external)
    assert isinstance(seen, Found)
    assert (seen.state, seen.reason) == (State.FAILED, Reason.INTERRUPTED)
    assert not seen.attempt_counts
    await gone(adapter, desired.owner, found.external)


async def test_after_a_power_cut_a_folder_whose_record_is_empty_is_made_anew(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Its name was on the disk and its content was not."""
    desired = target.script("open('../started', 'a').write('x')")
    found = await start(adapter, desired)
    await settled(adapter, desired.owner, found.external)
    folder = target.state / "runs" / found.external.name
    for name in ("run.json", "claim.json"):
        (folder / name).write_bytes(b"")
    (folder / "exit.json").unlink()
    assert await look(adapter, desired.owner, found.external) == Absent()
    again = await start(adapter, desired)
    assert (await settled(adapter, desired.owner, again.external)).state is State.SUCCEEDED
    assert (folder / "started").read_text() == "x"
