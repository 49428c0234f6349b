"""A Job as this machine must run it: the local adapter's share of ``normalise`` (hop 7). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from windlass_adapters.base import Desired, TerminalError, WaitingError, Wanted
from windlass_adapters.local.params import LocalParams
from windlass_schemas import Artifact, Frozen, Job, JobInput, Reason, digest_of
from windlass_schemas.job import Scalar

RUN_ROLE = "run"


class RunInput(Frozen):
    """A file that the program reads."""

    digest: str
    name: str
    """Its file name."""


class RunBody(Frozen):
    """``Wanted.body`` of a run. All but the time limit decides the result."""

    entrypoint: str | None
    command: tuple[str, ...] | None
    files: dict[str, str]
    """Digest by path in the working directory."""
    params: dict[str, Scalar]
    env: dict[str, str]
    """As declared: secrets are references."""
    inputs: dict[str, RunInput]
    outputs: dict[str, str]
    python: str | None
    time_limit: float | None
    """Seconds."""


def wanted_run(desired: Desired, job: Job, params: LocalParams) -> Wanted:
    """The one run of a Job. Raises TerminalError for a spec that cannot run."""
    spec = job.spec
    _check(job)
    files = _laid_out(desired, job)
    python = spec.python or params.python
    body = RunBody(
        entrypoint=spec.entrypoint,
        command=spec.command,
        files={path: artifact.digest for path, artifact in files.items()},
        params=spec.params,
        env=spec.env,
        inputs={name: _input(desired, name, source) for name, source in spec.inputs.items()},
        outputs=spec.outputs,
        python=python if (spec.entrypoint or "").endswith(".py") else None,
        time_limit=None if spec.time_limit is None else spec.time_limit.total_seconds(),
    )
    digest = digest_of(body.model_dump(mode="json", exclude={"time_limit"}))
    key, uid = desired.owner.key, desired.owner.uid
    return Wanted(
        role=RUN_ROLE,
        name=f"{key.namespace}.{key.name}-{short(uid)}-{short(digest)}",
        digest=digest,
        body=body.model_dump(mode="json"),
        completes=True,
    )


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


def _check(job: Job) -> None:
    spec = job.spec
    for prefix, names in (("PARAM", spec.params), ("INPUT", spec.inputs), ("OUTPUT", spec.outputs)):
        taken: dict[str, str] = {}
        for name in names:
            other = taken.setdefault(variable(prefix, name), name)
            if other != name:
                raise _invalid(
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
            raise _invalid(f"spec.{field}: a NUL character cannot reach a program; remove it")


def _laid_out(desired: Desired, job: Job) -> dict[str, Artifact]:
    """The files that must lie in the working directory, by path."""
    spec = job.spec
    found: dict[str, Artifact] = {}
    for path in filter(None, (spec.entrypoint, *spec.files)):
        named = {
            name: artifact
            for name, artifact in desired.files.items()
            if name == path or name.startswith(f"{path}/")
        }
        if not named:
            raise _invalid(f"{path} is not beside the document; add the file or mend the path")
        found |= named
    if spec.entrypoint and spec.entrypoint not in found:
        raise _invalid(f"spec.entrypoint: {spec.entrypoint} is a folder; name the script in it")
    for name, path in spec.outputs.items():
        if path in found:
            raise _invalid(
                f"spec.outputs.{name}: {path} is also given to the program, so that nobody could"
                " tell whether it was written; choose another path"
            )
    return found


def _input(desired: Desired, name: str, source: JobInput) -> RunInput:
    """The artifact behind an input."""
    field = f"spec.inputs.{name}"
    if source.file is not None:
        artifact = desired.files.get(source.file)
        if artifact is None:
            raise _invalid(f"{field}.file: {source.file} is not a file beside the document")
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
    raise _invalid(f"{field} names no file")


def _invalid(message: str) -> TerminalError:
    return TerminalError(message, reason=Reason.INVALID_SPEC)
