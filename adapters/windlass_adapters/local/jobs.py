"""A Job as this machine must run it: the local adapter's share of ``normalise`` (hop 7). Pure."""

from __future__ import annotations

from windlass_adapters.base import Desired, Wanted
from windlass_adapters.local.params import LocalParams
from windlass_adapters.program import RunInput, check_program, input_of, invalid, laid_out, short
from windlass_schemas import Frozen, Job, digest_of
from windlass_schemas.job import Scalar

RUN_ROLE = "run"


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
    _check_fields(job)
    check_program(job)
    files = laid_out(desired, job)
    python = spec.python or params.python
    body = RunBody(
        entrypoint=spec.entrypoint,
        command=spec.command,
        files={path: artifact.digest for path, artifact in files.items()},
        params=spec.params,
        env=spec.env,
        inputs={name: input_of(desired, name, source) for name, source in spec.inputs.items()},
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


def _check_fields(job: Job) -> None:
    """Refuse what this machine cannot do, rather than do half of it."""
    for field in ("image", "array"):
        if getattr(job.spec, field) is not None:
            raise invalid(
                f"spec.{field}: the local adapter takes none; remove it, or name a Target that"
                " takes one, for example one with adapter: slurm"
            )
