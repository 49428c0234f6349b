"""Flags and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Server = Annotated[
    str,
    typer.Option("--server", envvar="WINDLASS_SERVER", help="Where the daemon answers."),
]
SERVER = "http://127.0.0.1:8700"
Name = Annotated[str, typer.Argument(metavar="KIND/NAME", help="Or KIND/NAMESPACE/NAME.")]
Namespace = Annotated[str | None, typer.Option("-n", "--namespace")]
State = Annotated[
    Path | None, typer.Option("--state", help="The state folder.  [default: .windlass]")
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
JsonOutput = Annotated[Literal["json"] | None, typer.Option("-o", "--output", help="For programs.")]
Worktree = Annotated[
    bool, typer.Option("--worktree", help="Follow the saved files instead of the commits.")
]
