"""What a run's folder holds beside its files: values as data, never as text of a program (hop 7).

The script that Slurm runs is the same for every run (``batch.sh``). What differs lies beside it:
words ended by NUL, and one file of quoted assignments that sh reads inside the container. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pydantic import JsonValue

from windlass_adapters.base import Owner
from windlass_adapters.program import arguments, text, variable
from windlass_adapters.slurm.jobs import ImageOf, RunBody
from windlass_adapters.slurm.naming import Place
from windlass_adapters.slurm.options import sbatch_options
from windlass_adapters.slurm.params import SlurmParams


def texts_of(
    root: str, place: Place, owner: Owner, attempt: int, body: RunBody, params: SlurmParams
) -> dict[str, str]:
    """The small files of a run's folder, by path; the declared environment is not among them."""
    folder = f"{root}/jobs/{place.owner}/{place.token}"
    found = {
        "argv": _words(_argv(body)),
        "dirs": _words(sorted({str(PurePosixPath(p).parent) for p in body.outputs.values()})),
        "flags": _words(_flags(body)),
        "runtimes": _words(_runtimes(body, params)),
        "setup.sh": "".join(f"{line}\n" for line in body.setup),
        "environ.sh": _given(folder, owner, attempt, body),
    }
    if body.image is not None:
        found["image"] = _image(folder, body.image)
        found["pwd"] = body.options.container.pwd or ""
    return found


def declared(environment: Mapping[str, str]) -> str:
    """The declared environment, secrets and all, as sh reads it."""
    return "".join(assignment(name, value) for name, value in environment.items())


def assignment(name: str, value: str, before: str = "") -> str:
    """One line that gives a variable exactly this value, whatever it holds but NUL."""
    quoted = value.replace("'", "'\\''")
    return f"export {name}={before}'{quoted}'\n"


def files_of(body: RunBody, entrypoint_mode: int = 0o755) -> list[list[JsonValue]]:
    """(path in the folder, digest, mode, ``copy`` or ``link``) of every file of a run."""
    work = "work" if body.array is None else "template"
    found: list[list[JsonValue]] = []
    for path, digest in sorted(body.files.items()):
        mode = entrypoint_mode if path == body.entrypoint else 0o644
        found.append([f"{work}/{path}", digest, mode, "copy"])
    for name, given in sorted(body.inputs.items()):
        found.append([f"in/{name}/{given.name}", given.digest, 0o444, "link"])
    if body.image is not None and body.image.digest is not None:
        found.append(["image.sif", body.image.digest, 0o444, "link"])
    return found


def sbatch_args(owner: Owner, body: RunBody) -> list[str]:
    """Options of sbatch; those by which it is found again are added over there."""
    options = body.options.model_dump(mode="json", by_alias=False)
    options["time"] = body.minutes
    return [*sbatch_options(options), f"--comment={owner.key}"]


def shape_of(body: RunBody, args: Sequence[str]) -> str:
    """Runs of equal shape may go as one array; empty for one that goes alone."""
    if not body.options.coalesce or body.array is not None:
        return ""
    return json.dumps([a for a in args if not a.startswith("--comment=")])


def _argv(body: RunBody) -> list[str]:
    if body.command is not None:
        program = list(body.command)
    else:
        script = f"./{body.entrypoint}"
        program = [body.python, "-u", script] if body.python else [script]
    return [*program, *arguments(body.params)]


def _flags(body: RunBody) -> list[str]:
    """Options of apptainer and singularity alike; values reach the program another way."""
    if body.image is None:
        return []
    container = body.options.container
    found = [] if container.home else ["--no-home"]
    found += ["--cleanenv"] if container.clean else []
    found += ["--nv"] if container.nv else []
    found += ["--rocm"] if container.rocm else []
    return [*found, *(word for bind in container.binds for word in ("--bind", bind))]


def _runtimes(body: RunBody, params: SlurmParams) -> list[str]:
    runtime = body.options.container.runtime
    return [runtime] if runtime else list(params.runtimes)


def _image(folder: str, image: ImageOf) -> str:
    if image.digest is not None:
        return f"{folder}/image.sif"
    return image.path or image.address or ""


def _given(folder: str, owner: Owner, attempt: int, body: RunBody) -> str:
    """Where and what the run is. Its working directory is known to its job only."""
    values = {
        "WINDLASS_JOB": f"{owner.key.namespace}/{owner.key.name}",
        "WINDLASS_ATTEMPT": str(attempt),
        "WINDLASS_RUN": folder,
        "PYTHONUNBUFFERED": "1",
    }
    values |= {variable("PARAM", name): text(value) for name, value in body.params.items()}
    for name, given in body.inputs.items():
        values[variable("INPUT", name)] = f"{folder}/in/{name}/{given.name}"
    lines = [assignment(name, value) for name, value in values.items()]
    lines += [
        assignment(variable("OUTPUT", name), f"/{path}", '"$WINDLASS_WORK"')
        for name, path in body.outputs.items()
    ]
    return "".join(lines)


def _words(words: Sequence[str]) -> str:
    return "".join(f"{word}\0" for word in words)
