"""The real ``windlass`` that exits, as if killed, at a named point on its way to Slurm.

``python -m rig.mortal POINT up .`` is ``windlass up .`` until then. Points are named as in
`rig.dying`: ``Fetching.fetch<#1`` is the first time that an output is about to be fetched.
"""

from __future__ import annotations

import sys

import asyncssh

from rig.dying import Death, Place
from windlass.cli import main
from windlass.store.sqlite import SqliteStore
from windlass.targets import OpenTarget
from windlass_adapters.slurm.fetching import Fetching
from windlass_adapters.slurm.staging import Staging

PLACES: tuple[Place, ...] = (
    (SqliteStore, "intend"),
    (SqliteStore, "commit"),
    (OpenTarget, "find"),
    (OpenTarget, "apply"),
    (OpenTarget, "delete"),
    (Staging, "prepare"),
    (Staging, "_upload"),
    (Fetching, "fetch"),
    (asyncssh.SFTPClientFile, "write"),
    (asyncssh.SFTPClientFile, "read"),
)

if __name__ == "__main__":
    death = Death(sys.argv.pop(1))
    for place in PLACES:
        death.watch(place)
    main()
