"""The README on a machine that has nothing: both commands and the story, in a bare Debian root.

Not part of the suite, because it takes minutes and needs root, debootstrap and a network:
``make test-fresh``, or ``python3 tests/rig/fresh_debian.py --test`` for ``make test`` as well.
Standard library only: it runs before there is an environment.

pip's and TLS' variables of this process are passed on, and the files that they name are copied to
the same place inside, so that it works behind a mirror as well. The root is a machine of its own as
far as processes and mounts go: when its first process ends, the kernel ends all the others and
drops the mounts, also after a failure. The network is this machine's, ports included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = "python3,python3-venv,git,make,curl,ca-certificates"
# The first process inside: enters the root for good, and ends when this script does.
FIRST = """
set -e
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
cd "$1"
mkdir -p old
pivot_root . old
umount --lazy /old
echo inside
read -r
"""
HOME = "/home/newcomer"
CLONE = f"{HOME}/windlass"
USER = "1000"
ADMINISTRATOR = "0"
"""Who installs the servers that `make test` asks for."""
CURL = "curl -s localhost:8701/v2/models/wine/infer -d @specs/quickstart/request.json"
EDIT = (
    "sed -i 's/regularization: 1.0/regularization: 10.0/' specs/quickstart/wine.yaml"
    " && git commit --quiet --all --message 'Regularize more'"
)
REVERT = "git revert --no-edit HEAD"
PORTS = (8700, 8701)
READY = "curl -s --fail localhost:8700/readyz"
INSTALL_SECONDS = 600
STORY_SECONDS = 60


def say(text: str) -> None:
    """Print at once: somebody is watching."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class FreshError(Exception):
    """The story does not hold on a fresh machine, or this machine cannot try it."""


