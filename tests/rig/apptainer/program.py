"""A strict double of ``apptainer`` and ``singularity`` for machines that have neither.

It reads real SIF files, runs the command in them with bubblewrap, and refuses what it does not
implement (exit 125, ``unsupported``). The recorded answers of the real program are its measure.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rig.apptainer.flags import Flags, Usage, parse
from rig.apptainer.image import Fatal, Unsupported, opened
from rig.apptainer.mounts import START, identity_files, laid, view
from rig.apptainer.variables import GO, READY, checked, described, inherited, injected, script

VERSION = "1.4.5"
COMMANDS = ("exec", "inspect", "pull", "run", "run-help", "version")
OTHER_COMMANDS = [
    "build",
    "cache",
    "capability",
    "checkpoint",
    "completion",
    "config",
    "delete",
    "help",
    "instance",
    "key",
    "keyserver",
    "oci",
    "overlay",
    "plugin",
    "push",
    "registry",
    "remote",
    "search",
    "shell",
    "sif",
    "sign",
    "test",
    "verify",
]
_PR_SET_CHILD_SUBREAPER = 36
PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def main(words: Sequence[str], cache: Path) -> int:
    """Do what the command line says; the exit status."""
    try:
        return _main(list(words), cache)
    except Usage as error:
        command = next((word for word in words if word in COMMANDS), "apptainer")
        sys.stderr.write(f'Error for command "{command}": {error}\n\n')
        sys.stdout.write(f"Options for {command} command:\n" if error.options else "")
        sys.stdout.write("Usage:\n  apptainer [global options...] <command>\n")
        return 1
    except Fatal as error:
        sys.stderr.write(f"FATAL:   {error}\n")
        return 255
    except Unsupported as error:
        sys.stderr.write(f"unsupported by this double of Apptainer: {error}\n")
        return 125


def _main(words: list[str], cache: Path) -> int:
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "--version":
            sys.stdout.write(f"apptainer version {VERSION}\n")
            return 0
        if word not in ("-q", "--quiet", "-s", "--silent", "--nocolor"):
            raise Unsupported(f"global flag {word}")
    if not words:
        raise Usage("no command", options=False)
    command, rest = words[0], words[1:]
    if command in ("exec", "run"):
        return _run(command, parse(rest, os.environ), cache)
    if command == "version" and not rest:
        sys.stdout.write(f"{VERSION}\n")
        return 0
    if command == "pull":
        return _pull(rest)
    if command in ("inspect", "run-help"):
        return _inspect(command, rest, cache)
    if command in (*COMMANDS, *OTHER_COMMANDS):
        raise Unsupported(f"command {command}")
    raise Usage(f'unknown command "{command}" for "apptainer"', options=False)


def _run(command: str, flags: Flags, cache: Path) -> int:
    least = 2 if command == "exec" else 1
    if len(flags.rest) < least:
        what = f"requires at least {least} arg(s), only received {len(flags.rest)}"
        raise Usage(what, options=False)
    image = opened(flags.rest[0])
    if "writable" in flags.on:
        if image.offset is None:
            raise Unsupported("--writable on a directory")
        raise Fatal(f"no SIF writable overlay partition found in {image.path}")
    lines = injected(flags, os.environ)
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache) as made:
        own = Path(made)
        writable = "writable-tmpfs" in flags.on
        root = image.copy(own / "root") if writable else image.unpack(cache)
        identity_files(root, own)
        seen = view(flags, own)
        asked = flags.one("pwd")
        cwd = seen.cwd if asked is None else f"/{asked.lstrip('/')}"
        text = checked(script(lines, cwd, must=asked is not None, run=command == "run"))
        (own / "start").write_text(text)
        clean = bool({"cleanenv", "containall"} & flags.on)
        environment = inherited(os.environ, clean) | described(flags, image, seen.home, command)
        wrap = ["bwrap", *laid(root, seen, writable), "--ro-bind", str(own / "start"), START]
        wrap += _namespaces(flags) + ([] if writable else ["--remount-ro", "/"])
        # Rights that an invoker has as root stay, as they do with the real program.
        return _watch([*wrap, "--", "/bin/sh", START, *flags.rest[1:]], environment)


def _namespaces(flags: Flags) -> list[str]:
    words = []
    if "containall" in flags.on:
        words += ["--unshare-pid", "--unshare-ipc"]
    if (name := flags.one("hostname")) is not None:
        words += ["--unshare-uts", "--hostname", name]
    return words


def _watch(wrap: list[str], environment: dict[str, str]) -> int:
    """Run it, pass signals on, and end as the program ends: by the same signal if by one."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for each in (READY, GO):  # taken, so that no pipe gets one of these numbers
        os.dup2(nothing, each)
    info, told = os.pipe()
    ready, says = os.pipe()
    waits, go = os.pipe()
    os.dup2(says, READY)
    os.dup2(waits, GO)
    wrapper = subprocess.Popen(
        [wrap[0], "--info-fd", str(told), *wrap[1:]],
        env=environment,
        pass_fds=[told, READY, GO],
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED),
    )
    for each in (told, says, waits, READY, GO, nothing):
        os.close(each)
    with os.fdopen(info) as answer, os.fdopen(ready) as at_start:
        said = answer.read()
        if not at_start.readline():  # bubblewrap has said why on standard error
            wrapper.wait()
            return 255
    child = int(json.loads(said)["child-pid"])
    own = "--unshare-pid" in wrap
    payload = _only_child(child) if own else child
    if not own:
        # Its monitor would turn a signal into a number: this process takes the program over.
        wrapper.kill()
        wrapper.wait()

    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(payload, number)

    for each in PASSED:
        signal.signal(each, forward)
    os.close(go)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED)
    return wrapper.wait() if own else _end(_wait(child))


