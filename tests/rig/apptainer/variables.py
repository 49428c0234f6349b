"""The environment inside, and the small script that ends in the program."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from rig.apptainer.flags import Flags
from rig.apptainer.image import Fatal, Image, Unsupported

PREFIXES = ("APPTAINERENV_", "SINGULARITYENV_")
KEPT = {"LANG", "TERM", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "FTP_PROXY"}
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What is told of PATH by prefix variables is read by the image's 99-runtimevars.sh.
TO_PATH = {
    "PATH": "SING_USER_DEFINED_PATH",
    "PREPEND_PATH": "SING_USER_DEFINED_PREPEND_PATH",
    "APPEND_PATH": "SING_USER_DEFINED_APPEND_PATH",
}
READY, GO = 8, 9
"""Descriptors by which the start script says that it runs, and waits to be let go."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def warn(text: str) -> None:
    """Say something that does not stop the run."""
    sys.stderr.write(f"WARNING: {text}\n")


def inherited(host: Mapping[str, str], clean: bool) -> dict[str, str]:
    """What of the host's environment the image's scripts start from."""
    kept = {
        name: value
        for name, value in host.items()
        if not name.startswith(("APPTAINER", "SINGULARITY")) and name not in {"PATH", "HOME"}
    }
    kept.pop("LD_LIBRARY_PATH", None)
    if clean:
        return {name: value for name, value in kept.items() if name.upper() in KEPT}
    return kept | {"USER_PATH": host.get("PATH", "")}


def described(flags: Flags, image: Image, home: str, command: str) -> dict[str, str]:
    """What Apptainer tells the program of its container."""
    binds = ",".join(flags.given.get("bind", []))
    both = {
        "CONTAINER": str(image.path),
        "ENVIRONMENT": "/.singularity.d/env/91-environment.sh",
        "NAME": image.path.name,
        "BIND": binds,
    }
    return {
        **{
            f"{by}_{name}": text
            for by in ("APPTAINER", "SINGULARITY")
            for name, text in both.items()
        },
        "APPTAINER_APPNAME": "",
        "APPTAINER_COMMAND": command,
        "HOME": home,
        "PATH": DEFAULT_PATH,
        "PS1": "Apptainer> ",
        "PROMPT_COMMAND": 'PS1="Apptainer> "; unset PROMPT_COMMAND',
    }


def injected(flags: Flags, host: Mapping[str, str]) -> dict[str, str]:
    """What is set after the image's own environment, as text that the shell evaluates or not."""
    asked: dict[str, str] = {}
    for prefix in PREFIXES:
        for name, value in host.items():
            key = name.removeprefix(prefix)
            if key == name or not NAME.match(key):
                continue
            if key == "HOME":
                warn(f"Overriding HOME environment variable with {name} is not permitted")
            elif key in asked and asked[key] != value:
                warn(
                    f"{prefix}{key} and {PREFIXES[0]}{key} have different values, "
                    f"{prefix}{key} is already overridden"
                )
            else:
                asked.setdefault(key, value)
    lines = {key: evaluated(value) for key, value in asked.items()}
    if "no-eval" in flags.on:
        lines = {key: shlex.quote(value) for key, value in asked.items()}
    lines = _of_file(flags, flags.env) | lines
    for key, value in flags.env.items():
        lines[key] = shlex.quote(value) if "no-eval" in flags.on else evaluated(value)
    return lines


def evaluated(value: str) -> str:
    """A value in double quotes: ``$`` and backticks mean what they mean to a shell."""
    return '"' + value.replace('"', '\\"') + '"'


def _of_file(flags: Flags, overriding: Mapping[str, str]) -> dict[str, str]:
    name = flags.one("env-file")
    if name is None:
        return {}
    path = Path(name)
    if not path.is_file():
        raise Fatal(f"could not read environment file {path}: no such file or directory")
    lines = {}
    for line in path.read_text().splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = re.fullmatch(r"\s*(?:export )?([A-Za-z_]\w*)=(\w[-\w./]*|'[^'$`]*')\s*", line)
        if not found:
            raise Unsupported(f"this line of an environment file: {line}")
        key, value = found.groups()
        if key in overriding:
            warn(
                f"Environment variable {key} already has value from --env-file, override from --env"
            )
        lines[key] = value
    return lines


def script(lines: Mapping[str, str], cwd: str, must: bool, run: bool) -> str:
    """What the container's shell does before it becomes the program.

    Args:
        lines: Variables to set after the image's own scripts, as shell words.
        cwd: Where to start; the home if that is not visible, unless ``must``.
        must: Whether a missing folder is an error.
        run: Whether the image's runscript is what runs.
    """
    sets = "".join(
        f"{TO_PATH.get(key, key)}={value}; export {TO_PATH.get(key, key)}\n"
        for key, value in lines.items()
    )
    where = shlex.quote(cwd)
    fatal = "{ echo 'FATAL:   could not set working directory: no such directory' >&2; exit 255; }"
    home = "{ echo 'WARNING: could not use the working directory, starting in the home' >&2; "
    home += 'cd "$HOME" 2>/dev/null || cd /; }'
    missing = fatal if must else home
    return _SCRIPT.format(
        sets=sets,
        where=where,
        missing=missing,
        run=_RUN if run else "",
        ready=READY,
        go=GO,
    )


_RUN = """if [ -x /.singularity.d/runscript ]; then set -- /.singularity.d/runscript "$@"
else set -- /bin/sh "$@"; fi
"""
_SCRIPT = """echo >&{ready}; exec {ready}>&-
read -r __s <&{go} || :; exec {go}<&-
for __s in /.singularity.d/env/*.sh; do
    [ "$__s" = /.singularity.d/env/99-runtimevars.sh ] || [ ! -f "$__s" ] || . "$__s"
done
: "${{LD_LIBRARY_PATH=/.singularity.d/libs}}"; export LD_LIBRARY_PATH
{sets}
if [ -f /.singularity.d/env/99-runtimevars.sh ]; then . /.singularity.d/env/99-runtimevars.sh
elif env | grep -q ^SING_USER_DEFINED; then
    echo "unsupported: a PATH for an image that Apptainer has not made" >&2; exit 125
fi
cd / && cd -- {where} 2>/dev/null || {missing}
unset __s OLDPWD
{run}
case $1 in
*/*) [ -e "$1" ] || {{ echo "FATAL:   stat $1: no such file or directory" >&2; exit 255; }}
    [ ! -d "$1" ] || {{ echo "FATAL:   $1: is a directory" >&2; exit 255; }}
    [ -x "$1" ] || {{ echo "FATAL:   $1: permission denied" >&2; exit 255; }} ;;
*)  __d= __i=$IFS; IFS=:
    for __p in $PATH; do [ -x "$__p/$1" ] && [ ! -d "$__p/$1" ] && {{ __d=$__p/$1; break; }}; done
    IFS=$__i
    [ -n "$__d" ] || {{
        echo "FATAL:   \\"$1\\": executable file not found in \\$PATH" >&2; exit 255; }}
    shift; set -- "$__d" "$@"; unset __d __i __p ;;
esac
unset SHLVL
exec "$@"
"""


def checked(text: str) -> str:
    """The script, if a shell can read it; a value that cannot be evaluated is a failure at once."""
    done = subprocess.run(
        ["/bin/sh", "-n"], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Fatal(f"while parsing script: {done.stderr.strip()}")
    return text
