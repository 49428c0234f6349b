"""A Model applied to data, as a batch transform: rendering (pure), and hops 5 and 7.

Two things of it differ from all other jobs. AWS keeps no limit on how long it takes: the limit is
in a tag, and whoever looks after it is over has it stopped. And AWS never forgets one: what a
removed Job leaves is marked as released, and its name is taken for good.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from windlass_adapters.base import (
    Absent,
    Desired,
    External,
    Found,
    Observation,
    Owner,
    State,
    WaitingError,
    Wanted,
)
from windlass_adapters.sagemaker.answers import Answer, moment, part, text
from windlass_adapters.sagemaker.deployments import Place, Renderer
from windlass_adapters.sagemaker.joboptions import JobOptions
from windlass_adapters.sagemaker.jobs import Json, input_of, wanted
from windlass_adapters.sagemaker.names import LIMIT_TAG, RELEASED_TAG
from windlass_adapters.sagemaker.sources import check_url
from windlass_adapters.sagemaker.storage import split
from windlass_adapters.sagemaker.training import Training, declared
from windlass_schemas import Artifact, Job, Reason, references_of

TRANSFORM_ROLE = "transform"
OUTPUT = "output"
"""The folder of all that it makes; ``output/NAME.out`` is one file in it."""
_SPLITS = {"none": "None", "line": "Line", "recordIO": "RecordIO", "tfRecord": "TFRecord"}
_STRATEGIES = {"single": "SingleRecord", "multi": "MultiRecord"}
_MOST_VARIABLES = 16


def wanted_transform(renderer: Renderer, desired: Desired, job: Job) -> tuple[Wanted, ...]:
    """The Model's artifact in S3, a model of it, and the job that applies it."""
    spec, options = job.spec, JobOptions.model_validate(job.spec.options)
    needs, place = _artifact(renderer, desired, job)
    model = renderer.model(desired, options, place, options.image, {})
    source: Json = {"S3DataType": "S3Prefix"}
    inputs: Json = {}
    for url in options.channels.values():
        source["S3Uri"] = url
    for name, given in spec.inputs.items():
        artifact = input_of(desired, name, given)
        inputs[name] = artifact.model_dump(mode="json", exclude_none=True)
    request = _request(renderer, options, model.name)
    request["TransformInput"] = {
        "DataSource": {"S3DataSource": source},
        **_input_form(options),
    }
    if spec.env:
        request["Environment"] = dict(spec.env)
    made = wanted(renderer, desired, spec, (request, {"inputs": inputs}), TRANSFORM_ROLE)
    tags = made.body["tags"]
    assert isinstance(tags, dict)
    assert spec.time_limit is not None
    limit = str(int(spec.time_limit.total_seconds()))
    made = replace(made, body={**made.body, "tags": {**tags, LIMIT_TAG: limit}})
    return (*needs, model, made)


def _artifact(renderer: Renderer, desired: Desired, job: Job) -> tuple[tuple[Wanted, ...], Place]:
    reference = next(r for r in references_of(job) if r.field == "spec.model")
    artifact = desired.inputs.get(reference.slot)
    if artifact is None:
        raise WaitingError(
            f"spec.model: {reference.key.short} has no artifact yet",
            reason=Reason.DEPENDENCY_NOT_READY,
        )
    format_ = artifact.format or "onnx"
    if artifact.url is not None:
        check_url(artifact.url, format_, "spec.model")
        return (), Place(artifact.url, artifact.digest, format_)
    made = renderer.artifact(desired, artifact.model_copy(update={"format": format_}), format_)
    return (made,), Place(renderer.keys.url(made.name), artifact.digest, format_)


def _request(renderer: Renderer, options: JobOptions, model: str) -> Json:
    how = options.transform
    resources: Json = {
        "InstanceType": options.instance_type or renderer.params.instance_type,
        "InstanceCount": options.instances,
    }
    output: Json = {"AssembleWith": how.assemble.capitalize()}
    if how.accept is not None:
        output["Accept"] = how.accept
    if options.kms_key is not None:
        resources["VolumeKmsKeyId"] = output["KmsKeyId"] = options.kms_key
    request: Json = {
        "ModelName": model,
        "TransformOutput": output,
        "TransformResources": resources,
        "MaxPayloadInMB": how.max_payload,
        "MaxConcurrentTransforms": how.max_concurrent,
    }
    if how.strategy is not None:
        request["BatchStrategy"] = _STRATEGIES[how.strategy]
    client: Json = {}
    if how.timeout is not None:
        client["InvocationsTimeoutInSeconds"] = int(how.timeout.total_seconds())
    if how.retries is not None:
        client["InvocationsMaxRetries"] = how.retries
    if client:
        request["ModelClientConfig"] = client
    filters: Json = {"JoinSource": "Input"} if how.join else {}
    if how.input_filter is not None:
        filters["InputFilter"] = how.input_filter
    if how.output_filter is not None:
        filters["OutputFilter"] = how.output_filter
    if filters:
        request["DataProcessing"] = filters
    return request


