"""A Job as a cluster must run it: the Slurm adapter's share of ``normalise`` (hop 7). Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import PurePosixPath

from pydantic import JsonValue, ValidationError

from windlass_adapters.base import Desired, TerminalError, Wanted
from windlass_adapters.program import RunInput, check_program, input_of, invalid, laid_out, short
from windlass_adapters.slurm.options import PLACEMENT, JobOptions
from windlass_adapters.slurm.params import SlurmParams
from windlass_schemas import Frozen, Job, digest_of
from windlass_schemas.job import IMAGE_SUFFIX, Scalar

RUN_ROLE = "run"
_MAX_ELEMENTS = 100_000


class ImageOf(Frozen):
    """Where a container comes from: exactly one of the fields."""

    path: str | None = None
    """On the cluster."""
    digest: str | None = None
    """Of a file beside the document."""
    address: str | None = None
    """To be pulled once."""


class RunBody(Frozen):
    """``Wanted.body`` of a run."""

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
    image: ImageOf | None
    array: tuple[int, ...] | None
    limit: int | None
    setup: tuple[str, ...]
    options: JobOptions
    """With the Target's defaults."""
    minutes: int | None
    """What Slurm is asked for."""


def wanted_run(desired: Desired, job: Job, params: SlurmParams) -> Wanted:
    """The one run of a Job. Raises TerminalError for a spec that cannot run."""
    spec = job.spec
    check_program(job)
    files = laid_out(desired, job)
    options = _options(job, params)
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
        image=_image(desired, job),
        array=_elements(job),
        limit=spec.array.limit if spec.array else None,
        setup=params.setup,
        options=options,
        minutes=_minutes(job, options),
    )
    digest = digest_of(_identity(body))
    key, uid = desired.owner.key, desired.owner.uid
    return Wanted(
        role=RUN_ROLE,
        name=f"{key.namespace}.{key.name}-{short(uid)}-{short(digest)}",
        digest=digest,
        body=body.model_dump(mode="json", by_alias=False),
        completes=True,
    )


def job_faults(job: Job) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it on whatever cluster), but for the options' own form."""
    for check in (check_program, _elements, _check_time, _check_image):
        try:
            check(job)
        except TerminalError as error:
            field, _, what = str(error).partition(": ")
            yield field, what


def _identity(body: RunBody) -> dict[str, JsonValue]:
    """Everything that decides the result; where and when it runs does not."""
    found = body.model_dump(mode="json", by_alias=False, exclude={"minutes", "limit", "setup"})
    options = found["options"]
    return found | {"options": {n: v for n, v in options.items() if n not in PLACEMENT}}


def _options(job: Job, params: SlurmParams) -> JobOptions:
    try:
        said = JobOptions.model_validate(job.spec.options)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise invalid(f"spec.options.{where}: {fault['msg']}") from None
    return said.over(params.defaults)


def _minutes(job: Job, options: JobOptions) -> int | None:
    """Slurm counts in minutes. Whoever asks for both must ask Slurm for enough."""
    _check_time(job)
    limit, asked = job.spec.time_limit, options.time
    chosen = limit if asked is None or "time" not in job.spec.options else asked
    chosen = chosen or asked
    return None if chosen is None else max(1, math.ceil(chosen.total_seconds() / 60))


def _check_time(job: Job) -> None:
    try:
        asked = JobOptions.model_validate(job.spec.options).time
    except ValidationError:
        return  # which is told elsewhere
    limit = job.spec.time_limit
    if limit is not None and asked is not None and asked < limit:
        raise invalid("spec.options.time: is shorter than timeLimit; remove one of them")


def _elements(job: Job) -> tuple[int, ...] | None:
    if job.spec.array is None:
        return None
    found = job.spec.array.numbers()
    if len(found) > _MAX_ELEMENTS:
        raise invalid(f"spec.array: {len(found)} elements are more than {_MAX_ELEMENTS}; use less")
    return found


def _image(desired: Desired, job: Job) -> ImageOf | None:
    image = job.spec.image
    if image is None:
        return None
    if job.spec.image_file is not None:
        artifact = desired.files.get(job.spec.image_file)
        if artifact is None:
            raise invalid(
                f"spec.image: {image} is not beside the document; add it or mend the path"
            )
        return ImageOf(digest=artifact.digest)
    _check_image(job)
    return ImageOf(address=image) if "://" in image else ImageOf(path=image)


def _check_image(job: Job) -> None:
    image = job.spec.image
    if image is None or job.spec.image_file is not None or "://" in image:
        return
    if not image.startswith("/") or ".." in PurePosixPath(image).parts:
        raise invalid(
            f"spec.image: {image} is no image here; write a path on the cluster, a file beside the"
            f" document that ends in {IMAGE_SUFFIX}, or an address such as docker://{image}"
        )
