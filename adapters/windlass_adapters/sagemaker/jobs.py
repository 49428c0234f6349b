"""A Job as SageMaker training must run it: the sagemaker adapter's share of ``normalise``; pure.

Script mode: the entrypoint and its files travel as one archive, known by its content; params reach
the script with their types, as ``--name value`` and as ``WINDLASS_PARAM_NAME``. A run's name is the
hash of everything that decides its result, so that an edit is a new run and never a changed one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath

from pydantic import JsonValue

from windlass_adapters.base import Desired, TerminalError, WaitingError, Wanted
from windlass_adapters.sagemaker.deployments import Renderer
from windlass_adapters.sagemaker.names import LIMIT, hashed, short_hash, slug
from windlass_adapters.sagemaker.params import JobOptions
from windlass_schemas import (
    Artifact,
    Job,
    JobInput,
    JobSpec,
    Reason,
    Sweep,
    digest_of,
)
from windlass_schemas.job import Scalar

RUN_ROLE = "run"
CODE = "sourcedir.tar.gz"
ATTEMPT = 5
"""Characters that ``-a<attempt>`` may take."""
OUTPUTS = ("model.tar.gz", "output.tar.gz")
"""What training leaves behind: all of SM_MODEL_DIR, and all of SM_OUTPUT_DATA_DIR."""
_DATA = "/opt/ml/input/data"
_HASH = 8
Json = dict[str, JsonValue]


def wanted_run(renderer: Renderer, desired: Desired, job: Job) -> Wanted:
    """The one run of a Job. Raises TerminalError, and WaitingError for a missing input."""
    check(job)
    options = JobOptions.model_validate(job.spec.options)
    request, uploads = training(renderer, desired, job.spec, options)
    request["HyperParameters"] = hyper_parameters(job.spec)
    algorithm = request["AlgorithmSpecification"]
    assert isinstance(algorithm, dict)
    if job.spec.command is not None:
        algorithm["ContainerEntrypoint"] = list(job.spec.command)
    return wanted(renderer, desired, job.spec, (request, uploads), LIMIT)


def wanted(
    renderer: Renderer, desired: Desired, spec: JobSpec, content: tuple[Json, Json], limit: int
) -> Wanted:
    """A run, known by what decides its result; how long it may take does not."""
    request, uploads = content
    options = JobOptions.model_validate(spec.options)
    counted = {k: v for k, v in request.items() if k != "StoppingCondition"}
    digest = digest_of({"request": counted, "uploads": uploads, "outputs": dict(spec.outputs)})
    token = renderer.identity.token(desired.owner)
    name = hashed(slug(desired.owner.key), short_hash(_HASH, token, digest), limit - ATTEMPT)
    tags = renderer.identity.tags(desired.owner, {**renderer.params.tags, **options.tags})
    body: Json = {
        "request": request,
        "uploads": uploads,
        "folder": f"{renderer.keys.folder(desired.owner)}{name}/",
        "outputs": dict(spec.outputs),
        "tags": dict(tags),
    }
    return Wanted(RUN_ROLE, name, digest, body, completes=True)


def training(
    renderer: Renderer, desired: Desired, spec: JobSpec, options: JobOptions
) -> tuple[Json, Json]:
    """What training jobs and tuning have in common, and the files that must be uploaded."""
    params = renderer.params
    image = (spec.image or "").removeprefix("docker://") or params.images.get("job")
    if image is None:
        raise _invalid("there is no container image: set spec.image, or params.images.job")
    algorithm: Json = {"TrainingImage": image, "TrainingInputMode": "File"}
    if options.metrics:
        found: list[JsonValue] = [
            {"Name": name, "Regex": regex} for name, regex in sorted(options.metrics.items())
        ]
        algorithm["MetricDefinitions"] = found
    request: Json = {
        "AlgorithmSpecification": algorithm,
        "RoleArn": options.role or params.role,
        "ResourceConfig": {
            "InstanceType": options.instance_type or params.instance_type,
            "InstanceCount": options.instances,
            "VolumeSizeInGB": options.volume,
        },
        "StoppingCondition": _stopping(spec, options),
        "EnableNetworkIsolation": options.isolated,
    }
    if options.vpc is not None:
        request["VpcConfig"] = {
            "Subnets": list(options.vpc.subnets),
            "SecurityGroupIds": list(options.vpc.security_groups),
        }
    if options.spot is not None:
        request["EnableManagedSpotTraining"] = True
    uploads: Json = {"code": _code(desired, spec), "inputs": {}}
    environment: Json = dict(spec.env)
    for name, value in spec.params.items():
        environment[_variable("PARAM", name)] = _text(value)
    channels: list[JsonValue] = [
        _channel(name, {"S3Uri": url}) for name, url in sorted(options.channels.items())
    ]
    inputs = uploads["inputs"]
    assert isinstance(inputs, dict)
    for name, source in sorted(spec.inputs.items()):
        artifact = _input(desired, name, source)
        inputs[name] = artifact.model_dump(mode="json", exclude_none=True)
        channels.append(_channel(name, {}))
        environment[_variable("INPUT", name)] = f"{_DATA}/{name}/{file_name(artifact)}"
    if channels:
        request["InputDataConfig"] = channels
    request["Environment"] = environment
    return request, uploads


def _stopping(spec: JobSpec, options: JobOptions) -> Json:
    assert spec.time_limit is not None
    found: Json = {"MaxRuntimeInSeconds": int(spec.time_limit.total_seconds())}
    if options.spot is not None:
        found["MaxWaitTimeInSeconds"] = int(options.spot.max_wait.total_seconds())
    return found


def _channel(name: str, where: Json) -> Json:
    source: Json = {"S3DataType": "S3Prefix", "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": {**source, **where}}}


def hyper_parameters(spec: JobSpec) -> Json:
    """Params as SageMaker takes them: texts. A script gets them back with their types."""
    if spec.entrypoint is None:
        return {name: _text(value) for name, value in spec.params.items()}
    found: Json = {name: json.dumps(value) for name, value in spec.params.items()}
    found["sagemaker_program"] = json.dumps(spec.entrypoint)
    return found


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _variable(prefix: str, name: str) -> str:
    return f"WINDLASS_{prefix}_{name.upper().replace('-', '_')}"


def _code(desired: Desired, spec: JobSpec) -> Json:
    """Digest by path of the script and its files."""
    if spec.entrypoint is None:
        return {}
    found: Json = {}
    for path in (spec.entrypoint, *spec.files):
        named = {
            name: artifact.digest
            for name, artifact in desired.files.items()
            if name == path or name.startswith(f"{path}/")
        }
        if not named:
            raise _invalid(f"{path} is not beside the document; add the file or mend the path")
        found |= named
    return found


def _input(desired: Desired, name: str, source: JobInput) -> Artifact:
    field = f"spec.inputs.{name}"
    if source.file is not None:
        artifact = desired.files.get(source.file)
        if artifact is None:
            raise _invalid(f"{field}.file: {source.file} is not a file beside the document")
        return artifact
    for reference in desired.resource.spec.references(desired.resource.metadata.namespace):
        if reference.field in (f"{field}.job", f"{field}.model"):
            if found := desired.inputs.get(reference.slot):
                return found
            raise WaitingError(
                f"{field}: {reference.key.short} has no {reference.output} yet",
                reason=Reason.DEPENDENCY_NOT_READY,
            )
    raise _invalid(f"{field} names no file")


def file_name(artifact: Artifact) -> str:
    """The name of an input's file in its channel."""
    if artifact.url is not None:
        return artifact.url.rpartition("/")[2]
    return PurePosixPath(artifact.name).name or "file"


