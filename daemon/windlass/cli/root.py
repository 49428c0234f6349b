"""Every command's words and flags. What a command does is in the module that it imports, late."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from windlass.cli.failure import ExitCode, Failure

if TYPE_CHECKING:
    from windlass.cli.client import Client

app = typer.Typer(
    name="windlass",
    help="GitOps for machine-learning models and jobs: commit a spec, get it run and served.",
    epilog="Exit codes: 0 well, 1 error, 2 plan has changes, 3 no daemon, 124 time is over.",
    # Boxes are for people; a program that reads the help gets plain lines.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

importing = typer.Typer(help="Make specs of what another system was told.")
app.add_typer(importing, name="import")

Server = Annotated[
    str,
    typer.Option("--server", envvar="WINDLASS_SERVER", help="Where the daemon answers."),
]
SERVER = "http://127.0.0.1:8700"
Name = Annotated[str, typer.Argument(metavar="KIND/NAME", help="Or KIND/NAMESPACE/NAME.")]
State = Annotated[
    Path | None, typer.Option("--state", help="The state folder.  [default: .windlass]")
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
JsonOutput = Annotated[Literal["json"] | None, typer.Option("-o", "--output", help="For programs.")]
Worktree = Annotated[
    bool, typer.Option("--worktree", help="Follow the saved files instead of the commits.")
]


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Whatever goes wrong is said in two lines, never more."""
    try:
        code = app(args=list(arguments) or ["--help"], prog_name="windlass", standalone_mode=False)
        sys.stdout.flush()
        return int(code or ExitCode.OK)
    except Failure as failure:
        _show(failure.error, failure.hint)
        return failure.code
    except typer.TyperException as error:
        command = next((word for word in arguments if not word.startswith("-")), "")
        _show(error.format_message(), f"windlass {command} --help".replace("  ", " "))
        return ExitCode.ERROR
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough. Nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.ERROR
    except Exception as error:
        if os.environ.get("WINDLASS_DEBUG"):
            raise
        _show(
            f"a fault in Windlass itself ({type(error).__name__}: {error})",
            "please report it; WINDLASS_DEBUG=1 shows where it happened",
        )
        return ExitCode.ERROR


def _daemon(server: str) -> Client:
    from windlass.cli.client import Client

    return Client(server)


def _show(error: str, hint: str) -> None:
    from windlass.cli.terminal import show_failure

    with contextlib.suppress(BrokenPipeError):
        show_failure(error, hint)


@app.command()
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


@app.command()
def migrate(
    to: Annotated[
        str, typer.Option("--to", metavar="URL", help="postgresql://USER@HOST/DATABASE, empty.")
    ],
    state: State = None,
) -> None:
    """Move the embedded store to PostgreSQL, for several daemons. The old file stays as it is."""
    from windlass.cli.moving import migrate

    migrate(to, state)


@app.command()
def validate(
    path: Annotated[Path, typer.Argument(help="A folder with specs.")] = Path(),
    as_json: Json = False,
) -> int:
    """Check specs and print every fault as file:line:column. Needs no daemon."""
    from windlass.cli.specs import validate

    return validate(path, as_json)


@app.command()
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


@app.command()
def get(
    selector: Annotated[str | None, typer.Argument(metavar="[KIND[/NAME]]")] = None,
    namespace: Annotated[str | None, typer.Option("-n", "--namespace")] = None,
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


@app.command()
def describe(name: Name, server: Server = SERVER) -> None:
    """Show everything about one object."""
    from windlass.cli.looking import describe

    with _daemon(server) as client:
        describe(client, name)


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def suspend(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="For those who find it so.")],
    server: Server = SERVER,
) -> None:
    """Stop acting on an object; observing goes on."""
    from windlass.cli.asking import suspend

    with _daemon(server) as client:
        suspend(client, name, reason)


@app.command()
def resume(name: Name, server: Server = SERVER) -> None:
    """Act on a suspended object again."""
    from windlass.cli.asking import resume

    with _daemon(server) as client:
        resume(client, name)


@app.command()
def delete(name: Name, server: Server = SERVER) -> None:
    """Delete an object whose document is gone."""
    from windlass.cli.asking import delete

    with _daemon(server) as client:
        delete(client, name)


@app.command()
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


@app.command()
def transfer(
    name: Name,
    to: Annotated[str, typer.Option("--to", metavar="SOURCE", help="A source that declares it.")],
    server: Server = SERVER,
) -> None:
    """Let another source that declares an object own it."""
    from windlass.cli.asking import transfer

    with _daemon(server) as client:
        transfer(client, name, to)


@app.command()
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


@app.command()
def approve(
    revision: Annotated[str, typer.Argument(help="Its first characters are enough.")],
    server: Server = SERVER,
) -> None:
    """Let a revision delete as much as it wants to."""
    from windlass.cli.asking import approve

    with _daemon(server) as client:
        approve(client, revision)


@app.command()
def schema(
    kind: Annotated[str | None, typer.Argument(help="One kind; all, when absent.")] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write all schemas as files there.")
    ] = None,
) -> None:
    """Print the JSON Schema of the specs, for editors."""
    from windlass.cli.specs import schema

    schema(kind, write)


@importing.command()
def mltask(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.json")],
    script: Annotated[Path, typer.Argument(metavar="SCRIPT.py|PROJECT.zip")],
    to: Annotated[Path, typer.Option(help="The folder of the specs.")] = Path(),
    cluster: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=[USER@]HOST[:PORT]/ROOT", help="Where a cluster is."),
    ] = None,
    images: Annotated[str, typer.Option(help="Folder of the images on the cluster.")] = "",
    datasets: Annotated[str, typer.Option(help="Folder of the datasets on the cluster.")] = "",
    output: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="A file to keep of each run.")
    ] = None,
) -> None:
    """Turn one task of an older Slurm submitter into specs. Needs no daemon."""
    from windlass.cli.importing import mltask, pairs
    from windlass.mltask import Places

    places = Places(images, datasets, pairs(cluster or [], "--cluster"))
    mltask(config, script, to, places, pairs(output or [], "--output"))


@app.command()
def doctor(state: State = None, as_json: Json = False, server: Server = SERVER) -> int:
    """Check this machine and the daemon; each line says what to do."""
    from windlass.cli.doctor import doctor

    return doctor(server, state, as_json)


keys = typer.Typer(help="API keys of served models. Need no daemon; hold within a second.")
app.add_typer(keys, name="keys")
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="What you call the key.")]


@keys.command("create")
def keys_create(
    name: KeyName,
    namespace: Annotated[str | None, typer.Option("-n", "--namespace")] = None,
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


@app.command()
def usage(state: State = None, as_json: Json = False) -> None:
    """List requests by Deployment and key, the most used first."""
    from windlass.cli.access import usage

    usage(state, as_json)


@app.command()
def down(state: State = None) -> None:
    """End the processes that serve models, when no daemon runs."""
    from windlass.cli.stopping import down

    down(state)


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version

    typer.echo(f"windlass {version('windlass')}")
