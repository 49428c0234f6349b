"""What nobody needs any more goes, a few seconds at a time: runs, what they took, old programs."""

import os
import shutil
import time
from contextlib import suppress
from typing import List

from windlass_adapters.slurm.remote.files import A_DAY, age_of, listing, read, throw_away
from windlass_adapters.slurm.remote.site import Site

LONGEST = 5.0
"""Seconds for the files by content, and for what was thrown away: somebody waits for the answer."""


def sweep(site: Site, used: List[str], older: float) -> None:
    """Remove what has not been needed for ``older`` seconds; ``used`` are the programs of now."""
    sweep_runs(site, older)
    sweep_programs(site, used, max(older, A_DAY))
    sweep_contents(site, max(older, A_DAY))
    until = time.time() + LONGEST
    for name in listing(site.path("trash")):
        if time.time() < until:
            shutil.rmtree(site.path("trash", name), ignore_errors=True)


def sweep_runs(site: Site, older: float) -> None:
    """The folders of runs that ended long ago. What was submitted together goes after the last."""
    for tag in listing(site.path("jobs")):
        for token in listing(site.path("jobs", tag)):
            folder = site.path("jobs", tag, token)
            ended = os.path.join(folder, "fetched")
            if os.path.exists(ended) and age_of(ended) > older:
                throw_away(folder, site.path("trash"))
    for name in listing(site.path("maps")):
        folder = site.path("maps", name)
        runs = (read(os.path.join(folder, "map"), 1 << 24) or "").splitlines()
        if age_of(folder) > older and not any(map(os.path.exists, runs)):
            throw_away(folder, site.path("trash"))


def sweep_programs(site: Site, used: List[str], older: float) -> None:
    """Remove programs of other versions that no daemon has said to use for long.

    Nothing that was submitted needs them: Slurm keeps a copy of a job's script.
    """
    for name in used:
        with suppress(OSError):
            os.utime(site.path("bin", name), None)
    for name in listing(site.path("bin")):
        path = site.path("bin", name)
        if name not in used and age_of(path) > older:
            remove(site, path)


def sweep_contents(site: Site, older: float) -> None:
    """Files by content that no run was made of for long, and uploads that nobody goes on with.

    A file with another name is in the folder of a run that may still read it. Whoever needs one
    that went sends it again, or pulls it again.
    """
    until = time.time() + LONGEST
    kept = site.path("cas", "sha256")
    parts = [site.path("cas", name) for name in listing(site.path("cas")) if name != "sha256"]
    drawers = [os.path.join(kept, name) for name in listing(kept)]
    turn = int(until) % max(1, len(drawers))  # where time does not do for all, others come first
    for path in parts:
        if age_of(path) > older:
            os.unlink(path)
    for drawer in drawers[turn:] + drawers[:turn]:
        for name in listing(drawer):
            if time.time() > until:
                return
            path = os.path.join(drawer, name)
            if age_of(path) > older and os.lstat(path).st_nlink == 1:
                os.unlink(path)
    for name in listing(site.path("images")):
        path = site.path("images", name)
        if os.path.islink(path):
            if not os.path.exists(path):
                os.unlink(path)
        elif age_of(path) > older:  # of a pull that was killed
            remove(site, path)


def remove(site: Site, path: str) -> None:
    """A file, or a folder with all that is in it."""
    if os.path.isdir(path):
        throw_away(path, site.path("trash"))
    else:
        os.unlink(path)