def _invalid(message: str) -> TerminalError:
    return TerminalError(message, reason=Reason.INVALID_SPEC)


def check(job: Job | Sweep) -> None:
    """Raises TerminalError that names every fault."""
    faults = [f"{field}: {fault}" for field, fault in job_faults(job)]
    if faults:
        raise _invalid("; ".join(faults))


def job_faults(job: Job | Sweep) -> Iterator[tuple[str, str]]:
    """What SageMaker cannot do of a Job: refused, never accepted and ignored."""
    spec, options = job.spec, JobOptions.model_validate(job.spec.options)
    if spec.time_limit is None:
        yield "spec.timeLimit", "is needed on SageMaker, which bills by the second; write say 1h"
    elif not 1 <= spec.time_limit.total_seconds() <= 2_419_200:
        yield "spec.timeLimit", "is 1s at least and 28d at most"
    elif options.spot is not None and options.spot.max_wait < spec.time_limit:
        yield "spec.options.spot.maxWait", "must not be less than spec.timeLimit"
    if isinstance(job, Sweep) and spec.command is not None:
        yield "spec.command", "SageMaker tuning takes no command; use entrypoint"
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
        if path not in OUTPUTS:
            yield f"spec.outputs.{name}", f"SageMaker keeps {' and '.join(OUTPUTS)}, not {path}"
    for name in set(spec.inputs) & set(options.channels):
        yield f"spec.options.channels.{name}", "is an input too; rename one"
    if len(spec.inputs) + len(options.channels) > 20:
        yield "spec.inputs", "SageMaker takes 20 inputs and channels at most"