def _input_form(options: JobOptions) -> Json:
    how = options.transform
    found: Json = {
        "SplitType": _SPLITS[how.split],
        "CompressionType": "Gzip" if how.gzip else "None",
    }
    if how.content_type is not None:
        found["ContentType"] = how.content_type
    return found


def transform_faults(job: Job, options: JobOptions) -> Iterator[tuple[str, str]]:
    """What a batch transform cannot do of a Job."""
    spec = job.spec
    if len(spec.inputs) + len(options.channels) != 1:
        yield "spec.inputs", "a model is applied to exactly one input, or one of options.channels"
    for name in ("spot", "metrics", "volume", "shard", "type"):
        if name in options.model_fields_set:
            yield f"spec.options.{name}", "means nothing to a batch transform; leave it out"
    if len(spec.env) > _MOST_VARIABLES:
        yield "spec.env", f"a batch transform takes {_MOST_VARIABLES} variables at most"
    for name, path in spec.outputs.items():
        if path != OUTPUT and not path.startswith(f"{OUTPUT}/"):
            yield (
                f"spec.outputs.{name}",
                "what a batch transform makes lies below output: write output for all of it, or"
                f" output/{path} for one file, named as its input with .out added",
            )


class Transforms(Training):
    """The batch transforms of one Target."""

    noun = "TransformJob"
    role = TRANSFORM_ROLE
    type = "sagemaker:transform-job"
    log_group = "TransformJobs"

    def _mark(self, answer: Answer) -> tuple[str, datetime | None]:
        return text(answer, "TransformJobStatus"), None  # a Describe tells no time of change

    async def look(self, owner: Owner, external: External) -> Observation:
        seen = await super().look(owner, external)
        if not isinstance(seen, Found) or external.name not in self._known:
            return seen
        answer, tags = self._known[external.name]
        if tags.get(RELEASED_TAG) == "yes":
            return Absent()
        over = _over(answer, tags, self._backend.clock())
        if seen.state is State.SUCCEEDED:
            return await self._whole(seen)
        if seen.state is State.FAILED and over:
            message = "it took longer than timeLimit; raise that, or make it faster"
            return replace(
                seen, reason=Reason.TIME_LIMIT_EXCEEDED, message=message, attempt_counts=True
            )
        if text(answer, "TransformJobStatus") == "InProgress" and over:
            return replace(seen, retire="it takes longer than timeLimit")
        return seen

    async def _whole(self, found: Found) -> Found:
        """Whether every declared output is there: its name is the user's guess at AWS's."""
        for name, artifact in found.outputs.items():
            bucket, key = split(artifact.url or "")
            if not await self._backend.storage.holds(bucket, key):
                message = (
                    f"spec.outputs.{name}: there is no {artifact.name}; output/ holds files named"
                    " as the input's, with .out added"
                )
                return replace(
                    found,
                    state=State.FAILED,
                    outputs={},
                    reason=Reason.OUTPUT_MISSING,
                    message=message,
                )
        return found

    def request(self, wanted: Wanted) -> Json:
        request = json.loads(json.dumps(wanted.body["request"]))
        assert isinstance(request, dict)
        folder, uploads = str(wanted.body["folder"]), wanted.body["uploads"]
        assert isinstance(uploads, dict)
        inputs = uploads["inputs"]
        assert isinstance(inputs, dict)
        for given in inputs.values():
            source = request["TransformInput"]["DataSource"]["S3DataSource"]
            source["S3Uri"] = self.place(folder, Artifact.model_validate(given))
        place = self._backend.storage.keys.url(f"{folder}output/{wanted.name}")
        request["TransformOutput"]["S3OutputPath"] = place
        return request

    def outputs(self, answer: Answer, tags: Mapping[str, str]) -> dict[str, Artifact]:
        place = text(part(answer, "TransformOutput"), "S3OutputPath")
        return declared(tags, lambda path: f"{place}{path.removeprefix(OUTPUT) or '/'}")

    def machines(self, answer: Answer) -> Answer:
        return part(answer, "TransformResources")

    async def _take(self, owner: Owner, external: External) -> Found:
        found = await super()._take(owner, external)
        answer, tags = self._known[external.name]
        if found.state is State.SUCCEEDED and tags.get(RELEASED_TAG) == "yes":
            await self._release(answer, tags, "no")
        return found

    async def forget(self, name: str, answer: Answer) -> None:
        await self._release(answer, self._known[name][1], "yes")

    async def _release(self, answer: Answer, tags: dict[str, str], said: str) -> None:
        await self._backend.add_tags(text(answer, "TransformJobArn"), {RELEASED_TAG: said})
        tags[RELEASED_TAG] = said


def _over(answer: Answer, tags: dict[str, str], now: datetime) -> bool:
    """Whether it has taken, or takes, longer than it may."""
    began = moment(answer, "TransformStartTime") or moment(answer, "CreationTime")
    limit = tags.get(LIMIT_TAG, "")
    if began is None or not limit.isdigit():
        return False
    until = moment(answer, "TransformEndTime") or now
    return until - began >= timedelta(seconds=int(limit))
