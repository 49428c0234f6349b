"""What the command line asks for, and how long it waits for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from rig.api_daemon import ApiDaemon, TalkingAdapter, api_daemon, deployment, job, record, until
from rig.command_line import Ran, windlass
from windlass_adapters.base import TransientError
from windlass_schemas import Key, Reason, Status

Windlass = Callable[..., Awaitable[Ran]]


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(tmp_path) as found:
        await found.declare(job("train"), deployment("wine"))
        yield found


@pytest.fixture
def ask(daemon: ApiDaemon) -> Windlass:
    async def run(*arguments: str) -> Ran:
        return await windlass(*arguments, "--server", daemon.url)

    return run


async def test_suspend_resume_delete_and_approve(daemon: ApiDaemon, ask: Windlass) -> None:
    """Each says in a line what was done; a refusal says why and what to do."""
    assert (await ask("suspend", "job/train", "--reason", "audit")).code == 0
    found = await daemon.store.get(Key.parse("Job/train"))
    assert found is not None
    assert found.suspended == "audit"
    refused = await ask("sync", "job/train", "--wait")
    assert refused.code == 1
    assert refused.err == (
        "error: Job/train is suspended: audit\nhint: windlass resume Job/train\n"
    )
    assert (await ask("resume", "job/train")).out == "Job/train is acted on again\n"
    refused = await ask("delete", "job/train")
    assert "specs.yaml:1" in refused.err
    assert "hint: " in refused.err
    await daemon.declare(*[job(f"j{i}") for i in range(8)], revision="c4")
    await daemon.declare(job("j0"), revision="c5feed")
    done = await ask("approve", "c5fe")
    assert done.out.count("is being deleted") >= 7
    refused = await ask("approve", "c5fe")
    assert "no revision 'c5fe' waits for approval" in refused.err


async def test_wait_returns_when_the_condition_holds(daemon: ApiDaemon, ask: Windlass) -> None:
    """Progress goes to stderr, one line a change; the result to stdout."""
    await daemon.conclude("Job/train", "False", Reason.PROGRESSING, "epoch 3")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(
            asyncio.wait_for(ask("wait", "job/train", "--for", "Ready"), 20)
        )
        await asyncio.sleep(0.5)  # lets it say something first; nothing depends on it
        await daemon.conclude("Job/train", "True", Reason.SUCCEEDED, "done")
    ran = waiting.result()
    assert (ran.code, ran.out) == (0, "Job/train is Ready\n")
    assert ran.err in {"Job/train Progressing: epoch 3\n", ""}


async def test_wait_stops_early_when_the_object_is_stalled(
    daemon: ApiDaemon, ask: Windlass
) -> None:
    """With the condition's reason and message: no retry will help."""
    await daemon.conclude("Job/train", "False", Reason.FAILED, "exit code 1", stalled=True)
    ran = await ask("wait", "job/train", "--for", "Ready", "--timeout", "1m")
    assert ran.code == 1
    assert "Job/train is Stalled: Failed: exit code 1" in ran.err
    assert (await ask("wait", "job/train", "--for", "stalled")).code == 0


async def test_wait_gives_up_when_the_time_is_over(ask: Windlass) -> None:
    """Exit code 124, as ``timeout`` has it, with what was the case last."""
    ran = await ask("wait", "job/train", "--timeout", "300ms")
    assert ran.code == 124
    assert "Job/train is not Ready after 300ms; last: Job/train no pass yet" in ran.err


async def test_wait_for_a_revision_does_not_take_the_old_ready(
    daemon: ApiDaemon, ask: Windlass
) -> None:
    """The commit must have arrived first; then a commit that changes nothing is enough."""
    await daemon.conclude("Job/train", "True", Reason.SUCCEEDED)
    early = await ask("wait", "job/train", "--revision", "c2", "--timeout", "300ms")
    assert early.code == 124
    assert "git:specs is at c0ffee123456, not yet at c2" in early.err
    await daemon.declare(job("train"), deployment("wine"), revision="c2aa")
    assert (await ask("wait", "job/train", "--revision", "c2")).code == 0


async def test_wait_for_deletion(daemon: ApiDaemon, ask: Windlass) -> None:
    """What is not there is deleted."""
    await daemon.remove("Job/train")
    ran = await ask("wait", "job/train", "--for", "Deleted")
    assert (ran.code, ran.out) == (0, "Job/train is deleted\n")


