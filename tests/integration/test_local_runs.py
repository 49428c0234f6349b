"""A Job on this machine: real processes, from staging to exit record."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rig.local import LocalTarget, create_of, gone, lives, look, settled, start, until
from windlass_adapters.base import Absent, Found, State, TerminalError, Unknown, Update
from windlass_adapters.local import LocalAdapter
from windlass_adapters.local.processes import marked
from windlass_adapters.local.starting import Starter
from windlass_schemas import Artifact, Reason


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[LocalTarget]:
    yield LocalTarget(tmp_path, {"grace": "300ms"})
    for folder in (tmp_path / "state" / "runs").glob("*"):  # whatever a failed test left running
        for pid in marked(folder):
            os.kill(pid, signal.SIGKILL)
        claim = folder / "claim.json"
        if claim.exists() and lives(pid := json.loads(claim.read_text())["pid"]):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def adapter(target: LocalTarget) -> AsyncIterator[LocalAdapter]:
    async with target.adapter() as adapter:
        yield adapter


def folder_of(target: LocalTarget, found: Found) -> Path:
    return target.state / "runs" / found.external.name


async def run(target: LocalTarget, adapter: LocalAdapter, text: str, **spec: object) -> Found:
    """Run a script to its end."""
    desired = target.script(text, **spec)  # type: ignore[arg-type]  # free-form spec fields
    found = await start(adapter, desired)
    return await settled(adapter, desired.owner, found.external)


async def test_a_script_that_ends_well_leaves_its_outputs_in_the_artifact_store(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """The whole way: params in, output out, both logs kept."""
    found = await run(
        target,
        adapter,
        "import os, sys\n"
        "print('to stdout'); print('to stderr', file=sys.stderr)\n"
        "open(os.environ['WINDLASS_OUTPUT_MODEL'], 'w').write('made')\n",
        outputs={"model": "out/model.onnx"},
    )
    assert (found.state, found.reason) == (State.SUCCEEDED, None), found.message
    artifact = found.outputs["model"]
    assert (artifact.name, artifact.size) == ("model.onnx", 4)
    assert target.store.read(artifact.digest) == b"made"
    assert found.detail["exitCode"] == 0
    log = await adapter.read_log(found.external, "stdout", 0)
    assert (log.data, log.complete) == (b"to stdout\n", True)
    log = await adapter.read_log(found.external, "stderr", 3)
    assert (log.data, log.next_offset) == (b"stderr\n", 10)


async def test_params_reach_the_script_exactly_as_arguments_and_as_environment(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """No shell reads them: quotes, newlines and letters of any script survive."""
    hard = "a 'b' \"c\"\n$HOME `id` \\ äß漢🍷"
    found = await run(
        target,
        adapter,
        "import json, os, sys\n"
        "json.dump([sys.argv[1:], {n: v for n, v in os.environ.items() if n[:14] =="
        " 'WINDLASS_PARAM'}], open('seen.json', 'w'))\n",
        params={"hard": hard, "rate": 0.1, "deep-tree": True, "n": -3},
        outputs={"seen": "seen.json"},
    )
    arguments, environment = json.loads(target.store.read(found.outputs["seen"].digest))
    assert arguments == ["--deep-tree", "true", "--hard", hard, "--n", "-3", "--rate", "0.1"]
    assert environment == {
        "WINDLASS_PARAM_HARD": hard,
        "WINDLASS_PARAM_RATE": "0.1",
        "WINDLASS_PARAM_DEEP_TREE": "true",
        "WINDLASS_PARAM_N": "-3",
    }


async def test_files_and_inputs_lie_where_the_script_looks_for_them(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Declared files at their relative paths, inputs by environment, nothing of the daemon's."""
    upstream = target.store.put(b"weights", "model.onnx")
    desired = target.desired(
        "Job",
        "train",
        {
            "entrypoint": "src/main.py",
            "files": ["src/lib"],
            "inputs": {
                "data": {"file": "data.csv"},
                "base": {"job": {"name": "first", "output": "model"}},
            },
            "outputs": {"all": "all.txt"},
        },
        files={
            "src/main.py": "import os\nfrom lib.part import text\nopen('all.txt', 'w').write(text +"
            " ' '.join(open(os.environ['WINDLASS_INPUT_' + n]).read() for n in ('DATA', 'BASE'))"
            " + ' ' + os.path.basename(os.environ['WINDLASS_INPUT_BASE']))\n",
            "src/lib/part.py": "text = 'part '\n",
            "data.csv": "1,2",
        },
        inputs={"Job/default/first:model": upstream},
    )
    found = await start(adapter, desired)
    found = await settled(adapter, desired.owner, found.external)
    assert found.state is State.SUCCEEDED, found.message
    assert target.store.read(found.outputs["all"].digest) == b"part 1,2 weights model.onnx"


