"""Specs by message and by git into one real daemon; events to anybody's subscriber."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rig.project import WINDLASS, Project
from rig.rabbitmq import Broker

ROOT = Path(__file__).resolve().parents[2]
SUBSCRIBERS = ("subscriber_aio_pika.py", "subscriber_pika.py")


@pytest.fixture
def project(broker: Broker, tmp_path: Path) -> Iterator[Project]:
    """A repository with specs/messages, and a daemon that follows it and the broker."""
    made = Project(tmp_path, ROOT / "specs/messages")
    (made.repository / ".windlassignore").write_text("hello.yaml\n")
    made.commit("Leave to messages what is published")
    made.environment["WINDLASS_AMQP_URL"] = broker.url(broker.vhost())
    made.up()
    made.until(lambda: _links_up(made), "the links are up")
    try:
        yield made
    finally:
        made.close()


def _links_up(project: Project) -> bool:
    found = project.ask("/readyz")
    return isinstance(found, dict) and "broker specs" in json.dumps(found)


def _watching(project: Project, stack: ExitStack, *command: str) -> Path:
    """A program that runs beside the test; what it prints."""
    output = project.log.parent / f"{Path(command[-1]).stem or 'watch'}.out"
    with output.open("w") as out:
        process = subprocess.Popen(
            command,
            cwd=project.repository,
            env=project.environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    stack.callback(process.wait, 30)
    stack.callback(process.send_signal, signal.SIGINT)
    return output


def test_a_published_spec_runs_and_every_kind_of_subscriber_hears_of_it(project: Project) -> None:
    """publish --wait, two libraries' subscribers, events --amqp, a snapshot, and publish.py."""
    with ExitStack() as stack:
        told = [
            _watching(project, stack, sys.executable, script)
            for script in SUBSCRIBERS
        ]  # fmt: skip
        told.append(_watching(project, stack, WINDLASS, "events", "-w", "--amqp"))
        said = project.windlass("publish", "hello.yaml", "--wait")
        assert "Job/hello accepted, generation 1" in said
        project.until(lambda: project.condition("Job/hello", "Succeeded")[0] == "True", "it ran")
        assert "hello, world" in project.windlass("logs", "Job/hello")
        # A subscriber that came late sees the next change only: make one until all have seen it.
        rounds = iter(range(1, 100))

        def all_told() -> bool:
            with (project.repository / "hello.yaml").open("a") as file:
                file.write(f"# {next(rounds)}\n")
            project.edit("hello.yaml", "who: ", "who: the ")
            project.windlass("publish", "hello.yaml", "--wait")
            return all("hello" in file.read_text() for file in told)

        project.until(all_told, "every subscriber has heard", 60)
        for file in told:
            assert "Traceback" not in file.read_text(), file
    snapshot = subprocess.run(
        [sys.executable, "snapshot.py"],
        cwd=project.repository,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Job/default/hello" in snapshot.stdout
    python = subprocess.run(
        [sys.executable, "publish.py"],
        cwd=project.repository,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "from-python accepted 1" in python.stdout.replace("Job/default/", ""), python.stderr
    assert "Job/hello deleting" in project.windlass("publish", "--delete", "Job/hello", "--wait")
    project.until(lambda: not project.object("Job/hello"), "the Job is gone")


def test_git_and_messages_give_the_same_state_and_conflict_until_a_transfer(
    project: Project,
) -> None:
    """One digest either way; a second claimant writes nothing; transfer moves the key."""
    project.windlass("publish", "hello.yaml", "--wait")
    project.until(lambda: project.condition("Job/hello", "Succeeded")[0] == "True", "it ran")
    by_message = project.object("Job/hello")
    assert by_message["source"] == "amqp:windlass-publish"
    (project.repository / ".windlassignore").unlink()
    project.commit("Declare it here too")
    project.until(lambda: project.object("Job/hello")["conflict"], "the conflict is seen")
    assert project.object("Job/hello")["source"] == "amqp:windlass-publish"
    project.await_reason("Job/hello", "Stalled", "SourceConflict")
    source = str(project.object("Job/hello")["conflict"])
    assert "belongs to" in project.windlass("transfer", "Job/hello", "--to", source)
    project.until(lambda: project.object("Job/hello")["source"] == source, "git owns it")
    by_git = project.object("Job/hello")
    for field in ("digest", "generation", "uid", "files"):
        assert by_git.get(field) == by_message.get(field), field
    refused = project.windlass("publish", "hello.yaml", "--wait", code=1)
    assert "conflict" in refused
    assert "windlass transfer Job/hello --to amqp:windlass-publish" in refused
    project.windlass("transfer", "Job/hello", "--to", "folder:/nowhere", code=1)


def test_faults_are_told_before_anything_is_sent(project: Project) -> None:
    """The publisher sees file, line and column; large files are refused with what to do."""
    (project.repository / "bad.yaml").write_text(
        "apiVersion: windlass/v1\nkind: Job\nmetadata: {name: bad}\nspec: {comand: [x]}\n"
    )
    assert "bad.yaml:4:8 spec.comand" in project.windlass("publish", "bad.yaml", code=1)
    (project.repository / "model.bin").write_bytes(os.urandom(2 << 20))
    (project.repository / "big.yaml").write_text(
        "apiVersion: windlass/v1\nkind: Model\nmetadata: {name: big}\n"
        "spec: {format: onnx, source: {file: model.bin}}\n"
    )
    said = project.windlass("publish", "big.yaml", code=1)
    assert "model.bin of 2.0 MiB" in said
    assert "https://" in said
    assert "no broker" not in said
    project.windlass("publish", code=1)
    project.windlass("events", "--amqp", code=1)