class Root:
    """A bare Debian root, and commands run inside it as a user who is not root."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first = 0
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": HOME,
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            # Committing needs a name, and a fresh machine has none.
            **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "Newcomer"),
            **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "newcomer@example.org"),
            **passed_on(),
        }

    def bootstrap(self, suite: str, mirror: str | None) -> None:
        """Install the packages, unless the root is there from an earlier run."""
        if (self.path / "usr/bin/make").exists():
            return
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite]
        command += [str(self.path), *([mirror] if mirror else [])]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def furnish(self) -> None:
        """Give the root a name server, the certificates that pip needs, a user, and a clone."""
        self.path.chmod(0o755)  # a temporary folder is closed to the user inside
        files = [value for value in self.environment.values() if Path(value).is_file()]
        for name in ("/etc/resolv.conf", "/etc/hosts", *files):
            inside = self.path / name.lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.unlink(missing_ok=True)
            shutil.copyfile(name, inside)
        home = self.path / HOME.lstrip("/")
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        passwd = self.path / "etc/passwd"
        if "newcomer" not in passwd.read_text():
            with passwd.open("a") as file:
                file.write(f"newcomer:x:{USER}:{USER}::{HOME}:/bin/bash\n")
        clone = self.path / CLONE.lstrip("/")
        subprocess.run(["git", "clone", "--quiet", "--no-local", REPOSITORY, clone], check=True)
        subprocess.run(["chown", "-R", f"{USER}:{USER}", home], check=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have a first process inside. It ends with this block, and everything else with it."""
        spaces = ["unshare", "--mount", "--pid", "--fork", "--propagation", "private"]
        script = ["bash", "-c", FIRST, "first", str(self.path)]
        pipe = subprocess.PIPE
        with subprocess.Popen([*spaces, *script], stdin=pipe, stdout=pipe) as outer:
            if outer.stdout is None or outer.stdout.readline() != b"inside\n":
                raise FreshError("cannot enter the root; see the message above")
            children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
            self.first = int(children.read_text())
            yield

    def processes(self) -> list[int]:
        """Every process inside but the first, by the ids that they have outside."""
        space = Path(f"/proc/{self.first}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "ns/pid").readlink() == space:
                    found.append(int(entry.name))
        return [pid for pid in found if pid != self.first]

    def stop_everything(self) -> None:
        """TERM, a while, KILL."""
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(FreshError):
                until(lambda: not self.processes(), patience, "the processes ended")

    def command(self, shell: str, user: str = USER, *, fork: bool = True) -> list[str]:
        """How to run a shell line in the clone, as the newcomer or as root.

        Without a fork, the command gets the terminal's Ctrl-C itself: nsenter would die of it and
        hide how the command ends. But then only its children are inside, so `/proc/self` is not.
        """
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        inside = ["env", "-i", *variables, "bash", "-c", f"cd {CLONE} && {shell}"]
        enter = ["nsenter", "--target", str(self.first), "--mount", "--pid"]
        enter += [] if fork else ["--no-fork"]
        return [*enter, "--setuid", user, "--setgid", user, "--", *inside]

    def run(self, shell: str, *, check: bool = True, user: str = USER) -> str:
        """Run a shell line to its end and give what it printed."""
        ended = subprocess.run(
            self.command(shell, user), capture_output=True, text=True, check=False, timeout=5400
        )
        if check and ended.returncode:
            raise FreshError(f"$ {shell}\nexit {ended.returncode}\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def succeeds(self, shell: str) -> bool:
        """Whether a shell line ends well."""
        return subprocess.run(self.command(shell), capture_output=True, check=False).returncode == 0


def passed_on() -> dict[str, str]:
    """The variables that pip and TLS need here. Folders of this machine are not there inside."""
    pattern = re.compile(r"PIP_.*|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|(https?|no|all)_proxy", re.I)
    chosen = {name: value for name, value in os.environ.items() if pattern.fullmatch(name)}
    return {name: value for name, value in chosen.items() if not Path(value).is_dir()}


class Terminal:
    """A command on a terminal of its own, so that Ctrl-C is what it is for a person."""

    def __init__(self, command: list[str]) -> None:
        self.output = b""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execvp(command[0], command)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := os.read(self._terminal, 65536):
                self.output += chunk

    @property
    def text(self) -> str:
        """What has been shown so far."""
        return self.output.decode(errors="replace").replace("\r", "")

    def ended(self) -> bool:
        """Whether the command is over; ``exit_code`` is set then."""
        if not hasattr(self, "exit_code"):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == 0:
                return False
            self.exit_code = os.waitstatus_to_exitcode(status)
        return True

    def press_ctrl_c(self) -> None:
        """What a person does to end it."""
        os.write(self._terminal, b"\x03")


def until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait for a condition; the seconds that it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise FreshError(f"waited {seconds:.0f} s for: {what}")
        time.sleep(0.05)
    return time.monotonic() - started


def predicted(root: Root) -> dict[str, list[float]]:
    """What the README's curl answers, by output name; empty while there is no answer."""
    try:
        reply = json.loads(root.run(CURL, check=False))
        return {output["name"]: output["data"] for output in reply["outputs"]}
    except (ValueError, KeyError):
        return {}


def start(root: Root, what: str) -> Terminal:
    """``make run`` in a terminal, until the daemon is ready and the curl answers a wine class."""
    terminal = Terminal(root.command("exec make run", fork=False))

    def there() -> object:
        return terminal.ended() or (root.succeeds(READY) and predicted(root))

    try:
        seconds = until(there, INSTALL_SECONDS, "a prediction")
    except FreshError as error:
        raise FreshError(f"{error}\n{terminal.text}") from None
    answer = predicted(root)
    if terminal.ended() or answer.get("label") not in ([0], [1], [2]):
        raise FreshError(f"no daemon, or no wine class in {answer}\n{terminal.text}")
    say(f"{what}: {seconds:.1f} s from `make run` to a ready daemon and a prediction")
    say(f"  {answer}")
    return terminal


def stop(terminal: Terminal) -> None:
    """Ctrl-C, and nothing that looks like a failure."""
    terminal.press_ctrl_c()
    seconds = until(terminal.ended, 40, "`make run` ended after Ctrl-C")
    if re.search(r"Traceback|\bError\b|\*\*\*", terminal.text):
        raise FreshError(f"Ctrl-C was not clean:\n{terminal.text}")
    say(f"Ctrl-C: ended in {seconds:.1f} s")


def main() -> int:
    """Build the root, live the story, say what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--suite", default="bookworm", help="Debian release (bookworm)")
    parser.add_argument("--mirror", help="where debootstrap gets packages")
    parser.add_argument("--root", type=Path, help="folder to build in and keep, for the next time")
    parser.add_argument("--test", action="store_true", help="run `make test` inside as well")
    arguments = parser.parse_args()
    try:
        check_machine()
        with contextlib.ExitStack() as stack:
            folder = arguments.root or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            root = Root(folder.resolve())
            took = time.monotonic()
            root.bootstrap(arguments.suite, arguments.mirror)
            root.furnish()
            say(f"bare root: {time.monotonic() - took:.1f} s ({PACKAGES})")
            stack.enter_context(root.running())
            live(root)
            if arguments.test:
                took = time.monotonic()
                root.run("tests/rig/system-packages", user=ADMINISTRATOR)
                say(f"packages for the tests: {time.monotonic() - took:.1f} s")
                took = time.monotonic()
                say(root.run("make test").rstrip().rpartition("\n")[2])
                say(f"make test: {time.monotonic() - took:.1f} s")
    except FreshError as error:
        say(f"fresh: {error}")
        return 1
    return 0


def check_machine() -> None:
    """Say what is missing here before anything is made."""
    if os.geteuid() != 0:
        raise FreshError("needs root to mount; run: sudo make test-fresh")
    if shutil.which("debootstrap") is None:
        raise FreshError("needs debootstrap; run: apt-get install debootstrap")
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise FreshError(f"port {port} is in use; stop what listens there and try again")


def live(root: Root) -> None:
    """The README, from top to bottom, and a `kill -9` of the daemon."""
    terminal = start(root, "cold (packages are downloaded)")
    runs = count_runs(root)
    say(f"edit: the other model answered {change(root, EDIT):.1f} s after the commit")
    say(f"revert: the first model answered {change(root, REVERT):.1f} s after the commit")
    expect_runs(root, runs + 1, "one for the edit and none for the revert")

    stop(terminal)
    terminal = start(root, "second start")
    expect_runs(root, runs + 1, "a second start trains nothing")

    daemon = [pid for pid in root.processes() if is_daemon(pid)]
    os.kill(daemon[0], signal.SIGKILL)
    until(terminal.ended, 10, "`make run` ended after kill -9 of the daemon")
    if not predicted(root):
        raise FreshError("nobody answers after kill -9 of the daemon")
    say("kill -9 of the daemon: predictions go on without it")
    stop(start(root, "start after kill -9"))
    expect_runs(root, runs + 1, "kill -9 caused no run")

    root.stop_everything()
    root.run("rm -rf .windlass")
    stop(start(root, "environment there, nothing remembered"))


def change(root: Root, shell: str) -> float:
    """Commit something; the seconds until another class is answered."""
    before = predicted(root)["label"]
    root.run(shell)
    return until(lambda: predicted(root).get("label", before) != before, STORY_SECONDS, "a swap")


def count_runs(root: Root) -> int:
    """How many runs there have ever been."""
    return len(list((root.path / CLONE.lstrip("/")).glob(".windlass/**/runs/*/run.json")))


def expect_runs(root: Root, count: int, why: str) -> None:
    """Count again."""
    if count_runs(root) != count:
        raise FreshError(f"{count_runs(root)} runs, expected {count}: {why}")
    say(f"runs: {count} ({why})")


def is_daemon(pid: int) -> bool:
    """Whether that process is `windlass up`."""
    return b"windlass\0up\0" in Path(f"/proc/{pid}/cmdline").read_bytes()


if __name__ == "__main__":
    sys.exit(main())