async def test_a_script_that_exits_1_has_failed_and_says_what_it_wrote_last(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """The exit code and the end of stderr are in the message."""
    found = await run(target, adapter, "raise SystemExit('no data at row 7')")
    assert (found.state, found.reason) == (State.FAILED, Reason.FAILED)
    assert found.attempt_counts
    assert "exit code 1" in found.message
    assert "no data at row 7" in found.message


async def test_a_missing_output_is_named_together_with_what_was_written_instead(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """A typo in a path is found by reading the message."""
    found = await run(target, adapter, "open('modle.onnx', 'w')", outputs={"model": "model.onnx"})
    assert (found.state, found.reason) == (State.FAILED, Reason.OUTPUT_MISSING)
    assert "output model: model.onnx was not written" in found.message
    assert "main.py, modle.onnx" in found.message


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os; os.symlink('/etc/hostname', 'out')", "leads out of the working directory"),
        ("import os; os.mkdir('out')", "is an empty folder"),
        ("import os; os.mkfifo('out')", "is not a regular file"),
    ],
)
async def test_an_output_that_is_no_file_of_the_run_is_not_kept(
    target: LocalTarget, adapter: LocalAdapter, script: str, said: str
) -> None:
    """Links out of the folder, folders and pipes are refused, without hanging on any of them."""
    found = await run(target, adapter, script, outputs={"it": "out"})
    assert found.reason is Reason.OUTPUT_MISSING
    assert said in found.message


async def test_a_script_that_runs_too_long_is_stopped_even_if_it_ignores_term(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """TERM, the grace, then KILL; the reason says which limit."""
    found = await run(
        target,
        adapter,
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)",
        timeLimit="500ms",
    )
    assert (found.state, found.reason) == (State.FAILED, Reason.TIME_LIMIT_EXCEEDED)
    assert found.attempt_counts
    assert "0.5 s" in found.message


FAMILY = """
import os, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
pids = [
    subprocess.Popen([sys.executable, "-c", code]).pid,
    subprocess.Popen([sys.executable, "-c", code], process_group=0).pid,
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True, env={}).pid,
]
open("pids.tmp", "w").write(" ".join(map(str, [os.getpid(), *pids])))
os.rename("pids.tmp", "pids")
"""


async def family(folder: Path) -> list[int]:
    """The processes of FAMILY once they are all there."""
    await until((folder / "work" / "pids").exists, "the family of processes")
    return [int(pid) for pid in (folder / "work" / "pids").read_text().split()]


