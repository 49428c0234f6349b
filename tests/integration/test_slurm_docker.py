"""The cluster for container engines: what can be checked of it without one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import yaml

from windlass_schemas import parse_resource

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "slurm"


def test_compose_understands_the_file_and_every_machine_is_there() -> None:
    """All machines of slurm.conf are services, and each is told which machine it is."""
    compose = shutil.which("docker-compose")
    assert compose is not None
    done = subprocess.run(
        [compose, "--file", str(FOLDER / "compose.yaml"), "config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"database", "accounting", "login", "n1", "n2"}
    commands = {name: json.dumps(each.get("command")) for name, each in services.items()}
    machine = (FOLDER / "machine").read_text()
    for name in ("accounting", "login", "n1", "n2"):
        assert f"\n{json.loads(commands[name])[0]})\n" in machine
        assert services[name]["hostname"] == name
    conf = (FOLDER / "slurm.conf").read_text()
    assert "SlurmctldHost=login" in conf
    assert "NodeName=n[1-2]" in conf
    assert services["login"]["ports"] == ["127.0.0.1:2222:22/tcp"], "not open to the network"


def test_the_image_copies_files_that_are_there_and_runs_a_script_that_a_shell_reads() -> None:
    """No file is missing, none is left out."""
    dockerfile = (FOLDER / "Dockerfile").read_text()
    copied = {
        name
        for line in re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", dockerfile, re.MULTILINE)
        for name in line.split()
    }
    there = {path.name for path in FOLDER.iterdir()} - {"Dockerfile", "compose.yaml"}
    assert copied == there
    for name in ("machine",):
        subprocess.run(["sh", "-n", str(FOLDER / name)], check=True, timeout=10)


def test_the_page_declares_a_target_that_is_valid() -> None:
    """Port, user and root are those of the containers."""
    page = (ROOT / "docs/adapters/slurm-docker.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    target = parse_resource(yaml.safe_load(text))
    assert target.kind == "Target"
    assert "port: 2222" in text
    assert (
        "useradd --create-home --shell /bin/bash --uid 1000 ada"
        in (FOLDER / "Dockerfile").read_text()
    )
