"""A program as SageMaker training must run it: hop 7, rendering. Pure.

Script mode: the entrypoint and its files travel as one archive, known by its content; params reach
the script with their types, as ``--name value`` and as ``WINDLASS_PARAM_NAME``. A run's name is the
hash of everything that decides its result, so that an edit is a new run and never a changed one.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from pydantic import JsonValue

from windlass_adapters.base import Desired, WaitingError, Wanted
from windlass_adapters.program import invalid, text, variable
from windlass_adapters.sagemaker.deployments import Renderer, vpc_config
from windlass_adapters.sagemaker.joboptions import JobOptions
from windlass_adapters.sagemaker.names import LIMIT, hashed, short_hash, slug
from windlass_schemas import (
    Artifact,
    Job,
    JobInput,
    JobSpec,
    Reason,
    digest_of,
)

RUN_ROLE = "run"
START = ".windlass.sh"
"""In a program's archive, where SageMaker runs a container and knows no scripts: starts it."""
ATTEMPT = 5
"""Characters that ``-a<attempt>`` may take."""
OUTPUTS = ("model.tar.gz", "output.tar.gz")
"""What training leaves behind: all of SM_MODEL_DIR, and all of SM_OUTPUT_DATA_DIR."""
_DATA = "/opt/ml/input/data"
_HASH = 8
_UNCOUNTED = ("StoppingCondition", "CheckpointConfig")
"""What decides nothing about the result."""
Json = dict[str, JsonValue]


def wanted_run(renderer: Renderer, desired: Desired, job: Job) -> Wanted:
    """The training job of a Job. Raises TerminalError, and WaitingError for a missing input."""
    options = JobOptions.model_validate(job.spec.options)
    request, uploads = training(renderer, desired, job.spec, options)
    request["HyperParameters"] = hyper_parameters(job.spec)
    algorithm = request["AlgorithmSpecification"]
    assert isinstance(algorithm, dict)
    if job.spec.command is not None:
        algorithm["ContainerEntrypoint"] = list(job.spec.command)
    return wanted(renderer, desired, job.spec, (request, uploads))


def wanted(
    renderer: Renderer,
    desired: Desired,
    spec: JobSpec,
    content: tuple[Json, Json],
    role: str = RUN_ROLE,
    limit: int = LIMIT,
) -> Wanted:
    """A run, known by what decides its result; how long it may take does not."""
    request, uploads = content
    options = JobOptions.model_validate(spec.options)
    counted = {k: v for k, v in request.items() if k not in _UNCOUNTED}
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
    return Wanted(role, name, digest, body, completes=True)


def training(
    renderer: Renderer, desired: Desired, spec: JobSpec, options: JobOptions
) -> tuple[Json, Json]:
    """What training jobs and tuning have in common, and the files that must be uploaded."""
    params = renderer.params
    algorithm: Json = {"TrainingImage": image_of(renderer, spec), "TrainingInputMode": "File"}
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
            **({"VolumeKmsKeyId": options.kms_key} if options.kms_key else {}),
        },
        "StoppingCondition": _stopping(spec, options),
        "EnableNetworkIsolation": options.isolated,
    }
    if options.vpc is not None:
        request["VpcConfig"] = vpc_config(options.vpc)
    if options.kms_key is not None:
        request["OutputDataConfig"] = {"KmsKeyId": options.kms_key}
    if options.spot is not None:
        request["EnableManagedSpotTraining"] = True
        if options.spot.checkpoints:
            request["CheckpointConfig"] = {}
    uploads: Json = {"code": code_of(desired, spec), "inputs": {}}
    environment: Json = dict(spec.env)
    for name, value in spec.params.items():
        environment[variable("PARAM", name)] = text(value)
    channels: list[JsonValue] = [
        _channel(options, name, {"S3Uri": url}) for name, url in sorted(options.channels.items())
    ]
    inputs = uploads["inputs"]
    assert isinstance(inputs, dict)
    for name, source in sorted(spec.inputs.items()):
        artifact = input_of(desired, name, source)
        inputs[name] = artifact.model_dump(mode="json", exclude_none=True)
        channels.append(_channel(options, name, {}))
        environment[variable("INPUT", name)] = f"{_DATA}/{name}/{file_name(artifact)}"
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


def image_of(renderer: Renderer, spec: JobSpec) -> str:
    """The container of a program. Raises TerminalError."""
    image = (spec.image or "").removeprefix("docker://") or renderer.params.images.get("job")
    if image is None:
        raise invalid("there is no container image: set spec.image, or params.images.job")
    return image


def distribution(options: JobOptions) -> str:
    """Whether each machine has all files of a channel."""
    return "ShardedByS3Key" if options.shard else "FullyReplicated"


def _channel(options: JobOptions, name: str, where: Json) -> Json:
    source: Json = {
        "S3DataType": "S3Prefix",
        "S3DataDistributionType": distribution(options),
    }
    return {"ChannelName": name, "DataSource": {"S3DataSource": {**source, **where}}}


def hyper_parameters(spec: JobSpec) -> Json:
    """Params as SageMaker takes them: texts. A script gets them back with their types."""
    if spec.entrypoint is None:
        return {name: text(value) for name, value in spec.params.items()}
    found: Json = {name: json.dumps(value) for name, value in spec.params.items()}
    found["sagemaker_program"] = json.dumps(spec.entrypoint)
    return found


def code_of(desired: Desired, spec: JobSpec) -> Json:
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
            raise invalid(f"{path} is not beside the document; add the file or mend the path")
        found |= named
    return found


def input_of(desired: Desired, name: str, source: JobInput) -> Artifact:
    field = f"spec.inputs.{name}"
    if source.file is not None:
        artifact = desired.files.get(source.file)
        if artifact is None:
            raise invalid(f"{field}.file: {source.file} is not a file beside the document")
        return artifact
    for reference in desired.resource.spec.references(desired.resource.metadata.namespace):
        if reference.field in (f"{field}.job", f"{field}.model"):
            if found := desired.inputs.get(reference.slot):
                return found
            raise WaitingError(
                f"{field}: {reference.key.short} has no {reference.output} yet",
                reason=Reason.DEPENDENCY_NOT_READY,
            )
    raise invalid(f"{field} names no file")


def file_name(artifact: Artifact) -> str:
    """The name of an input's file in its channel."""
    if artifact.url is not None:
        return artifact.url.rpartition("/")[2]
    return PurePosixPath(artifact.name).name or "file"
