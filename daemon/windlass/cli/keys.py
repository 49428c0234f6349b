"""The words of ``windlass keys``. What each command does is in ``access``."""

from __future__ import annotations

from typing import Annotated

import typer

from windlass.cli.options import Json, Namespace, State

keys = typer.Typer(help="API keys of served models. Need no daemon; hold within a second.")
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="What you call the key.")]


@keys.command("create")
def keys_create(
    name: KeyName,
    namespace: Namespace = None,
    deployment: Annotated[
        str | None, typer.Option("--deployment", help="One only.  [default: all of the namespace]")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second.  [default: no limit]")
    ] = None,
    state: State = None,
) -> None:
    """Make a key and print it, once."""
    from windlass.cli.access import create

    create(state, name, namespace, deployment, rate)


@keys.command("list")
def keys_list(state: State = None, as_json: Json = False) -> None:
    """List the keys, without the keys."""
    from windlass.cli.access import show

    show(state, as_json)


@keys.command("rotate")
def keys_rotate(
    name: KeyName,
    overlap: Annotated[str, typer.Option(help="How long the old one still holds.")] = "1h",
    state: State = None,
) -> None:
    """Make another key of that name and print it, once."""
    from windlass.cli.access import rotate
    from windlass.cli.waiting import duration_of

    rotate(state, name, duration_of(overlap).total_seconds())


@keys.command("revoke")
def keys_revoke(name: KeyName, state: State = None) -> None:
    """Refuse a key from now on."""
    from windlass.cli.access import revoke

    revoke(state, name)
