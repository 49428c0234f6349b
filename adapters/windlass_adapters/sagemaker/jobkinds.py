"""Which of SageMaker's jobs a Job or a Sweep is, and what none of them can do. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from windlass_adapters.base import Desired, Wanted
from windlass_adapters.program import invalid
from windlass_adapters.sagemaker.deployments import Renderer
from windlass_adapters.sagemaker.joboptions import JobOptions, Transform
from windlass_adapters.sagemaker.jobs import OUTPUTS, wanted_run
from windlass_adapters.sagemaker.processing import processing_faults, wanted_processing
from windlass_adapters.sagemaker.transforms import transform_faults, wanted_transform
from windlass_adapters.sagemaker.tuning import wanted_sweep
from windlass_adapters.sagemaker.uploads import wanted_uploads
from windlass_schemas import Job, Sweep

_TAG_VALUE = re.compile(r"[\w .:/=+@-]{1,256}", re.ASCII)
_MOST_TAGS = 44
"""Of the 50 that AWS takes, without our own."""


def wanted_job(renderer: Renderer, desired: Desired, job: Job | Sweep) -> tuple[Wanted, ...]:
    """What must exist for it. Raises TerminalError, and WaitingError for a missing input."""
    faults = [f"{field}: {fault}" for field, fault in job_faults(job)]
    if faults:
        raise invalid("; ".join(faults))
    needs: list[Wanted] = []
    if isinstance(job, Sweep):
        run = wanted_sweep(renderer, desired, job)
    elif job.spec.model is not None:
        *needs, run = wanted_transform(renderer, desired, job)
    elif JobOptions.model_validate(job.spec.options).type == "processing":
        run = wanted_processing(renderer, desired, job)
    else:
        run = wanted_run(renderer, desired, job)
    return (*needs, *wanted_uploads(run), run)


def job_faults(job: Job | Sweep) -> Iterator[tuple[str, str]]:
    """What SageMaker cannot do of a Job: refused, never accepted and ignored."""
    spec, options = job.spec, JobOptions.model_validate(job.spec.options)
    yield from _common_faults(job)
    if isinstance(job, Job) and spec.model is not None:
        yield from transform_faults(job, options)
        return
    if options.transform != Transform() or options.image is not None:
        field = "image" if options.image is not None else "transform"
        yield f"spec.options.{field}", "goes with spec.model; leave it out"
    if options.type == "processing":
        if isinstance(job, Sweep):
            yield "spec.options.type", "a Sweep searches with training; leave it out"
        else:
            yield from processing_faults(job, options)
        return
    yield from _training_faults(job, options)


def _common_faults(job: Job | Sweep) -> Iterator[tuple[str, str]]:
    spec, options = job.spec, JobOptions.model_validate(job.spec.options)
    if spec.time_limit is None:
        yield "spec.timeLimit", "is needed on SageMaker, which bills by the second; write say 1h"
    elif not 1 <= spec.time_limit.total_seconds() <= 2_419_200:
        yield "spec.timeLimit", "is 1s at least and 28d at most"
    if spec.image is not None and (spec.image.startswith("/") or spec.image.endswith(".sif")):
        yield "spec.image", "SageMaker takes an address in a registry, and no file"
    if spec.array is not None:
        yield "spec.array", "SageMaker has no arrays; use a Sweep, or several Jobs"
    if spec.python is not None:
        yield "spec.python", "the container has its own Python; leave it out"
    for name, value in spec.env.items():
        if value.startswith(("env:", "file:")):
            yield (
                f"spec.env.{name}",
                "SageMaker shows a job's environment to whoever may describe it: no secrets here",
            )
    for name, path in spec.outputs.items():
        if not _TAG_VALUE.fullmatch(path):
            yield f"spec.outputs.{name}", "AWS takes letters, digits and _ .:/=+@- in such a path"
    if len(spec.outputs) + len(options.tags) > _MOST_TAGS:
        yield "spec.outputs", f"outputs and tags are {_MOST_TAGS} at most: AWS keeps both as tags"
    for name in set(spec.inputs) & set(options.channels):
        yield f"spec.options.channels.{name}", "is an input too; rename one"


def _training_faults(job: Job | Sweep, options: JobOptions) -> Iterator[tuple[str, str]]:
    spec = job.spec
    spot, limit = options.spot, spec.time_limit
    if spot is not None and limit is not None and spot.max_wait < limit:
        yield "spec.options.spot.maxWait", "must not be less than spec.timeLimit"
    if isinstance(job, Sweep) and spec.command is not None:
        yield "spec.command", "SageMaker tuning takes no command; use entrypoint"
    if spec.command is not None and spec.files:
        yield "spec.files", "go with entrypoint in training; use type: processing, or the image"
    for name, path in spec.outputs.items():
        if path not in OUTPUTS:
            yield f"spec.outputs.{name}", f"SageMaker keeps {' and '.join(OUTPUTS)}, not {path}"
    if len(spec.inputs) + len(options.channels) > 20:
        yield "spec.inputs", "SageMaker takes 20 inputs and channels at most"
