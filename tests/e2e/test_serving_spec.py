"""specs/serving, as a person uses it: a key, a canary that takes over, a number of replicas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rig.project import Project

ROOT = Path(__file__).resolve().parents[2]
LONG = 150.0
"""Seconds; a canary takes its time, and so does a busy machine."""
ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path, ROOT / "specs/serving")
    project.up()
    yield project
    project.close()


def ask(project: Project, key: str = "") -> httpx.Response:
    """One request to the model, with or without a key."""
    url = f"http://127.0.0.1:{project.serving_port}/v2/models/scores/infer"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.post(url, json=ROW, headers=headers, timeout=30, trust_env=False)


@pytest.mark.timeout(900)
def test_the_example_deploys_asks_for_a_key_and_rolls_out_by_a_canary(project: Project) -> None:
    project.until(lambda: project.ready("Deployment/scores"), "it is served", LONG)
    assert ask(project).status_code == 401
    key = project.windlass("keys", "create", "ada", "--deployment", "scores").split()[0]
    project.until(lambda: ask(project, key).status_code == 200, "the key holds", LONG)
    first = ask(project, key).json()["outputs"][0]["data"]

    project.edit("scores.yaml", "scale: 1.0", "scale: 2.0")
    project.commit("Answer twice as much")

    def canary() -> bool:
        ask(project, key)
        status, _, message = project.condition("Deployment/scores", "Reconciling")
        return status == "True" and "tried as a canary with 20 %" in message

    project.until(canary, "the canary is in the conditions", LONG)

    def promoted() -> bool:
        answers = [ask(project, key).json()["outputs"][0]["data"] for _ in range(20)]
        return all(answer == pytest.approx([2 * v for v in first]) for answer in answers)

    project.until(promoted, "the new version answers everybody", LONG)
    project.until(lambda: project.ready("Deployment/scores"), "it is in force", LONG)

    usage = json.loads(project.windlass("usage", "--json"))
    assert {entry["key"] for entry in usage["usage"]} <= {"", "ada"}
    project.windlass("keys", "revoke", "ada")
    project.until(lambda: ask(project, key).status_code == 401, "the key is refused", LONG)
