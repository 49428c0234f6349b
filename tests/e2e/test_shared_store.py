"""The real daemon on PostgreSQL: its readiness, its colleagues, and a database that goes away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rig.postgres import Postgres, running_postgres
from rig.project import Project

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server of this module's own: it is stopped on the way."""
    with running_postgres() as started:
        yield started


@pytest.fixture
def project(server: Postgres, tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path, ROOT / "tests/data/stub")
    made.environment |= {
        "WINDLASS_DATABASE_URL": server.database(),
        "WINDLASS_NAME": "lab-1",
        "WINDLASS_LEASE": "3",
    }
    yield made
    made.close()


def readiness(project: Project) -> tuple[int, str]:
    """The answer of /readyz, and what it says of the store."""
    answer = httpx.get(f"http://127.0.0.1:{project.api_port}/readyz", timeout=30)
    checks = {check["name"]: check["message"] for check in answer.json()["checks"]}
    return answer.status_code, checks["store"]


def test_the_story_runs_on_the_shared_store_and_outlives_its_server(
    project: Project, server: Postgres
) -> None:
    """While the database is away the daemon says so and serves; then it goes on."""
    project.up()
    project.await_ready("Deployment/stub")
    (row,) = [line.split() for line in project.windlass("get", "daemons").splitlines()[1:]]
    assert row[:2] == ["lab-1", "True"]
    assert "target:default/local" in row
    assert "shares:lab-1" in project.windlass("doctor", code=None)
    server.stop()
    project.until(lambda: readiness(project)[0] == 503, "not ready")
    assert "does not answer" in readiness(project)[1]
    asked = project.windlass("get", code=1)
    assert "Traceback" not in asked
    server.start()
    project.until(lambda: readiness(project)[0] == 200, "ready again")
    project.edit("stub.yaml", "factor: 2.0", "factor: 4.0")
    project.commit("Another factor")
    head = project.git("rev-parse", "HEAD")
    project.windlass("wait", "Deployment/stub", "--revision", head, "--timeout", "60s")
    metrics = httpx.get(f"http://127.0.0.1:{project.api_port}/metrics", timeout=30).text
    assert "windlass_leases_held" in metrics
    errors = [line for line in metrics.splitlines() if line.startswith("windlass_database_errors")]
    assert float(errors[0].split()[1]) > 0
    found = json.loads(project.windlass("get", "daemons", "-o", "json"))
    assert [each["name"] for each in found["daemons"]] == ["lab-1"]
