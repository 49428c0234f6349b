"""What the command line shows: tables for people and programs, and JSON for programs only."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import yaml

from rig.api_daemon import ApiDaemon, TalkingAdapter, api_daemon, deployment, job, record
from rig.command_line import Ran, windlass
from windlass_schemas import Artifact, Reason, Signature, Status, Tensor

Windlass = Callable[..., Awaitable[Ran]]


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(tmp_path) as found:
        await found.declare(job("train"), deployment("wine"), deployment("wine", "lab"))
        yield found


@pytest.fixture
def ask(daemon: ApiDaemon) -> Windlass:
    async def run(*arguments: str) -> Ran:
        return await windlass(*arguments, "--server", daemon.url)

    return run


async def test_get_prints_one_line_an_object_for_grep_and_awk(
    daemon: ApiDaemon, ask: Windlass
) -> None:
    """Every cell holds something, only the last one spaces; no colours, no lines."""
    await daemon.conclude("Job/train", "False", Reason.PROGRESSING, "epoch 3\nof 9")
    await daemon.conclude("Deployment/wine", "True", Reason.SYNCED, "serves")
    ran = await ask("get")
    assert (ran.code, ran.err) == (0, "")
    header, *lines = [line.split() for line in ran.out.splitlines()]
    assert header == ["KIND/NAME", "READY", "SYNC", "HEALTH", "REASON", "AGE", "MESSAGE"]
    assert [line[:5] for line in lines] == [
        ["Deployment/wine", "True", "Synced", "Healthy", "Synced"],
        ["Deployment/lab/wine", "Unknown", "Unknown", "Unknown", "-"],
        ["Job/train", "False", "OutOfSync", "Progressing", "Progressing"],
    ]
    assert " ".join(lines[2][6:]) == "epoch 3 of 9"
    assert "\x1b" not in ran.out


async def test_get_takes_kinds_as_people_write_them(ask: Windlass) -> None:
    """Any case, plural, short forms, one object, one namespace."""
    for words in (("jobs",), ("JOB",), ("job/train",), ("Job/default/train",)):
        ran = await ask("get", *words)
        assert [line.split()[0] for line in ran.out.splitlines()[1:]] == ["Job/train"], words
    ran = await ask("get", "deploy", "-n", "lab")
    assert [line.split()[0] for line in ran.out.splitlines()[1:]] == ["Deployment/lab/wine"]
    empty = await ask("get", "models")
    assert (empty.code, empty.out, empty.err) == (0, "", "no Model is declared\n")


async def test_wide_json_and_yaml(ask: Windlass) -> None:
    """Wide adds columns; JSON and YAML hold all that is known."""
    wide = (await ask("get", "job/train", "-o", "wide")).out.splitlines()
    assert wide[0].split()[6:] == ["GENERATION", "REVISION", "SOURCE", "MESSAGE"]
    assert wide[1].split()[6:] == ["1", "c0ffee123456", "specs.yaml:1", "-"]
    one = json.loads((await ask("get", "job/train", "-o", "json")).out)
    assert one["spec"] == {"command": ["true"], "timeLimit": "1m30s"}
    every = json.loads((await ask("get", "-o", "json")).out)
    assert len(every["objects"]) == 3
    assert yaml.safe_load((await ask("get", "job/train", "-o", "yaml")).out) == one


async def test_ready_of_an_older_generation_is_not_shown_as_true(
    daemon: ApiDaemon, ask: Windlass
) -> None:
    """Nobody reads Ready before the new spec is live."""
    await daemon.conclude("Job/train", "True", Reason.SUCCEEDED)
    await daemon.declare(job("train", onDelete="orphan"), revision="c2")
    line = (await ask("get", "job/train")).out.splitlines()[1].split()
    assert line[1] == "Unknown"


async def test_describe_says_everything(daemon: ApiDaemon, ask: Windlass) -> None:
    """Conditions, what it holds, outputs, signature, spec and history."""
    digest = "sha256:" + "a" * 64
    status = Status(
        outputs={"model": Artifact(digest=digest, size=12, name="model.onnx")},
        signature=Signature(
            inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 13)),), outputs=()
        ),
        url="http://127.0.0.1:8701/v2/models/wine",
        detail={"exitCode": 0},
    )
    await daemon.conclude(
        "Job/train",
        "True",
        Reason.SUCCEEDED,
        "done",
        status=status,
        externals=(record("run", "train-a1", completes=True),),
    )
    ran = await ask("describe", "job/train")
    for said in (
        "Object:       Job/train",
        "Generation:   1 (observed 1)",
        "c0ffee1234567890 by Ada <ada@example.org>",
        "git:specs specs.yaml:1",
        "train-a1",
        digest,
        "x: FP32 [-1, 13]",
        "timeLimit: 1m30s",
        "exitCode: 0",
        "http://127.0.0.1:8701/v2/models/wine",
        "Declared",
    ):
        assert said in ran.out, said


async def test_events_are_listed_and_filtered(daemon: ApiDaemon, ask: Windlass) -> None:
    """All of them, those of one object, or the newest; as lines or as CloudEvents."""
    await daemon.conclude("Job/train", "False", Reason.PROGRESSING, "one")
    await daemon.conclude("Deployment/wine", "True", Reason.SYNCED, "two")
    listed = (await ask("events")).out.splitlines()
    assert [line.split()[1] for line in listed[1:]] == ["Job/train", "Deployment/wine"]
    assert (await ask("events", "job/train")).out.count("\n") == 2
    (newest,) = (await ask("events", "--tail", "1", "-o", "json")).out.splitlines()
    assert json.loads(newest)["data"]["message"] == "two"
    assert json.loads(newest)["specversion"] == "1.0"


async def test_history_survives_the_object(daemon: ApiDaemon, ask: Windlass) -> None:
    """Who declared it, and that it was suspended, also after it is gone."""
    await ask("suspend", "job/train", "--reason", "audit")
    await daemon.remove("Job/train")
    ran = await ask("history", "job/train")
    actions = [line.split()[4] for line in ran.out.splitlines()]
    assert actions == ["ACTION", "Suspended", "Declared"]
    entries = json.loads((await ask("history", "job/train", "-o", "json")).out)["entries"]
    assert entries[0]["message"] == "audit"


async def test_logs_come_as_they_are(daemon: ApiDaemon, ask: Windlass) -> None:
    """Bytes, not text: no encoding is guessed."""
    assert isinstance(daemon.back, TalkingAdapter)
    daemon.back.output = {("t", "stdout"): "größer [bold]\n".encode(), ("t", "stderr"): b"oh\n"}
    run = record("run", "t", completes=True)
    await daemon.conclude("Job/train", "False", Reason.FAILED, externals=(run,))
    assert (await ask("logs", "job/train")).out == "größer [bold]\noh\n"
    assert (await ask("logs", "job/train", "--stdout")).out == "größer [bold]\n"
    assert (await ask("logs", "job/train", "--stderr")).out == "oh\n"
    assert (await ask("logs", "job/train", "-f")).out == "größer [bold]\noh\n"


async def test_following_the_log_of_what_cannot_run_ends(daemon: ApiDaemon, ask: Windlass) -> None:
    """With the reason, instead of waiting for ever."""
    await daemon.conclude("Job/train", "False", Reason.BACKEND_REFUSED, "no room", stalled=True)
    ran = await ask("logs", "-f", "job/train")
    assert ran.code == 1
    assert "BackendRefused: no room" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("get", "pods"), "there is no kind 'pods'"),
        (("get", "job/UPPER"), "is no name"),
        (("get", "job/nothing"), "there is no Job/nothing"),
        (("get", "-w", "-o", "yaml"), "-w does not go with -o yaml"),
        (("describe", "train"), "'train' names no object"),
        (("describe", "job/"), "names no object"),
        (("history", "job/nothing"), "there is no Job/nothing"),
        (("logs", "job/train"), "Job/train has not run yet"),
        (("get", "-o", "xml"), "Invalid value for '-o'"),
    ],
)
async def test_every_error_says_what_and_what_to_do(
    ask: Windlass, words: tuple[str, ...], said: str
) -> None:
    """Two lines on stderr, nothing on stdout, exit code 1."""
    ran = await ask(*words)
    assert (ran.code, ran.out) == (1, "")
    error, hint = ran.err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert len(hint) > len("hint: ")
    assert hint.startswith("hint: ")


async def test_an_answer_of_another_program_is_not_mistaken_for_the_daemon(
    daemon: ApiDaemon,
) -> None:
    """Whatever listens there: it is told apart, without a traceback."""
    ran = await windlass("get", "--server", f"{daemon.url}/docs")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 2
    for server in ("ftp://127.0.0.1", "http://[", "http://"):
        ran = await windlass("get", "--server", server)
        assert ran.code != 0
        assert ran.err.startswith("error: "), server
        assert "fault in Windlass" not in ran.err, server
