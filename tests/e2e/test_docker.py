"""What is in ``docker/``: the composition is valid, and the image's steps really make a daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from rig.project import free_ports

ROOT = Path(__file__).parents[2]
BOUND = 900.0


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A copy of the folder, with its secrets made."""
    copy = tmp_path / "docker"
    shutil.copytree(ROOT / "docker", copy)
    subprocess.run([copy / "secrets" / "make"], check=True, timeout=60)
    return copy


def composed(docker: Path) -> dict[str, dict[str, dict[str, object]]]:
    """The composition as the tool reads it."""
    done = subprocess.run(
        ["docker-compose", "-f", docker / "compose.yaml", "config"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, dict[str, dict[str, object]]] = yaml.safe_load(done.stdout)
    return read


def test_the_composition_is_valid_and_holds_no_secret(docker: Path) -> None:
    """Two daemons with names of their own, one broker, one database; passwords only as files."""
    services = composed(docker)["services"]
    assert set(services) == {"daemon-1", "daemon-2", "migrate", "rabbitmq", "postgres"}
    names = set()
    for name in ("daemon-1", "daemon-2"):
        environment = services[name]["environment"]
        assert isinstance(environment, dict)
        names.add(environment["WINDLASS_NAME"])
        assert environment["WINDLASS_AMQP_PASSWORD"] == "file:/run/secrets/amqp_daemon"
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
    assert len(names) == 2
    text = json.dumps(services)
    for secret in (docker / "secrets").iterdir():
        if secret.name not in ("make", ".gitignore"):
            assert secret.read_text() not in text


def test_secrets_are_made_once(docker: Path) -> None:
    """A second run changes none: the database would know the old one still."""
    secrets = docker / "secrets"
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    subprocess.run([secrets / "make"], check=True, timeout=60)
    assert {file.name: file.read_text() for file in secrets.iterdir()} == before
    assert len(before["amqp_daemon"]) == 48
    assert secrets.stat().st_mode & 0o077 == 0


def test_a_password_that_would_break_the_definitions_is_refused(docker: Path) -> None:
    """The message names the file."""
    (docker / "secrets" / "amqp_client").write_text('x"y')
    done = subprocess.run(
        [docker / "rabbitmq" / "fill", docker / "secrets"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "amqp_client must hold" in done.stderr


def test_the_image_runs_as_nobody_in_particular() -> None:
    """From a wheel, with hashes checked, as an ordinary user, watched by a health check."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    assert "--require-hashes" in text
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)
    assert "/healthz" in text
    assert text.index("USER windlass") > text.rindex("RUN ")


@pytest.mark.long
@pytest.mark.timeout(int(BOUND))
def test_the_steps_of_the_image_make_a_daemon_that_is_well(tmp_path: Path) -> None:
    """Each RUN and COPY of the build stage, outside a container; then the health check itself."""
    text = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    home, source = tmp_path / "windlass", tmp_path / "src"
    source.mkdir()
    build = text.split("FROM ")[1]
    for line in build.splitlines():
        word, _, rest = line.partition(" ")
        if word == "COPY":
            *paths, target = rest.split()
            for path in paths:
                _copy(ROOT / path, source, target)
        elif word == "RUN":
            step = rest.replace("/opt/windlass", str(home)).replace(
                "python -m", f"{sys.executable} -m"
            )
            subprocess.run(["sh", "-ec", step], cwd=source, check=True, timeout=BOUND)
    port, serving = free_ports(2)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "WINDLASS_STATE": str(tmp_path / "state"),
        "WINDLASS_API_PORT": str(port),
        "WINDLASS_SERVING_PORT": str(serving),
        "PATH": f"{home}/bin:{os.environ['PATH']}",
    }
    (tmp_path / "specs").mkdir()
    daemon = subprocess.Popen(["windlass", "up", "specs"], cwd=tmp_path, env=environment)
    try:
        check = _health_check(text).replace("8700", str(port))
        deadline = time.monotonic() + 120
        while subprocess.run(
            [f"{home}/bin/python", "-c", check], check=False, stderr=-3
        ).returncode:
            assert daemon.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as reply:
            assert json.load(reply)["ready"] is True
    finally:
        daemon.terminate()
        daemon.wait(60)


def _copy(path: Path, source: Path, target: str) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    if path.is_dir():
        shutil.copytree(path, source / target, ignore=ignore)
    else:
        into = source / target
        if target.endswith("/"):
            into.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, into)


def _health_check(text: str) -> str:
    line = next(line for line in text.splitlines() if line.startswith("HEALTHCHECK"))
    command: list[str] = json.loads(line[line.index("[") :])
    return command[2]
