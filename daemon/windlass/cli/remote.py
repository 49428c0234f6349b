"""The words of the commands that ask a daemon. What each does is in what it imports, late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from windlass.cli.options import SERVER, JsonOutput, Name, Namespace, Server

if TYPE_CHECKING:
    from windlass.cli.client import Client

commands = typer.Typer()


def _daemon(server: str) -> Client:
    from windlass.cli.client import Client

    return Client(server)


@commands.command()
def get(
    selector: Annotated[str | None, typer.Argument(metavar="[KIND[/NAME]]")] = None,
    namespace: Namespace = None,
    output: Annotated[
        Literal["wide", "json", "yaml"] | None, typer.Option("-o", "--output")
    ] = None,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on with each change.")] = False,
    server: Server = SERVER,
) -> None:
    """List objects and how they are; ``get daemons`` lists the daemons that share the store."""
    from windlass.cli.looking import get

    with _daemon(server) as client:
        get(client, selector, namespace, output, watch)


@commands.command()
def describe(name: Name, server: Server = SERVER) -> None:
    """Show everything about one object."""
    from windlass.cli.looking import describe

    with _daemon(server) as client:
        describe(client, name)


@commands.command()
def events(
    name: Annotated[str | None, typer.Argument(metavar="[KIND/NAME]")] = None,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on with each new one.")] = False,
    tail: Annotated[
        int | None, typer.Option(min=0, help="Only the newest so many.  [default: all; 10 with -w]")
    ] = None,
    output: JsonOutput = None,
    amqp: Annotated[
        bool, typer.Option("--amqp", help="From the broker (WINDLASS_AMQP_URL); with -w.")
    ] = False,
    server: Server = SERVER,
) -> None:
    """List the events: every change of a condition."""
    if amqp:
        from windlass.cli.failure import Failure
        from windlass.cli.publishing import watch_broker

        if not watch or tail is not None:
            raise Failure("a broker has no past events", "windlass events -w --amqp")
        watch_broker(name, output)
        return
    from windlass.cli.looking import events

    with _daemon(server) as client:
        events(client, name, watch, tail, output)


@commands.command()
def history(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many entries.")] = 50,
    output: JsonOutput = None,
    server: Server = SERVER,
) -> None:
    """List who did what to an object, newest first."""
    from windlass.cli.looking import history

    with _daemon(server) as client:
        history(client, name, limit, output)


@commands.command()
def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it ends.")] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="Standard output only.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error only.")] = False,
    server: Server = SERVER,
) -> None:
    """Print the output of the latest run."""
    from windlass.cli.looking import logs

    with _daemon(server) as client:
        logs(client, name, follow, "stderr" if stderr else "stdout" if stdout else None)


@commands.command()
def wait(
    name: Name,
    condition: Annotated[
        str, typer.Option("--for", help="Ready, Succeeded, Stalled, Reconciling or Deleted.")
    ] = "Ready",
    timeout: Annotated[str, typer.Option(help="For example 90s or 1h30m.")] = "10m",
    revision: Annotated[
        str, typer.Option(help="Wait for this commit first; its first characters are enough.")
    ] = "",
    server: Server = SERVER,
) -> None:
    """Wait for a condition. Exit code 1 at once when it is Stalled, 124 when the time is over."""
    from windlass.cli.waiting import wait

    with _daemon(server) as client:
        wait(client, name, condition, timeout, revision)


@commands.command()
def infer(
    name: Annotated[str, typer.Argument(help="The Deployment: NAME, or NAMESPACE.NAME.")],
    data: Annotated[
        str, typer.Option("-d", "--data", metavar="JSON|@FILE|-", help="The request, or where.")
    ],
    server: Server = SERVER,
) -> None:
    """Ask a served model: one Open Inference Protocol request."""
    from windlass.cli.asking import infer

    with _daemon(server) as client:
        infer(client, name, data)


@commands.command()
def sync(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it was done.")] = False,
    timeout: Annotated[str, typer.Option(help="How long to wait.")] = "5m",
    server: Server = SERVER,
) -> None:
    """Look at an object now; one that failed gets another try."""
    from windlass.cli.asking import sync

    with _daemon(server) as client:
        sync(client, name, wait, timeout)


@commands.command()
def suspend(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="For those who find it so.")],
    server: Server = SERVER,
) -> None:
    """Stop acting on an object; observing goes on."""
    from windlass.cli.asking import suspend

    with _daemon(server) as client:
        suspend(client, name, reason)


@commands.command()
def resume(name: Name, server: Server = SERVER) -> None:
    """Act on a suspended object again."""
    from windlass.cli.asking import resume

    with _daemon(server) as client:
        resume(client, name)


@commands.command()
def delete(name: Name, server: Server = SERVER) -> None:
    """Delete an object whose document is gone."""
    from windlass.cli.asking import delete

    with _daemon(server) as client:
        delete(client, name)


@commands.command()
def orphans(
    target: Annotated[
        str | None, typer.Option("--target", metavar="[NAMESPACE/]NAME", help="One target only.")
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="ROLE/NAME", help="Remove it, as the list names it."),
    ] = None,
    output: JsonOutput = None,
    server: Server = SERVER,
) -> None:
    """List what targets hold and nothing declares any more, and what it costs an hour."""
    from windlass.cli.leftovers import orphans

    with _daemon(server) as client:
        orphans(client, target, remove or [], output)


@commands.command()
def transfer(
    name: Name,
    to: Annotated[str, typer.Option("--to", metavar="SOURCE", help="A source that declares it.")],
    server: Server = SERVER,
) -> None:
    """Let another source that declares an object own it."""
    from windlass.cli.asking import transfer

    with _daemon(server) as client:
        transfer(client, name, to)


@commands.command()
def approve(
    revision: Annotated[str, typer.Argument(help="Its first characters are enough.")],
    server: Server = SERVER,
) -> None:
    """Let a revision delete as much as it wants to."""
    from windlass.cli.asking import approve

    with _daemon(server) as client:
        approve(client, revision)
