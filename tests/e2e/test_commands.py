"""Every command against a running daemon, as a person types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.project import Project

ROOT = Path(__file__).resolve().parents[2]
BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [3.0]}]},
)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose three objects are Ready; the tests share it and leave it as it was."""
    project = Project(tmp_path_factory.mktemp("commands"), ROOT / "tests/data/stub")
    project.up()
    try:
        project.await_ready("Deployment/stub")
        yield project
    finally:
        project.close()


def lines(text: str) -> list[list[str]]:
    """A table as words."""
    return [line.split() for line in text.splitlines() if line.strip()]


def test_validate_counts_documents_and_points_at_faults(ready: Project) -> None:
    """Exit 0 for good specs; exit 1, and file:line:column, for bad ones."""
    assert "3 valid documents" in ready.windlass("validate", ".")
    broken = ready.repository.parent / "broken"
    broken.mkdir()
    (broken / "bad.yaml").write_text("apiVersion: windlass/v1\nkind: Job\nmetadata: {name: x}\n")
    assert "bad.yaml:" in ready.windlass("validate", str(broken), code=1)


def test_plan_says_by_its_exit_code_whether_something_would_change(ready: Project) -> None:
    """0 where all is in place, 2 with changes, 1 for a path that is not there."""
    ready.windlass("plan", code=0)
    ready.windlass("plan", ".", code=0)
    ready.edit("stub.yaml", "factor: 2.0", "factor: 4.0")
    try:
        changes = ready.windlass("plan", ".", "--worktree", code=2)
        assert "Job/train" in changes
        assert ready.runs() == [ready.runs()[0]], "a plan runs nothing"
    finally:
        ready.git("checkout", "--quiet", "--", ".")
    ready.windlass("plan", "no/such/folder", code=1)


def test_get_lists_objects_as_a_table_and_as_json(ready: Project) -> None:
    """Each object is one line; -o json is for programs."""
    names = [words[0] for words in lines(ready.windlass("get"))]
    assert names[1:] == ["Deployment/stub", "Job/train", "Model/stub"]
    found = json.loads(ready.windlass("get", "-o", "json"))
    assert [each["name"] for each in found["objects"]] == ["stub", "train", "stub"]
    only = ready.windlass("get", "Job", "-o", "wide")
    assert "Job/train" in only
    assert "Model/stub" not in only


def test_describe_shows_conditions_digest_and_signature(ready: Project) -> None:
    """What an object is, in one page."""
    said = ready.windlass("describe", "Model/stub")
    digest = ready.status("Model/stub").outputs["artifact"].digest
    assert digest[:12] in said
    assert "FP32" in said
    assert "Ready" in said


def test_events_are_numbered_without_a_gap(ready: Project) -> None:
    """Each object's events are 1, 2, 3, ..."""
    found: dict[str, list[int]] = {}
    for line in ready.windlass("events", "-o", "json").splitlines():
        event = json.loads(line)
        found.setdefault(event["subject"], []).append(event["data"]["seq"])
    assert len(found) >= 3
    for numbers in found.values():
        assert numbers == list(range(1, len(numbers) + 1))


def test_history_says_who_did_what(ready: Project) -> None:
    """The commit's author declared it; the run was created once."""
    said = ready.windlass("history", "Job/train")
    assert "Ada" in said
    entries: JsonValue = json.loads(ready.windlass("history", "Job/train", "-o", "json"))
    assert isinstance(entries, dict)
    assert isinstance(entries["entries"], list)
    done = [
        (each["action"], each["result"]) for each in entries["entries"] if isinstance(each, dict)
    ]
    assert done.count(("Created", "ok")) == 1


def test_logs_prints_what_the_run_wrote(ready: Project) -> None:
    """Standard output, and standard error by flag."""
    assert ready.windlass("logs", "Job/train") == "factor 2.0\n"
    assert ready.windlass("logs", "Job/train", "--stderr") == ""


def test_wait_returns_at_once_for_what_holds_and_gives_up_in_time(ready: Project) -> None:
    """0 when it holds, 124 when the time is over."""
    ready.windlass("wait", "Deployment/stub", "--for", "Ready", "--timeout", "10s")
    ready.windlass("wait", "Job/train", "--for", "Stalled", "--timeout", "300ms", code=124)


def test_infer_answers_and_explains_a_wrong_request(ready: Project) -> None:
    """A prediction, or what the model takes."""
    reply = json.loads(ready.windlass("infer", "stub", "-d", BODY))
    assert reply["outputs"][0]["data"] == [6.0]
    said = ready.windlass("infer", "stub", "-d", BODY.replace('"x"', '"z"'), code=1)
    assert "z" in said
    assert "x" in said


def test_a_suspended_object_is_left_alone_until_it_is_resumed(ready: Project) -> None:
    """An edit waits while the object is suspended."""
    ready.windlass("suspend", "Job/train", "--reason", "the disk is being replaced")
    runs = ready.runs()
    ready.edit("stub.yaml", "factor: 2.0", "factor: 4.0")
    ready.commit("Edit a suspended Job")
    message = ready.await_reason("Job/train", "Ready", "Suspended")
    assert "the disk is being replaced" in message
    assert ready.runs() == runs
    ready.windlass("resume", "Job/train")
    ready.until(lambda: ready.infer("stub", BODY) == {"y": (12.0,)}, "the edit is applied")

    ready.git("revert", "--no-edit", "HEAD")
    ready.until(lambda: ready.infer("stub", BODY) == {"y": (6.0,)}, "the revert is applied")


def test_sync_looks_at_an_object_now(ready: Project) -> None:
    """It returns when the look was taken."""
    ready.windlass("sync", "Deployment/stub", "--wait", "--timeout", "20s")
    token = ready.status("Deployment/stub").handled_sync
    assert token
    ready.windlass("sync", "Deployment/stub", "--wait", "--timeout", "20s")
    assert ready.status("Deployment/stub").handled_sync != token


def test_deleting_what_is_still_declared_is_refused(ready: Project) -> None:
    """The source would declare it again; the message says where to remove it."""
    said = ready.windlass("delete", "Deployment/stub", code=1)
    assert "stub.yaml" in said
    assert ready.ready("Deployment/stub")


def test_schema_is_json_schema_for_editors(ready: Project) -> None:
    """One kind, or all of them."""
    schema = json.loads(ready.windlass("schema", "Job"))
    assert "timeLimit" in json.dumps(schema)
    json.loads(ready.windlass("schema"))


def test_doctor_finds_nothing_wrong(ready: Project) -> None:
    """Every check of a sound installation passes."""
    said = ready.windlass("doctor")
    assert "fail" not in [words[0] for words in lines(said)]


@pytest.mark.parametrize("command", ["get", "describe", "logs", "history", "wait"])
def test_a_name_that_is_not_declared_is_said_with_what_to_do(ready: Project, command: str) -> None:
    """One error line, one hint line."""
    said = ready.windlass(command, "Job/nothing", code=1)
    assert "Job/nothing" in said
    assert "hint:" in said


def test_without_a_daemon_a_command_says_how_to_start_one(ready: Project) -> None:
    """Exit code 3, and the command to type."""
    said = ready.windlass("get", "--server", "http://127.0.0.1:9", code=3)
    assert "windlass up" in said
