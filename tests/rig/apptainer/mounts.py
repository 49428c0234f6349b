"""What is visible inside, and the bubblewrap arguments that make it so."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rig.apptainer.flags import Flags, split
from rig.apptainer.image import Fatal
from rig.apptainer.variables import warn

MOUNTABLE = {"bind-paths", "cwd", "dev", "devpts", "home", "hostfs", "proc", "sys", "tmp"}
START = "/.start"


@dataclass(frozen=True)
class Mount:
    """One thing of the host's, or an empty folder, at a place inside."""

    target: str
    source: str | None = None
    """None: an empty file system in memory."""
    kind: str = "--bind"


@dataclass(frozen=True)
class View:
    """Everything visible inside except the image."""

    mounts: tuple[Mount, ...]
    home: str
    """By its name inside."""
    cwd: str


def view(flags: Flags, identity: Path) -> View:
    """What the flags ask for. ``identity`` holds the account files made for the image."""
    contained = bool({"contain", "containall"} & flags.on)
    without = set(flags.words("no-mount"))
    for name in sorted(without - MOUNTABLE):
        if not name.startswith("/"):
            warn(f"unknown mount type {name} in --no-mount")
    home_source, home = _home(flags)
    mounts = [*_system(flags, contained, without), *_identity(identity)]
    mounts += _temporary(flags, contained, without)
    if not {"no-home"} & flags.on and "home" not in without:
        mounts += _home_mount(home_source, home, contained and not flags.one("home"))
    binds = list(_binds(flags)) if "bind-paths" not in without else []
    cwd = str(Path.cwd())
    if not contained and "cwd" not in without and not _seen(cwd, [*mounts, *binds]):
        mounts.append(Mount(cwd, cwd))
    return View((*mounts, *binds), home, home if contained else cwd)


def _home(flags: Flags) -> tuple[str, str]:
    asked = flags.one("home")
    if asked is None:
        here = pwd.getpwuid(os.getuid()).pw_dir
        return here, here
    parts = split(asked, ":")
    source = str(Path(parts[0]).absolute())
    return source, parts[1] if len(parts) > 1 else source


def _home_mount(source: str, target: str, empty: bool) -> Iterator[Mount]:
    if empty:
        yield Mount(target)
    elif Path(source).is_dir():
        yield Mount(target, source)


def _system(flags: Flags, contained: bool, without: set[str]) -> Iterator[Mount]:
    if "proc" not in without:
        own = "containall" in flags.on
        yield Mount("/proc", None if own else "/proc", "--proc" if own else "--bind")
    if "sys" not in without:
        yield Mount("/sys", "/sys", "--ro-bind")
    if "dev" not in without:
        yield Mount("/dev", None, "--dev") if contained else Mount("/dev", "/dev", "--dev-bind")
    for name in ("/etc/hosts", "/etc/localtime", "/etc/resolv.conf"):
        if Path(name).is_file():
            yield Mount(name, os.path.realpath(name), "--ro-bind")


def _identity(folder: Path) -> Iterator[Mount]:
    for name in ("passwd", "group"):
        yield Mount(f"/etc/{name}", str(folder / name), "--ro-bind")


def _temporary(flags: Flags, contained: bool, without: set[str]) -> Iterator[Mount]:
    if "tmp" in without:
        return
    work = flags.one("workdir")
    for target, name in (("/tmp", "tmp"), ("/var/tmp", "var_tmp")):
        if not contained:
            yield Mount(target, target)
        elif work is None:
            yield Mount(target)
        else:
            if not Path(work).is_dir():
                raise Fatal(f"workdir {work}: no such file or directory")
            (Path(work) / name).mkdir(exist_ok=True)
            yield Mount(target, str((Path(work) / name).absolute()))


def _binds(flags: Flags) -> Iterator[Mount]:
    for word in flags.words("bind"):
        parts = split(word, ":")
        if len(parts) > 3:
            raise Fatal(f"while parsing bind path: bad bind syntax: {word}")
        source = str(Path(parts[0]).absolute())
        target = parts[1] if len(parts) > 1 and parts[1] else source
        option = parts[2] if len(parts) > 2 else "rw"
        if option not in ("ro", "rw"):
            raise Fatal(f"while parsing bind path: {option} is not a valid bind option")
        if not Path(target).is_absolute():
            raise Fatal(f"bind path {target}: destination must be an absolute path")
        if not Path(source).exists():
            raise Fatal(f"container creation failed: mount source {source} doesn't exist")
        yield Mount(os.path.normpath(target), source, "--ro-bind" if option == "ro" else "--bind")


def _seen(path: str, mounts: list[Mount]) -> bool:
    return (
        any(
            m.source == m.target
            and (path == m.target or path.startswith(m.target.rstrip("/") + "/"))
            for m in mounts
        )
        or path == "/"
    )


def identity_files(root: Path, folder: Path) -> None:
    """The image's account files, with the user added."""
    me = pwd.getpwuid(os.getuid())
    added = {
        "passwd": f"{me.pw_name}:x:{me.pw_uid}:{me.pw_gid}:{me.pw_gecos}:{me.pw_dir}:/bin/sh\n",
        "group": f"{me.pw_name}:x:{me.pw_gid}:\n",
    }
    for name, line in added.items():
        there = root / "etc" / name
        text = there.read_text() if there.is_file() else ""
        known = {each.split(":")[0] for each in text.splitlines()}
        (folder / name).write_text(text if me.pw_name in known else text + line)


def laid(root: Path, wanted: View, writable: bool) -> list[str]:
    """The arguments that put the image and the mounts together.

    Mount points that the image lacks are made on an empty root, onto which the image's entries
    are bound one by one, as deep as needed: the image itself is never written to.
    """
    if writable:
        words = ["--bind", str(root), "/"]
    else:
        needed = {START} | {m.target for m in wanted.mounts}
        words = ["--tmpfs", "/", *_layer(root, "", needed)]
    for mount in sorted(wanted.mounts, key=lambda m: m.target.count("/")):
        if mount.source is not None:
            words += [mount.kind, mount.source, mount.target]
        else:
            words += [mount.kind if mount.kind != "--bind" else "--tmpfs", mount.target]
    return words


def _layer(root: Path, where: str, needed: set[str]) -> Iterator[str]:
    there = root / where.lstrip("/")
    for entry in sorted(there.iterdir()):
        inside = f"{where}/{entry.name}"
        below = {target for target in needed if target.startswith(inside + "/")}
        if entry.is_symlink():
            yield from ("--symlink", str(entry.readlink()), inside)
        elif entry.is_dir() and any(not _there(root, target) for target in below):
            yield from ("--dir", inside)
            yield from _layer(root, inside, below)
        else:
            yield from ("--ro-bind", str(entry), inside)


def _there(root: Path, target: str) -> bool:
    path = root
    for part in Path(target).parts[1:]:
        path = path / part
        if path.is_symlink() or not path.exists():
            return False
    return True
