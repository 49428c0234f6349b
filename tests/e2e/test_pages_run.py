"""Pages, typed in: every command in a ``console`` block is run, in order.

A block's lines after a command are what it must print; ``...`` stands for anything. A command that
shows output is repeated until it prints that, because things take a moment: that is what a reader
does too. ``make run`` is replaced by what it starts (the bare-root rig runs it in earnest), and
ports, state folders and servers by ones of the test's own. ``export`` holds for what comes after
it, and ``windlass up`` takes the place of the daemon before it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.postgres import Postgres, running_postgres
from rig.project import PATIENCE, WINDLASS, Daemon, Project, free_ports
from rig.rabbitmq import Broker

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.timeout(300)
SECOND = "WINDLASS_NAME=lab-2"
"""What starts one more daemon, and does not take the place of another."""


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Project]:
    """A repository that holds specs/ and docker/ at the places where the pages expect them."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "specs", tree / "specs")
    made = ("amqp_*", "postgres_*")  # secrets of whoever has run docker/secrets/make here
    shutil.copytree(ROOT / "docker", tree / "docker", ignore=shutil.ignore_patterns(*made))
    project = Project(tmp_path, tree)
    (project.repository / ".venv").symlink_to(Path(WINDLASS).parents[1])
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


class Reader:
    """Types a page in."""

    def __init__(self, project: Project, instead: dict[str, str] | None = None) -> None:
        """``instead``: what of the page stands for what here."""
        self._project = project
        second = free_ports(2)
        self._instead = {
            "8700": str(project.api_port),
            "8701": str(project.serving_port),
            "8710": str(second[0]),
            "8711": str(second[1]),
            " .windlass/": f" {project.state}/",
            "WINDLASS_STATE=.windlass-2": f"WINDLASS_STATE={project.state}-2",
            **(instead or {}),
        }
        self.environment = {
            **project.environment,
            "PATH": f"{project.repository / '.venv/bin'}:{project.environment['PATH']}",
        }
        self._daemon: Daemon | None = None
        self.last = ""

    def read(self, page: str) -> None:
        """Type all of it. Raises AssertionError with what did not print what it should."""
        for command, output in steps(ROOT / page):
            try:
                self._do(command, output, page)
            except AssertionError as error:
                raise AssertionError(f"{self.last}\n{error}") from None

    def _do(self, command: str, output: str, page: str) -> None:
        if command == "make run":
            command = "windlass up specs/quickstart"
        if command.startswith("export "):
            self._export(command)
        elif "windlass up" in command:
            self._up(command)
        else:
            if command == "windlass down":  # of which the page says that Ctrl-C comes first
                self._interrupt()
            expected = pattern(self._ported(output)) if output else None
            self._project.until(lambda: self._succeeds(command, expected), f"{page}: {command}")

    def _export(self, command: str) -> None:
        name = command.split()[1].partition("=")[0]
        done = self._typed(f"{command} && printenv {name}")
        assert done.returncode == 0, command
        self.environment[name] = done.stdout.strip()

    def _up(self, command: str) -> None:
        more = SECOND in command
        if not more:
            self._interrupt()
        self._project.environment = self.environment
        words = self._ported(command).replace("windlass up", "exec windlass up")
        started = self._project.start("bash", "-c", words)
        if not more:
            self._daemon = started
            self._project.until(lambda: self._project.ask("/readyz"), "ready", PATIENCE)

    def _interrupt(self) -> None:
        if self._daemon is not None:
            self._daemon.interrupt()
            self._daemon = None

    def _succeeds(self, command: str, expected: re.Pattern[str] | None) -> bool:
        """Run it once. A command that shows no output must end well at the first go."""
        done = self._typed(command)
        self.last = f"$ {command}\n{done.stdout}{done.stderr}"
        if expected is None and done.returncode:
            raise AssertionError(self.last)
        return expected is None or expected.search(self.last) is not None

    def _typed(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run one line as a second terminal would."""
        return subprocess.run(
            ["bash", "-c", self._ported(command)],
            cwd=self._project.repository,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _ported(self, text: str) -> str:
        for there, here in self._instead.items():
            text = text.replace(there, here)
        return text


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_each_command_of_the_page_does_what_the_page_says(clone: Project, page: str) -> None:
    """From top to bottom, in one repository with one daemon."""
    assert "windlass up specs/quickstart" in (ROOT / "Makefile").read_text()
    Reader(clone).read(page)


def test_the_page_of_messages(clone: Project, broker: Broker, tmp_path: Path) -> None:
    """Specs, transfer, snapshot, inference; the shipped users; signed messages."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "rabbitmqctl").write_text(broker.control_script())
    (programs / "rabbitmqctl").chmod(0o755)
    reader = Reader(
        clone,
        {
            "amqp://guest:guest@localhost": broker.url(broker.vhost()),
            "@localhost/windlass": f"@127.0.0.1:{broker.port}/windlass",
        },
    )
    reader.environment["PATH"] = f"{programs}:{reader.environment['PATH']}"
    reader.read("docs/messages.md")
    broker.control("delete_vhost", "windlass")


@pytest.fixture
def guarded() -> Iterator[Postgres]:
    """A database that lets in only those with a password, over TLS, and us by its socket."""
    with running_postgres(tls=True) as started:
        yield started


def test_the_page_of_several_daemons(clone: Project, guarded: Postgres) -> None:
    """What one daemon has made moves to the shared store, and two go on with it."""
    assert guarded.certificates is not None
    alone = clone.up(path="specs/quickstart")
    clone.until(lambda: clone.ready("Deployment/wine"), "it serves", 120)
    alone.interrupt()
    reader = Reader(
        clone,
        {
            "@db.example.org/": f"@127.0.0.1:{guarded.port}/",
            "/etc/windlass/ca.pem": str(guarded.certificates.authority),
            "/srv/windlass/artifacts": str(clone.state / "artifacts"),
        },
    )
    reader.environment |= {"PGHOST": str(guarded.folder), "PGPORT": str(guarded.port)}
    reader.environment["PGUSER"] = "postgres"
    runs = clone.runs()
    reader.read("docs/postgresql.md")
    clone.until(lambda: clone.ready("Deployment/wine"), "it serves", 120)
    assert clone.runs() == runs, "what moved is known: nothing is trained again"
