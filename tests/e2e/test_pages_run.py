"""README and quickstart, typed in: every command in a ``console`` block is run, in order.

A block's lines after a command are what it must print; ``...`` stands for anything. A command that
shows output is repeated until it prints that, because things take a moment: that is what a reader
does too. ``make run`` is replaced by what it starts (the bare-root rig runs it in earnest), and the
two ports and the state folder by ones of the test's own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.project import PATIENCE, WINDLASS, Daemon, Project

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Project]:
    """A repository that holds specs/quickstart at the place where the pages expect it."""
    specs = tmp_path / "tree"
    shutil.copytree(ROOT / "specs", specs / "specs")
    project = Project(tmp_path, specs)
    (project.repository / ".venv").mkdir()
    (project.repository / ".venv/bin").symlink_to(Path(WINDLASS).parent)
    (project.repository / ".git/info/exclude").write_text(".venv\n")
    yield project
    project.close()


def steps(page: Path) -> list[tuple[str, str]]:
    """Each command of a page with what it must print."""
    found: list[tuple[str, str]] = []
    for block in BLOCK.findall(page.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            else:
                command, output = found[-1]
                found[-1] = (command, f"{output}{line}\n")
    return found


def pattern(output: str) -> re.Pattern[str]:
    """What is expected, as a pattern."""
    return re.compile(".*".join(re.escape(part) for part in output.strip().split("...")), re.DOTALL)


def typed(project: Project, command: str) -> subprocess.CompletedProcess[str]:
    """Run one line as a second terminal would."""
    path = f"{project.repository / '.venv/bin'}:{project.environment['PATH']}"
    return subprocess.run(
        ["bash", "-c", ported(project, command)],
        cwd=project.repository,
        env={**project.environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ported(project: Project, text: str) -> str:
    """With the project's own ports and state folder."""
    ported = text.replace("8700", str(project.api_port)).replace("8701", str(project.serving_port))
    return ported.replace(" .windlass/", f" {project.state}/")


class Step:
    """A command, and how often it takes until it prints what the page shows."""

    def __init__(self, project: Project, command: str, output: str) -> None:
        self._project = project
        self._command = command
        self._expected = pattern(ported(project, output)) if output else None
        self.last = ""

    def succeeds(self) -> bool:
        """Run it once. A command that shows no output must end well at the first go."""
        done = typed(self._project, self._command)
        self.last = f"$ {self._command}\n{done.stdout}{done.stderr}"
        if self._expected is None and done.returncode:
            raise AssertionError(self.last)
        return self._expected is None or self._expected.search(self.last) is not None


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_each_command_of_the_page_does_what_the_page_says(clone: Project, name: str) -> None:
    """From top to bottom, in one repository with one daemon."""
    assert "windlass up specs/quickstart" in (ROOT / "Makefile").read_text()
    daemon: Daemon | None = None
    for command, output in steps(ROOT / name):
        if command == "make run":
            daemon = clone.up(path="specs/quickstart")
            daemon.await_answer()
            continue
        if command == "windlass down":  # of which the page says that Ctrl-C comes first
            assert daemon is not None
            daemon.interrupt()
        step = Step(clone, command, output)
        try:
            clone.until(step.succeeds, f"{name}: {command}", seconds=PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{step.last}\n{error}") from None
