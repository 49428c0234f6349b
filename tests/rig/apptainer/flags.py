"""The command line, parsed as strictly as the real one: what is not known is refused."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rig.apptainer.image import Unsupported

BOOLEANS = {
    "cleanenv": "e",
    "contain": "c",
    "containall": "C",
    "no-eval": "",
    "no-home": "",
    "nv": "",
    "rocm": "",
    "userns": "u",
    "writable": "w",
    "writable-tmpfs": "",
}
VALUES = {
    "bind": "B",
    "cwd": "",
    "env": "",
    "env-file": "",
    "home": "H",
    "hostname": "",
    "no-mount": "",
    "pwd": "",
    "workdir": "W",
}
# Flags of the real program that this one does not implement: name -> (short, takes a value).
REFUSED = {
    **dict.fromkeys(
        [
            "allow-setuid",
            "compat",
            "disable-cache",
            "ipc",
            "keep-privs",
            "net",
            "no-https",
            "no-init",
            "no-pid",
            "no-privs",
            "no-tmp-sandbox",
            "no-umask",
            "nvccli",
            "oom-kill-disable",
            "passphrase",
            "pid",
            "sharens",
            "unsquash",
            "underlay",
            "uts",
            "intel-hpu",
        ],
        ("", False),
    ),
    **dict.fromkeys(
        [
            "add-caps",
            "app",
            "apply-cgroups",
            "blkio-weight",
            "blkio-weight-device",
            "cpu-shares",
            "cpus",
            "cpuset-cpus",
            "cpuset-mems",
            "dns",
            "docker-host",
            "drop-caps",
            "fusemount",
            "memory",
            "memory-reservation",
            "memory-swap",
            "mount",
            "network",
            "network-args",
            "pem-path",
            "pids-limit",
            "runscript-timeout",
            "scratch",
            "security",
            "shell",
            "netns-path",
        ],
        ("", True),
    ),
    "fakeroot": ("f", False),
    "ipc": ("i", False),
    "net": ("n", False),
    "overlay": ("o", True),
    "pid": ("p", False),
    "scratch": ("S", True),
    "shell": ("s", True),
}
LISTS = {"bind", "no-mount"}
TRUE, FALSE = {"1", "t", "T", "true", "TRUE", "True"}, {"0", "f", "F", "false", "FALSE", "False"}


class Usage(Exception):
    """What Apptainer answers with its usage and 1. ``options``: whether it lists the flags."""

    def __init__(self, message: str, options: bool = True) -> None:
        super().__init__(message)
        self.options = options


@dataclass
class Flags:
    """What was asked for."""

    on: set[str] = field(default_factory=set)
    given: dict[str, list[str]] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)
    """The image and what follows."""

    def one(self, name: str) -> str | None:
        """The last value of a flag."""
        values = self.given.get(name)
        return values[-1] if values else None

    def words(self, name: str) -> list[str]:
        """The values of a flag that takes a list: at commas that no backslash precedes."""
        return [word for text in self.given.get(name, []) for word in split(text, ",") if word]


def parse(words: Sequence[str], environment: Mapping[str, str]) -> Flags:
    """Flags of ``exec`` and ``run``: of the line, and of the environment where it has none."""
    flags, todo = Flags(), list(words)
    while todo:
        word = todo.pop(0)
        if word == "--":
            flags.rest = todo
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            _long(flags, name, value if equals else None, todo)
        elif word.startswith("-") and word != "-":
            _short(flags, word, todo)
        else:
            flags.rest = [word, *todo]
            break
    _from_environment(flags, environment)
    return flags


def _long(flags: Flags, name: str, value: str | None, todo: list[str]) -> None:
    if name in REFUSED:
        raise Unsupported(f"flag --{name}")
    if name in BOOLEANS:
        _switch(flags, name, "true" if value is None else value)
    elif name in VALUES:
        if value is None:
            if not todo:
                raise Usage(f"flag needs an argument: --{name}")
            value = todo.pop(0)
        _give(flags, name, value)
    else:
        raise Usage(f"unknown flag: --{name}")


def _short(flags: Flags, word: str, todo: list[str]) -> None:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        if any(short == letter for short, _ in REFUSED.values()):
            raise Unsupported(f"flag -{letter}")
        for name, short in BOOLEANS.items():
            if short == letter:
                value, letters = (letters[1:], "") if letters[:1] == "=" else ("true", letters)
                _switch(flags, name, value)
                break
        else:
            for name, short in VALUES.items():
                if short == letter:
                    if not letters and not todo:
                        raise Usage(f"flag needs an argument: '{letter}' in {word}")
                    _give(flags, name, letters.removeprefix("=") or todo.pop(0))
                    return
            raise Usage(f"unknown shorthand flag: '{letter}' in {word}")


def _switch(flags: Flags, name: str, value: str) -> None:
    if value not in TRUE | FALSE:
        what = f'strconv.ParseBool: parsing "{value}": invalid syntax'
        raise Usage(f'invalid argument "{value}" for "--{name}" flag: {what}')
    (flags.on.add if value in TRUE else flags.on.discard)(name)


def _give(flags: Flags, name: str, value: str) -> None:
    if name == "env":
        flags.env |= assignments(value)
    else:
        flags.given.setdefault("pwd" if name == "cwd" else name, []).append(value)


def assignments(text: str) -> dict[str, str]:
    """What ``--env`` sets. With one ``=`` the text is taken whole, else it is one line of CSV."""
    if text.count("=") == 0:
        raise _bad_env(text, f"{text} must be formatted as key=value")
    if text.count("=") == 1:
        fields = [text.strip('"')]
    else:
        line = text.split("\n", 1)[0]
        fields = _csv(text, line)
    pairs = {}
    for each in fields:
        name, equals, value = each.partition("=")
        if not equals:
            raise _bad_env(text, f"{each} must be formatted as key=value")
        pairs[name] = value
    return pairs


def _csv(text: str, line: str) -> list[str]:
    for position, letter in enumerate(line):
        # Go's reader allows a quote only around a whole field; Python's would take it as text.
        if letter == '"' and not _in_quoted_field(line, position):
            column = position + 1
            what = f'parse error on line 1, column {column}: bare " in non-quoted-field'
            raise _bad_env(text, what)
    return next(csv.reader(io.StringIO(line)), [])


def _in_quoted_field(line: str, position: int) -> bool:
    start, quoted = 0, False
    while start <= position:
        quoted = line[start : start + 1] == '"'
        end = line.find('"', start + 1) + 1 if quoted else line.find(",", start)
        if end <= 0 or position < end:
            return quoted
        start = line.find(",", end) + 1 if quoted else end + 1
        if start <= 0:
            return quoted
    return quoted


def _bad_env(text: str, why: str) -> Usage:
    return Usage(f'invalid argument "{text}" for "--env" flag: {why}')


def split(text: str, at: str) -> list[str]:
    """Split at a character that no backslash precedes; the backslashes before it go."""
    parts, part, escaped = [], "", False
    for letter in text:
        if letter == at and not escaped:
            parts.append(part)
            part = ""
            continue
        part = part[:-1] + letter if letter == at else part + letter
        escaped = letter == "\\" and not escaped
    return [*parts, part]


def _from_environment(flags: Flags, environment: Mapping[str, str]) -> None:
    for name in (*BOOLEANS, *VALUES, *REFUSED):
        variable = name.replace("-", "_").upper()
        value = environment.get(f"APPTAINER_{variable}", environment.get(f"SINGULARITY_{variable}"))
        if value is None or name in ("env", "shell"):
            continue
        if name in REFUSED:
            if value not in FALSE | {""}:
                raise Unsupported(f"variable APPTAINER_{variable}")
        elif name in BOOLEANS:
            _switch(flags, name, value or "false")
        elif name in LISTS:
            flags.given.setdefault(name, []).insert(0, value)
        elif name not in flags.given:
            _give(flags, name, value)


def own_names() -> set[str]:
    """Names of variables that this program reads for itself."""
    names = {name.replace("-", "_").upper() for name in (*BOOLEANS, *VALUES, *REFUSED)}
    return {f"{prefix}_{name}" for name in names for prefix in ("APPTAINER", "SINGULARITY")} | {
        name for name in os.environ if name.startswith(("APPTAINERENV_", "SINGULARITYENV_"))
    }