async def test_cancelling_ends_every_process_also_those_that_left_group_and_session(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Delete, asked again and again, ends in absence with nobody left running."""
    desired = target.script(FAMILY + "time.sleep(60)")
    found = await start(adapter, desired)
    pids = await family(folder_of(target, found))
    assert all(lives(pid) for pid in pids)
    await adapter.delete(desired.owner, found.external)
    ended = await settled(adapter, desired.owner, found.external)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.INTERRUPTED)
    assert not ended.attempt_counts
    assert not [pid for pid in pids if lives(pid)]
    await gone(adapter, desired.owner, found.external)
    assert list((target.state / "runs").iterdir()) == []
    await adapter.delete(desired.owner, found.external)


async def test_what_a_script_leaves_running_ends_with_it(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Nothing may write to a run that has ended."""
    found = await run(target, adapter, FAMILY)
    assert found.state is State.SUCCEEDED
    assert not [pid for pid in await family(folder_of(target, found)) if lives(pid)]


async def test_a_runner_that_does_not_stop_is_killed_with_all_that_it_started(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Long after the cancel was asked, nothing is left to its good will."""
    desired = target.script(FAMILY.replace(", env={}", "") + "time.sleep(60)")
    found = await start(adapter, desired)
    folder = folder_of(target, found)
    pids = await family(folder)
    os.kill(json.loads((folder / "claim.json").read_text())["pid"], signal.SIGSTOP)
    await adapter.delete(desired.owner, found.external)
    assert all(lives(pid) for pid in pids)
    os.utime(folder / "cancel", (0, 0))
    await gone(adapter, desired.owner, found.external)
    assert not [pid for pid in pids if lives(pid)]


async def test_a_killed_runner_takes_its_program_along_and_the_attempt_does_not_count(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """No second run beside a first whose runner died: what is left is stopped, then it failed."""
    desired = target.script(FAMILY.replace(", env={}", "") + "time.sleep(60)")
    found = await start(adapter, desired)
    folder = folder_of(target, found)
    pids = await family(folder)
    os.kill(json.loads((folder / "claim.json").read_text())["pid"], signal.SIGKILL)
    ended = await settled(adapter, desired.owner, found.external)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.INTERRUPTED)
    assert not ended.attempt_counts
    assert not [pid for pid in pids if lives(pid)]


async def test_a_program_killed_from_outside_is_interrupted_and_one_that_crashes_has_failed(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """The machine's doing costs no attempt, the program's own does."""
    text = "import os, signal; os.kill(os.getpid(), signal.{})"
    killed = await run(target, adapter, text.format("SIGKILL"))
    assert (killed.reason, killed.attempt_counts) == (Reason.INTERRUPTED, False)
    crashed = await run(target, adapter, text.format("SIGSEGV"))
    assert (crashed.reason, crashed.attempt_counts) == (Reason.FAILED, True)
    assert "SIGSEGV" in crashed.message


async def test_creating_what_is_held_starts_nothing_and_returns_it(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """After a crash the kernel asks again; the run goes on, or stays ended."""
    desired = target.script("open('../started', 'a').write('x')\ninput_ = 1")
    found = await start(adapter, desired)
    again = await start(adapter, desired)
    assert again.external == found.external
    ended = await settled(adapter, desired.owner, found.external)
    assert await start(adapter, desired) == ended
    assert list(await adapter.find(desired.owner)) == [ended]
    assert (folder_of(target, found) / "started").read_text() == "x"


async def test_a_second_runner_for_the_same_attempt_does_nothing(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """The claim is taken once, whoever starts the runner how often."""
    desired = target.script("import time\nopen('../started', 'a').write('x')\ntime.sleep(0.3)")
    found = await start(adapter, desired)
    folder = folder_of(target, found)
    claim = (folder / "claim.json").read_text()
    second = Starter(target.root / "second")
    for _ in range(3):
        second.start(folder, {"environment": {}, "secrets": []})
    second.close()
    assert (folder / "claim.json").read_text() == claim
    await settled(adapter, desired.owner, found.external)
    assert (folder / "started").read_text() == "x"
    assert (folder / "runner.log").read_text() == ""


async def test_a_folder_that_was_prepared_and_never_begun_is_begun_by_the_next_create(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """The daemon died between rename and start: absent, and created again as it lies there."""
    desired = target.script("print('ran')")
    found = await start(adapter, desired)
    await settled(adapter, desired.owner, found.external)
    folder = folder_of(target, found)
    for name in ("claim.json", "exit.json", "stdout.log", "stderr.log"):
        (folder / name).unlink()
    assert await look(adapter, desired.owner, found.external) == Absent()
    assert await adapter.find(desired.owner) == []
    await start(adapter, desired)
    ended = await settled(adapter, desired.owner, found.external)
    assert ended.state is State.SUCCEEDED


async def test_a_claim_with_a_foreign_start_time_is_not_believed(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Another process got the pid: the run is over, and that process is left alone."""
    desired = target.script("pass")
    found = await start(adapter, desired)
    await settled(adapter, desired.owner, found.external)
    folder = folder_of(target, found)
    (folder / "exit.json").unlink()
    stranger = stranger_process()
    try:
        claim = json.loads((folder / "claim.json").read_text())
        (folder / "claim.json").write_text(json.dumps(claim | {"pid": stranger.pid}))
        seen = await look(adapter, desired.owner, found.external)
        assert isinstance(seen, Found)
        assert (seen.state, seen.reason) == (State.FAILED, Reason.INTERRUPTED)
        await gone(adapter, desired.owner, found.external)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def stranger_process() -> subprocess.Popen[bytes]:
    """A process that has nothing to do with any run."""
    return subprocess.Popen(["sleep", "60"])


def starter_process(root: Path, say: str = "after") -> subprocess.Popen[bytes]:
    """What a daemon is to a run: starts SURVIVOR below ``root``, and says when."""
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, str(root), say],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )


