"""The words of ``windlass import``. What it does is in ``importing``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

imports = typer.Typer(help="Make specs of what another system was told.")


@imports.command()
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
