"""The command line as a whole: every group of commands, and what becomes of what goes wrong."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from windlass.cli import here, remote
from windlass.cli.failure import ExitCode, Failure
from windlass.cli.imports import imports
from windlass.cli.keys import keys

app = typer.Typer(
    name="windlass",
    help="GitOps for machine-learning models and jobs: commit a spec, get it run and served.",
    epilog="Exit codes: 0 well, 1 error, 2 plan has changes, 3 no daemon, 124 time is over.",
    # Boxes are for people; a program that reads the help gets plain lines.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(here.commands)
app.add_typer(remote.commands)
app.add_typer(imports, name="import")
app.add_typer(keys, name="keys")


def _version(wanted: bool) -> None:
    if wanted:
        here.version()
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """What holds for the command line as a whole."""


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
        known = typer.main.get_group(app).commands
        command = next((word for word in arguments if word in known), "")
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


def _show(error: str, hint: str) -> None:
    from windlass.cli.terminal import show_failure

    with contextlib.suppress(BrokenPipeError):
        show_failure(error, hint)
