"""The words of the commands that need no daemon. What each does is in what it imports, late."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.options import SERVER, Json, Server, State, Worktree

commands = typer.Typer()


@commands.command()
def up(
    path: Annotated[
        Path | None,
        typer.Argument(help="A folder with specs; without it, only what messages declare."),
    ] = None,
    worktree: Worktree = False,
    state: State = None,
    api_host: Annotated[
        str | None, typer.Option(help="Address of the API.  [default: 127.0.0.1]")
    ] = None,
    api_port: Annotated[
        int | None, typer.Option(help="Port of the API; 0 takes a free one.  [default: 8700]")
    ] = None,
    serving_port: Annotated[
        int | None, typer.Option(help="Port of the models; 0 takes a free one.  [default: 8701]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Objects worked on at once.  [default: 32]")
    ] = None,
) -> int:
    """Start the daemon: follow the specs at PATH, and messages, and make them so.

    WINDLASS_AMQP_URL names the broker. Ctrl-C stops it.
    """
    from windlass.cli.running import up

    flags = {"api_host": api_host, "api_port": api_port, "serving_port": serving_port}
    return up(path, worktree, {"state": state, "workers": workers, **flags})


@commands.command()
def migrate(
    to: Annotated[
        str, typer.Option("--to", metavar="URL", help="postgresql://USER@HOST/DATABASE, empty.")
    ],
    state: State = None,
) -> None:
    """Move the embedded store to PostgreSQL, for several daemons. The old file stays as it is."""
    from windlass.cli.moving import migrate

    migrate(to, state)


@commands.command()
def validate(
    path: Annotated[Path, typer.Argument(help="A folder with specs.")] = Path(),
    as_json: Json = False,
) -> int:
    """Check specs and print every fault as file:line:column. Needs no daemon."""
    from windlass.cli.specs import validate

    return validate(path, as_json)


@commands.command()
def plan(
    path: Annotated[
        Path | None, typer.Argument(help="A folder with specs; without it, what is declared now.")
    ] = None,
    worktree: Worktree = False,
    state: State = None,
    as_json: Json = False,
) -> int:
    """Show what would happen. Exit code 0: nothing, 2: changes, 1: error. Needs no daemon."""
    from windlass.cli.specs import plan

    return plan(path, worktree, state, as_json)


@commands.command()
def publish(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Files or folders with specs.")
    ] = None,
    delete: Annotated[
        list[str] | None, typer.Option("--delete", metavar="KIND/NAME", help="Withdraw an object.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="For the daemon's answers.")] = False,
    timeout: Annotated[str, typer.Option(help="How long to wait.")] = "30s",
    source: Annotated[
        str | None,
        typer.Option(envvar="WINDLASS_PUBLISH_SOURCE", help="Who publishes.  [windlass-publish]"),
    ] = None,
    revision: Annotated[
        int | None, typer.Option(min=1, help="Rises with each change.  [default: the time]")
    ] = None,
) -> None:
    """Publish specs on the broker (WINDLASS_AMQP_URL). Needs no daemon to be there now."""
    from windlass.cli.publishing import publish

    publish(paths or [], delete or [], source, revision, timeout if wait else None)


@commands.command()
def schema(
    kind: Annotated[str | None, typer.Argument(help="One kind; all, when absent.")] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write all schemas as files there.")
    ] = None,
) -> None:
    """Print the JSON Schema of the specs, for editors."""
    from windlass.cli.specs import schema

    schema(kind, write)


@commands.command()
def doctor(state: State = None, as_json: Json = False, server: Server = SERVER) -> int:
    """Check this machine and the daemon; each line says what to do."""
    from windlass.cli.doctor import doctor

    return doctor(server, state, as_json)


@commands.command()
def usage(state: State = None, as_json: Json = False) -> None:
    """List requests by Deployment and key, the most used first."""
    from windlass.cli.access import usage

    usage(state, as_json)


@commands.command()
def down(state: State = None) -> None:
    """End the processes that serve models, when no daemon runs."""
    from windlass.cli.stopping import down

    down(state)


@commands.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version

    typer.echo(f"windlass {version('windlass')}")
