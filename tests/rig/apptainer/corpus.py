"""Run the recorded cases against an ``apptainer``: ``corpus BIN DATA OUTSIDE [TIER]``.

Run by an ordinary user with the standard library alone. Ends with 0 only if every case matched.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from rig.apptainer.image import opened

REFUSED = 125


class Expected(TypedDict, total=False):
    """What the real program answered."""

    exit: int
    stdout: str
    stdout_has: list[str]
    stderr_has: list[str]


class Case(TypedDict, total=False):
    """One command line."""

    id: str
    tier: str
    program: str
    argv: list[str]
    env: dict[str, str]
    files: dict[str, str]
    copy: dict[str, str]
    cwd: str
    stdin: str
    signal: str
    expect: Expected
    after: dict[str, str | None]


@dataclass(frozen=True)
class Answer:
    """What a program did."""

    exit: int
    stdout: str
    stderr: str
    after: Mapping[str, str | None]


@dataclass(frozen=True)
class Corpus:
    """The cases, and what they run with."""

    programs: Path
    images: Path
    outside: Path
    base: Mapping[str, str]

    def run(self, case: Case) -> Answer:
        """What the program does in a case."""
        root = Path(tempfile.mkdtemp(prefix="acx-", dir="/tmp")).resolve()
        names = self._names(root)
        try:
            self._lay_out(case, root, names)
            environment = {**self.base, **case.get("env", {})}
            process = subprocess.Popen(
                [
                    str(self.programs / case.get("program", "apptainer")),
                    *(_fill(word, names) for word in case["argv"]),
                ],
                cwd=_fill(case.get("cwd", "{work}"), names),
                env={name: _fill(value, names) for name, value in environment.items()},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            out, err = _talk(process, case)
            after = {
                name: (root / name).read_text() if (root / name).is_file() else None
                for name in case.get("after", {})
            }
            said = [_normal(raw.decode("utf-8", "backslashreplace"), names) for raw in (out, err)]
            return Answer(process.returncode, said[0], said[1], after)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _names(self, root: Path) -> dict[str, str]:
        me = pwd.getpwuid(os.getuid())
        images = self.images
        return {
            "root": str(root),
            "work": str(root / "work"),
            "images": str(images),
            "home": me.pw_dir,
            "user": me.pw_name,
            "uid": str(me.pw_uid),
            "gid": str(me.pw_gid),
            "outside": str(self.outside),
            "sif": f"{images}/img.sif",
            "sqfs": f"{images}/img.sqfs",
            "sandbox": f"{images}/sandbox",
            "plain": f"{images}/plain",
            "plainsqfs": f"{images}/plain.sqfs",
        }

    def _lay_out(self, case: Case, root: Path, names: Mapping[str, str]) -> None:
        (root / "work").mkdir()
        for name, text in case.get("files", {}).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
            else:
                path.write_text(_fill(text, names))
        for name, to in case.get("copy", {}).items():
            shutil.copytree(self.images / name, root / to, symlinks=True, dirs_exist_ok=True)


def _talk(process: subprocess.Popen[bytes], case: Case) -> tuple[bytes, bytes]:
    first = b""
    name = case.get("signal")
    if name and process.stdout is not None:
        first = process.stdout.readline()  # the program says that its trap is set
        process.send_signal(signal.Signals[f"SIG{name}"])
    try:
        out, err = process.communicate(None if name else case.get("stdin", "").encode(), 60)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += b"\nTIMEOUT"
    return first + out, err


def _fill(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], found[0]), text)


def _normal(text: str, names: Mapping[str, str]) -> str:
    for key, value in sorted(names.items(), key=lambda pair: -len(pair[1])):
        if "/" in value:
            text = re.sub(re.escape(value) + r"(?![\w.-])", "{" + key + "}", text)
    return text


def images(sif: Path, to: Path) -> None:
    """Everything that the cases take for an image."""
    shutil.copy(sif, to / "img.sif")
    offset = opened(str(sif)).offset or 0
    (to / "img.sqfs").write_bytes(sif.read_bytes()[offset:])
    for name in ("sandbox", "plain"):
        _quietly("unsquashfs", "-no-xattrs", "-d", to / name, to / "img.sqfs")
    shutil.rmtree(to / "plain" / ".singularity.d")
    for link in ("singularity", "environment", ".exec", ".run", ".shell", ".test"):
        (to / "plain" / link).unlink(missing_ok=True)
    _quietly("mksquashfs", to / "plain", to / "plain.sqfs", "-noappend", "-all-root")
    (to / "text.sif").write_text("this is not an image\n")
    (to / "empty.sif").write_text("")
    (to / "cut.sif").write_bytes(sif.read_bytes()[:20000])


def _quietly(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


def faults(case: Case, got: Answer) -> list[str]:
    """Where an answer differs from the recorded one."""
    want, bad = case["expect"], []
    if got.exit != want["exit"]:
        bad.append(f"exit {got.exit}, recorded {want['exit']}: {got.stderr!r}")
    if "stdout" in want and got.stdout != want["stdout"]:
        bad.append(f"stdout {got.stdout!r}, recorded {want['stdout']!r}")
    bad += [
        f"stdout lacks {text!r}" for text in want.get("stdout_has", []) if text not in got.stdout
    ]
    bad += [
        f"stderr lacks {text!r}: {got.stderr!r}"
        for text in want.get("stderr_has", [])
        if text not in got.stderr
    ]
    for name, text in case.get("after", {}).items():
        if got.after.get(name) != text:
            bad.append(f"file {name}: {got.after.get(name)!r}, recorded {text!r}")
    return bad


def main(programs: Path, data: Path, outside: Path, tier: str = "") -> int:
    """Run them all, or those of a tier; how many differed."""
    recorded = json.loads((data / "corpus.json").read_text())
    failed = refused = 0
    with tempfile.TemporaryDirectory(prefix="acx-img-", dir="/tmp") as made:
        there = Path(made).resolve()
        images(data / "busybox.sif", there)
        cases = [case for case in recorded["cases"] if tier in ("", case["tier"])]
        corpus = Corpus(programs, there, outside, recorded["base_env"])
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(corpus.run, cases))
        for case, got in zip(cases, answers, strict=True):
            if case["tier"] != "core" and got.exit == REFUSED and "unsupported" in got.stderr:
                refused += 1
                sys.stdout.write(f"refused {case['id']}\n")
            elif bad := faults(case, got):
                failed += 1
                sys.stdout.write("\n     ".join([f"FAIL {case['id']}", *bad]) + "\n")
    sys.stdout.write(f"{len(cases)} run, {failed} failed, {refused} refused\n")
    return failed


if __name__ == "__main__":
    where = [Path(word) for word in sys.argv[1:4]]
    sys.exit(min(main(where[0], where[1], where[2], *sys.argv[4:]), 100))