def _only_child(init: int) -> int:
    return int(Path(f"/proc/{init}/task/{init}/children").read_text().split()[0])


def _wait(child: int) -> int:
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _end(code: int) -> int:
    if code >= 0:
        return code
    raise _Killed(-code)


class _Killed(Exception):
    """The program died of a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _pull(words: list[str]) -> int:
    force = False
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word not in ("-F", "--force", "--disable-cache"):
            raise Unsupported(f"flag {word} of pull")
        force = force or word in ("-F", "--force")
    if not 1 <= len(words) <= 2:
        raise Usage(f"accepts between 1 and 2 arg(s), received {len(words)}", options=False)
    uri = words[-1]
    if not uri.startswith(("http://", "https://")):
        raise Unsupported(f"pulling from {uri}")
    to = Path(words[0] if len(words) == 2 else uri.rpartition("/")[2])
    if to.exists() and not force:
        raise Fatal(f'image file already exists: "{to}" - will not overwrite')
    part = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        with urllib.request.urlopen(uri, timeout=60) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except OSError as error:
        raise Fatal(f"while pulling image from {uri}: {error}") from error
    part.rename(to)
    return 0


def _inspect(command: str, words: list[str], cache: Path) -> int:
    files = {
        "--labels": "labels.json",
        "-l": "labels.json",
        "--runscript": "runscript",
        "-r": "runscript",
        "--deffile": "Singularity",
        "-d": "Singularity",
        "--helpfile": "runscript.help",
    }
    shown = "runscript.help" if command == "run-help" else "labels.json"
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word not in files or command != "inspect":
            raise Unsupported(f"flag {word} of {command}")
        shown = files[word]
    if len(words) != 1:
        raise Usage(f"accepts 1 arg(s), received {len(words)}", options=False)
    if not Path(words[0]).exists():
        raise Fatal(f"failed to inspect {words[0]}: no such file or directory")
    file = opened(words[0]).unpack(cache) / ".singularity.d" / shown
    if not file.is_file():
        raise Unsupported(f"an image without {shown}")
    text = file.read_text()
    if shown == "labels.json":
        text = "".join(f"{key}: {value}\n" for key, value in sorted(json.loads(text).items()))
    sys.stdout.write(text.rstrip("\n") + "\n")
    return 0


def start(cache: str) -> None:
    """Be the program: exit with its status, or die of its signal."""
    try:
        code = main(sys.argv[1:], Path(cache))
    except _Killed as killed:
        sys.stdout.flush()
        with contextlib.suppress(OSError):  # SIGKILL has no other action
            signal.signal(killed.number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [killed.number])
        os.kill(os.getpid(), killed.number)
        raise
    sys.stdout.flush()
    sys.exit(code)
