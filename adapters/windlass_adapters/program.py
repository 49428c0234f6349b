"""A Job's program, as every backend that runs one must see it: hop 7, pure.

Which files lie where, what the inputs are, and the words in which params reach the program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from windlass_adapters.base import Desired, TerminalError, WaitingError
from windlass_schemas import Artifact, Frozen, Job, JobInput, Reason
from windlass_schemas.job import Scalar


class RunInput(Frozen):
    """A file that the program reads."""

    digest: str
    name: str
    """Its file name."""


def short(identity: str) -> str:
    """Eight characters of a uid or a digest that are safe in a file name."""
    return re.sub(r"[^A-Za-z0-9]", "", identity.removeprefix("sha256:"))[:8]


def variable(prefix: str, name: str) -> str:
    """The environment variable of a param, an input or an output."""
    return f"WINDLASS_{prefix}_{name.upper().replace('-', '_')}"


def arguments(params: Mapping[str, Scalar]) -> list[str]:
    """``--name value`` for each param, by name."""
    return [word for name in sorted(params) for word in (f"--{name}", text(params[name]))]


def text(value: Scalar) -> str:
    """A param as a script reads it; booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_program(job: Job) -> None:
    """Refuse what cannot reach a program. Raises TerminalError."""
    spec = job.spec
    if spec.model is not None:
        raise invalid(
            "spec.model: this Target runs programs and applies no models; name a Target with"
            " adapter: sagemaker, or write an entrypoint that reads the model as an input"
        )
    for prefix, names in (("PARAM", spec.params), ("INPUT", spec.inputs), ("OUTPUT", spec.outputs)):
        taken: dict[str, str] = {}
        for name in names:
            other = taken.setdefault(variable(prefix, name), name)
            if other != name:
                raise invalid(
                    f"spec.{prefix.lower()}s: {other} and {name} would share the variable"
                    f" {variable(prefix, name)}; rename one"
                )
    words: list[tuple[str, Iterable[str]]] = [
        ("command", spec.command or ()),
        ("params", (v for v in spec.params.values() if isinstance(v, str))),
        ("env", spec.env.values()),
    ]
    for field, values in words:
        if any("\0" in value for value in values):
            raise invalid(f"spec.{field}: a NUL character cannot reach a program; remove it")


def laid_out(desired: Desired, job: Job) -> dict[str, Artifact]:
    """The files that must lie in the working directory, by path. Raises TerminalError."""
    spec = job.spec
    found: dict[str, Artifact] = {}
    for path in filter(None, (spec.entrypoint, *spec.files)):
        named = {
            name: artifact
            for name, artifact in desired.files.items()
            if name == path or name.startswith(f"{path}/")
        }
        if not named:
            raise invalid(f"{path} is not beside the document; add the file or mend the path")
        found |= named
    if spec.entrypoint and spec.entrypoint not in found:
        raise invalid(f"spec.entrypoint: {spec.entrypoint} is a folder; name the script in it")
    for name, path in spec.outputs.items():
        if path in found:
            raise invalid(
                f"spec.outputs.{name}: {path} is also given to the program, so that nobody could"
                " tell whether it was written; choose another path"
            )
    return found


def input_of(desired: Desired, name: str, source: JobInput) -> RunInput:
    """The artifact behind an input. Raises TerminalError, and WaitingError while it is away."""
    field = f"spec.inputs.{name}"
    if source.file is not None:
        artifact = desired.files.get(source.file)
        if artifact is None:
            raise invalid(f"{field}.file: {source.file} is not a file beside the document")
        return RunInput(digest=artifact.digest, name=PurePosixPath(source.file).name)
    for reference in desired.resource.spec.references(desired.resource.metadata.namespace):
        if reference.field in (f"{field}.job", f"{field}.model"):
            artifact = desired.inputs.get(reference.slot)
            if artifact is None:
                raise WaitingError(
                    f"{field}: {reference.key.short} has no {reference.output} yet",
                    reason=Reason.DEPENDENCY_NOT_READY,
                )
            file_name = PurePosixPath(artifact.name).name
            return RunInput(
                digest=artifact.digest, name=name if file_name in ("", "..") else file_name
            )
    raise invalid(f"{field} names no file")


def invalid(message: str) -> TerminalError:
    """A spec that cannot be served."""
    return TerminalError(message, reason=Reason.INVALID_SPEC)