async def test_wait_for_what_nobody_declares_ends(
    ask: Windlass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing error does not cost ten minutes."""
    monkeypatch.setattr("windlass.cli.waiting.UNDECLARED", 0.3)
    ran = await ask("wait", "job/tarin")
    assert ran.code == 1
    assert "no source declares Job/tarin" in ran.err
    assert "--revision" in ran.err


async def test_sync_waits_until_a_pass_has_answered_it(daemon: ApiDaemon, ask: Windlass) -> None:
    """The token in the status says which request was answered."""
    key = Key.parse("Job/train")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(asyncio.wait_for(ask("sync", "job/train", "--wait"), 20))
        await until(lambda: daemon.enqueued == [key])
        found = await daemon.store.get(key)
        assert found is not None
        answered = Status(handled_sync=found.sync_token)
        await daemon.conclude("Job/train", "True", Reason.SUCCEEDED, "again", status=answered)
    ran = waiting.result()
    assert (ran.code, ran.out) == (0, "Job/train Ready=True Succeeded: again\n")
    late = await ask("sync", "job/train", "--wait", "--timeout", "300ms")
    assert late.code == 124


async def test_infer_sends_what_it_is_given(
    daemon: ApiDaemon, ask: Windlass, tmp_path: Path
) -> None:
    """JSON from the command line or from a file; the answer goes to stdout unchanged."""
    served = (record("server", "wine"),)
    await daemon.conclude("Deployment/wine", "True", Reason.SYNCED, externals=served)
    request = '{"inputs": [{"name": "x"}]}'
    file = tmp_path / "request.json"
    file.write_text(request)
    for data in (request, f"@{file}"):
        assert (await ask("infer", "wine", "-d", data)).out == request + "\n"
    assert (await ask("infer", "deploy/wine", "-d", request)).code == 0
    assert isinstance(daemon.back, TalkingAdapter)
    daemon.back.refusal = TransientError("nobody answers; wait a little")
    ran = await ask("infer", "wine", "-d", request)
    assert (ran.code, ran.err) == (1, "error: nobody answers\nhint: wait a little\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("infer", "wine", "-d", "{"), "the request is not JSON"),
        (("infer", "wine", "-d", "@/nowhere/x.json"), "cannot read /nowhere/x.json"),
        (("infer", "wine"), "Missing option '-d'"),
        (("infer", "job/train", "-d", "{}"), "Job/train answers no requests"),
        (("infer", "nothing", "-d", "{}"), "there is no Deployment/nothing"),
        (("wait", "job/train", "--for", "Happy"), "there is no condition 'Happy'"),
        (("wait", "job/train", "--timeout", "10"), "'10' is no duration"),
        (("suspend", "job/train"), "Missing option '--reason'"),
        (("suspend", "job/train", "--reason", " "), "a suspension needs a reason"),
        (("resume", "job/nothing"), "there is no Job/nothing"),
    ],
)
async def test_every_refusal_is_two_lines(ask: Windlass, words: tuple[str, ...], said: str) -> None:
    """``error:`` and ``hint:``, exit code 1."""
    ran = await ask(*words)
    assert (ran.code, ran.out) == (1, "")
    error, hint = ran.err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: ")


async def test_without_a_daemon_each_command_says_how_to_start_one() -> None:
    """Exit code 3, so that a script can tell."""
    for words in (
        ("get",),
        ("get", "-w"),
        ("describe", "job/x"),
        ("events",),
        ("events", "-w"),
        ("history", "job/x"),
        ("logs", "job/x"),
        ("wait", "job/x"),
        ("infer", "x", "-d", "{}"),
        ("sync", "job/x"),
        ("suspend", "job/x", "--reason", "r"),
        ("resume", "job/x"),
        ("delete", "job/x"),
        ("approve", "c1"),
    ):
        ran = await windlass(*words, "--server", "127.0.0.1:9")
        assert (ran.code, ran.out.count("\n") <= 1) == (3, True), words
        assert ran.err.startswith("error: no daemon answers at http://127.0.0.1:9\n"), words
        assert "windlass up PATH" in ran.err, words


async def test_the_history_names_the_person(
    daemon: ApiDaemon, ask: Windlass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the user of this machine, not 'api'."""
    monkeypatch.setenv("LOGNAME", "grace")
    await ask("sync", "job/train")
    ran = await ask("history", "job/train", "-o", "json")
    assert json.loads(ran.out)["entries"][0]["author"] == "grace"