SURVIVOR = """
import os, time
open("../started", "a").write("x")
while not os.path.exists("../go"):
    time.sleep(0.02)
open("out", "w").write("survived")
"""
STARTER = f"""
import asyncio, sys, time
from pathlib import Path
from rig.local import LocalTarget, start

async def main():
    target = LocalTarget(Path(sys.argv[1]))
    text = {SURVIVOR!r}
    if sys.argv[2] == "before":
        text = text.replace("../go", str(target.root / "go"))
    desired = target.script(text, outputs={{"out": "out"}})
    async with target.adapter() as adapter:
        if sys.argv[2] == "before":
            print("before", flush=True)
        await start(adapter, desired)
        print("after", flush=True)
        time.sleep(60)

asyncio.run(main())
"""


async def test_the_starter_killed_with_kill_9_does_not_touch_the_run(target: LocalTarget) -> None:
    """A new adapter finds the run by its owner, and sees it end well."""
    desired = target.script(SURVIVOR, outputs={"out": "out"})
    starter = starter_process(target.root)
    assert starter.stdout is not None
    with starter.stdout as output:
        assert output.readline() == b"after\n"
        os.killpg(starter.pid, signal.SIGKILL)
        starter.wait()
    async with target.adapter() as adapter:
        (found,) = await adapter.find(desired.owner)
        assert found.state is State.PROGRESSING
        assert (await start(adapter, desired)).external == found.external
        (folder_of(target, found) / "go").touch()
        ended = await settled(adapter, desired.owner, found.external)
    assert target.store.read(ended.outputs["out"].digest) == b"survived"


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.04, 0.06, 0.09])
async def test_a_starter_killed_at_any_moment_leads_to_one_run(
    target: LocalTarget, delay: float
) -> None:
    """Between staging, rename, start and claim: the next create completes what is there."""
    (target.root / "go").touch()
    starter = starter_process(target.root, "before")
    assert starter.stdout is not None
    with starter.stdout as output:
        assert output.readline() == b"before\n"
        await asyncio.sleep(delay)
        os.killpg(starter.pid, signal.SIGKILL)
        starter.wait()
    desired = target.script(
        SURVIVOR.replace("../go", str(target.root / "go")), outputs={"out": "out"}
    )
    async with target.adapter() as adapter:
        await adapter.find(desired.owner)
        found = await start(adapter, desired)
        ended = await settled(adapter, desired.owner, found.external)
        assert ended.state is State.SUCCEEDED, ended.message
        assert [path.name for path in (target.state / "runs").iterdir()] == [found.external.name]
        assert (folder_of(target, found) / "started").read_text() == "x"


