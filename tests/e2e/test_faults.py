"""What people get wrong: each mistake is said clearly, and the other specs go on."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.project import Project

ROOT = Path(__file__).resolve().parents[2]
BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [3.0]}]},
)
OTHER = """
apiVersion: windlass/v1
kind: Job
metadata:
  name: other
spec:
  command: ["true"]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project that is served. Tests share it, and bring it back to how it was."""
    project = Project(tmp_path_factory.mktemp("faults"), ROOT / "tests/data/stub")
    project.up()
    try:
        project.await_ready("Deployment/stub")
        yield project
    finally:
        project.close()


def bring_back(project: Project) -> None:
    """Revert the last commit, and wait until the first model answers and all is well."""
    project.git("revert", "--no-edit", "HEAD")
    for name in ("Job/train", "Model/stub", "Deployment/stub"):
        project.await_ready(name)
    assert project.infer("stub", BODY) == {"y": (6.0,)}


def test_a_broken_document_stops_only_itself(served: Project) -> None:
    """The last good version stays in force, its fault is shown, and other documents go on."""
    served.edit("stub.yaml", "factor: 2.0", "factor: 5.0\n  timelimit: 5m")
    (served.repository / "other.yaml").write_text(OTHER)
    served.commit("Break one, add another")

    served.await_ready("Job/other")
    message = served.await_reason("Job/train", "Stalled", "InvalidSpec")
    assert "stub.yaml" in message
    assert "timelimit" in message
    assert served.windlass("get", "Job/train").count("timelimit") == 1, "said once is enough"
    assert served.infer("stub", BODY) == {"y": (6.0,)}
    bring_back(served)


@pytest.mark.parametrize(
    ("fault", "name", "reason", "said"),
    [
        ("exit", "Job/train", "Failed", "no such wine"),
        ("no-output", "Job/train", "OutputMissing", "was not written"),
        ("not-onnx", "Model/stub", "InvalidArtifact", "ONNX"),
    ],
)
def test_a_training_that_goes_wrong_is_said_and_the_old_model_serves_on(
    served: Project, fault: str, name: str, reason: str, said: str
) -> None:
    """The condition names the reason, the old model answers, and a revert ends the trouble."""
    served.edit("stub.yaml", "factor: 2.0", f"factor: 3.0\n    fault: {fault}")
    served.commit("Go wrong")
    assert said in served.await_reason(name, "Stalled", reason)
    assert served.infer("stub", BODY) == {"y": (6.0,)}
    if fault == "exit":
        assert "no such wine" in served.windlass("logs", "Job/train", "--stderr")
    bring_back(served)


def test_uncommitted_changes_are_named_and_not_applied(served: Project) -> None:
    """What is saved but not committed is for later, and the console says so."""
    served.edit("stub.yaml", "factor: 2.0", "factor: 7.0")
    served.until(lambda: "changes that are not applied: stub.yaml" in served.log.read_text(), "it")
    assert served.infer("stub", BODY) == {"y": (6.0,)}
    served.commit("Apply it")
    served.until(lambda: served.infer("stub", BODY) == {"y": (21.0,)}, "the commit is applied")
    bring_back(served)


def test_a_digest_that_does_not_match_is_refused(stub: Project) -> None:
    """The artifact that was not declared is never served."""
    output = "      output: model\n"
    stub.edit("stub.yaml", output, f"{output}  digest: sha256:{'0' * 64}\n")
    stub.commit("Pin another model")
    daemon = stub.up()
    message = stub.await_reason("Model/stub", "Stalled", "DigestMismatch")
    assert "sha256:" + "0" * 64 in message
    assert stub.infer("stub", BODY) == {}
    assert daemon.interrupt() == 0


def test_a_second_daemon_on_the_same_state_says_who_holds_it(stub: Project) -> None:
    """It ends with an error and the first one does not notice."""
    daemon = stub.up()
    daemon.await_answer()
    second = stub.up()
    assert second.ended() == 1
    assert str(daemon.process.pid) in second.said
    assert str(stub.state) in second.said
    assert "Traceback" not in second.said
    assert daemon.interrupt() == 0


def test_a_serving_port_in_use_is_said_and_taken_when_it_is_free(stub: Project) -> None:
    """Training goes on meanwhile; the Deployment gets going by itself."""
    with socket.create_server(("127.0.0.1", stub.serving_port)):
        daemon = stub.up()
        stub.await_ready("Model/stub")
        stub.until(
            lambda: stub.condition("Deployment/stub", "Ready")[1] == "PortInUse", "PortInUse"
        )
        message = stub.condition("Deployment/stub", "Ready")[2]
        assert str(stub.serving_port) in message
    stub.windlass("sync", "Deployment/stub", "--wait")
    stub.await_ready("Deployment/stub")
    assert daemon.interrupt() == 0


def test_an_api_port_in_use_is_said_and_nothing_starts(stub: Project) -> None:
    """The daemon ends at once with the port in the message."""
    with socket.create_server(("127.0.0.1", stub.api_port)):
        daemon = stub.up()
        assert daemon.ended() == 1
    assert str(stub.api_port) in daemon.said
    assert "Traceback" not in daemon.said


def test_a_repository_without_a_commit_is_waited_for(stub: Project) -> None:
    """The daemon says so, stays, and starts with the first commit."""
    shutil.rmtree(stub.repository / ".git")
    stub.git("init", "--quiet", "--initial-branch=main")
    stub.git("config", "user.name", "Ada")
    stub.git("config", "user.email", "ada@example.org")
    daemon = stub.up()
    stub.until(lambda: "commit" in daemon.said, "it says that there is no commit")
    stub.commit("The first")
    stub.await_ready("Deployment/stub")
    assert daemon.interrupt() == 0


def test_a_folder_that_is_not_there_is_refused_in_one_line(stub: Project) -> None:
    """A mistyped path is a mistake of the person, not a state of the world."""
    daemon = stub.up(path="no/such/folder")
    assert daemon.ended() == 1
    assert "no/such/folder" in daemon.said
    assert "Traceback" not in daemon.said


def test_saved_files_are_followed_when_asked_for(stub: Project) -> None:
    """``--worktree`` applies what is saved, without a commit."""
    daemon = stub.up("--worktree")
    stub.await_ready("Deployment/stub")
    stub.edit("stub.yaml", "factor: 2.0", "factor: 7.0")
    stub.until(lambda: stub.infer("stub", BODY) == {"y": (21.0,)}, "the saved version answers")
    assert daemon.interrupt() == 0


def test_removing_a_document_removes_what_it_held(stub: Project) -> None:
    """A deleted Deployment stops answering; the others stay."""
    daemon = stub.up()
    stub.await_ready("Deployment/stub")
    path = stub.repository / "stub.yaml"
    path.write_text(path.read_text().rpartition("---")[0])
    stub.commit("Serve no more")
    stub.until(lambda: not stub.object("Deployment/stub"), "the Deployment is gone")
    assert stub.infer("stub", BODY) == {}
    assert stub.ready("Model/stub")
    assert daemon.interrupt() == 0


def test_a_removed_repository_removes_nothing_and_is_followed_again(stub: Project) -> None:
    """What serves goes on, the log says why nothing changes, and a return heals it."""
    daemon = stub.up()
    stub.await_ready("Deployment/stub")
    away = stub.repository.with_name("away")
    stub.repository.rename(away)
    stub.until(lambda: "nothing is removed" in daemon.said, "the daemon says so")
    assert stub.infer("stub", BODY) == {"y": (6.0,)}
    assert stub.ready("Deployment/stub")
    away.rename(stub.repository)
    stub.edit("stub.yaml", "factor: 2.0", "factor: 4.0")
    stub.commit("Come back changed")
    stub.until(lambda: stub.infer("stub", BODY) == {"y": (12.0,)}, "the change is served")