async def test_secrets_reach_the_script_and_no_file_and_no_message(
    target: LocalTarget, adapter: LocalAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the child's environment holds them, even when the script complains loudly."""
    monkeypatch.setenv("CANARY_SOURCE", "canary-7f3a")
    (target.root / "secret").write_text("canary-file-91\n")
    found = await run(
        target,
        adapter,
        "import os, sys\n"
        "assert os.environ['A'] == 'canary' + '-7f3a'\n"
        "assert os.environ['B'] == 'canary' + '-file-91'\n"
        "assert 'CANARY_SOURCE' not in os.environ\n"
        "sys.exit('cannot log in with ' + os.environ['A'] + os.environ['B'])\n",
        env={"A": "env:CANARY_SOURCE", "B": f"file:{target.root / 'secret'}", "C": "plain"},
    )
    assert "cannot log in with ******" in found.message
    written = [p for p in (target.state).rglob("*") if p.is_file() and p.name != "stderr.log"]
    assert len(written) > 3
    assert not [path for path in written if b"canary-" in path.read_bytes()]


async def test_a_missing_secret_names_its_reference_and_starts_nothing(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """The message says where to put it."""
    desired = target.script("pass", env={"A": "env:NOT_SET_ANYWHERE"})
    with pytest.raises(TerminalError, match="env:NOT_SET_ANYWHERE is not set") as caught:
        await start(adapter, desired)
    assert caught.value.reason is Reason.SECRET_NOT_FOUND
    assert not (target.state / "runs").exists()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"command": ["no-such-program", "x"]}, "cannot start no-such-program: No such file"),
        ({"entrypoint": "main.py", "python": "/no/python"}, "cannot start /no/python"),
        ({"entrypoint": "main.sh"}, "#!"),
        ({"command": ["./data.txt"], "files": ["data.txt"]}, "may be executed"),
    ],
)
async def test_a_program_that_cannot_start_is_a_failed_run_with_a_readable_message(
    target: LocalTarget, adapter: LocalAdapter, spec: dict[str, object], said: str
) -> None:
    """Not an exception in the daemon: the run says what to mend."""
    files = {"main.py": "", "main.sh": "echo hello\n", "data.txt": "x"}
    desired = target.desired("Job", "train", spec, files=files)  # type: ignore[arg-type]  # JSON
    found = await start(adapter, desired)
    ended = await settled(adapter, desired.owner, found.external)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.FAILED)
    assert said in ended.message


async def test_a_command_runs_without_an_entrypoint(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Any program, in the run's working directory."""
    desired = target.desired(
        "Job", "shell", {"command": ["sh", "-c", "pwd > out"], "outputs": {"out": "out"}}
    )
    found = await start(adapter, desired)
    ended = await settled(adapter, desired.owner, found.external)
    work = folder_of(target, found) / "work"
    assert target.store.read(ended.outputs["out"].digest).decode().strip() == str(work)


async def test_a_run_record_that_cannot_be_read_is_unknown_and_not_absent(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Nobody knows what ran there, so that nothing may be started in its place."""
    desired = target.script("pass")
    found = await start(adapter, desired)
    await settled(adapter, desired.owner, found.external)
    (folder_of(target, found) / "run.json").write_text('{"uid": ')
    seen = await look(adapter, desired.owner, found.external)
    assert isinstance(seen, Unknown)
    assert "run.json cannot be read" in seen.message


async def test_another_owners_run_is_neither_taken_over_nor_deleted(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Not even when the names are equal."""
    desired = target.script("pass")
    found = await start(adapter, desired)
    await settled(adapter, desired.owner, found.external)
    other = desired.owner._replace(uid="0123456789abcdef-other")
    assert await adapter.find(other) == []
    with pytest.raises(TerminalError, match="belongs to another object"):
        await adapter.delete(other, found.external)
    with pytest.raises(TerminalError, match="belongs to another object"):
        await adapter.apply(other, create_of(adapter, desired))


async def test_a_run_is_never_changed_in_place(target: LocalTarget, adapter: LocalAdapter) -> None:
    """Asking for that is a fault, said at once."""
    desired = target.script("pass")
    create = create_of(adapter, desired)
    found = await start(adapter, desired)
    with pytest.raises(TerminalError, match="never changed"):
        await adapter.apply(desired.owner, Update(found.external, create.wanted))
    await settled(adapter, desired.owner, found.external)


async def test_a_missing_artifact_says_what_to_do_and_leaves_nothing_half_made(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Staging happens elsewhere; a failure removes it."""
    desired = target.script("pass")
    lost = Artifact(digest="sha256:" + "0" * 64, size=1, name="main.py")
    desired = replace(desired, files={"main.py": lost})
    with pytest.raises(Exception, match="is not in the artifact store"):
        await start(adapter, desired)
    assert list((target.state / "runs").iterdir()) == []
