"""Processing and transform jobs: machines that start, one step, and an end."""

from __future__ import annotations

from dataclasses import dataclass

from rig.sagemaker.account import Account, Resource, page, select
from rig.sagemaker.endpoints import QUOTA
from rig.sagemaker.models import find_model
from rig.sagemaker.operations import Ask, serves
from rig.sagemaker.refusals import not_modelled, refuse, rule
from rig.sagemaker.shapes import Json, only_members, operation_model
from rig.sagemaker.timeline import Due

PROCESSING, TRANSFORM = "processing-job", "transform-job"

EXISTS = rule(
    "batch.exists",
    "doc",
    "ResourceInUse",
    "Job names must be unique within an AWS account and region, and a job with this name already "
    "exists ({arn})",
)
ABSENT = rule(
    "batch.absent",
    "issue",
    "ValidationException",
    "Could not find requested job with name: {name}",
    "aws/amazon-sagemaker-operator-for-k8s, constants",
)
NOT_RUNNING = rule(
    "batch.stop", "guess", "ValidationException", "The job is in status {status} already"
)
PAYLOAD = rule(
    "transform.payload",
    "guess",
    "ValidationException",
    "MaxPayloadInMB * MaxConcurrentTransforms must not exceed 100",
    "the limit is documented with CreateTransformJob; the words are not known",
)
STRATEGY = rule(
    "transform.strategy",
    "guess",
    "ValidationException",
    "BatchStrategy needs a SplitType",
    "the need is documented with CreateTransformJob; the words are not known",
)
SAME_INPUT = rule(
    "processing.input-names",
    "guess",
    "ValidationException",
    "The names of inputs must be different",
    "that names are unique within a job is documented; the words are not known",
)


@dataclass(frozen=True)
class Sort:
    """What differs between the two."""

    kind: str
    word: str
    """``Processing`` in ``ProcessingJobName``."""
    duration: str
    modelled: frozenset[str]
    """Members of the request that mean something here; for others there is no answer."""


_PROCESSED = """
    ProcessingJobName AppSpecification RoleArn ProcessingResources NetworkConfig StoppingCondition
    Environment ProcessingInputs ProcessingOutputConfig Tags
"""
_TRANSFORMED = """
    TransformJobName ModelName TransformInput TransformOutput TransformResources MaxPayloadInMB
    MaxConcurrentTransforms BatchStrategy ModelClientConfig DataProcessing Environment Tags
"""
SORTS = (
    Sort(PROCESSING, "Processing", "processing", frozenset(_PROCESSED.split())),
    Sort(TRANSFORM, "Transform", "transform", frozenset(_TRANSFORMED.split())),
)


def _begin(account: Account, job: Resource, sort: Sort) -> None:
    """Machines are started, then it runs: for the limit and the bill that is when it begins."""
    job.status = "InProgress"
    job.state["due"] = account.timeline.at(
        account.durations["batch.start"], lambda: _run(account, job, sort)
    )


def _run(account: Account, job: Resource, sort: Sort) -> None:
    plan = account.plan(sort.duration, job.name)
    seconds = account.durations[sort.duration] if plan.seconds is None else plan.seconds
    limit = job.body.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
    job.state["began"] = account.now

    def end() -> None:
        status = "Failed" if plan.fail else plan.status or "Completed"
        if limit is not None and seconds > limit:
            status = "Stopped"
        job.state["said"] = plan.said
        _finish(account, job, status, plan.fail)
        place = _place(job, sort)
        if status == "Completed" and place and account.on_output is not None:
            for path, data in plan.files.items():
                account.on_output(f"{place}/{path}", data)

    when = seconds if limit is None else min(seconds, limit)
    job.state["due"] = account.timeline.at(when, end)


def _place(job: Resource, sort: Sort) -> str:
    """Where it leaves what it makes."""
    if sort.kind == TRANSFORM:
        return str(job.body["TransformOutput"]["S3OutputPath"]).rstrip("/")
    outputs = job.body.get("ProcessingOutputConfig", {}).get("Outputs", ())
    return str(outputs[0]["S3Output"]["S3Uri"]).rstrip("/") if outputs else ""


def _finish(account: Account, job: Resource, status: str, reason: str = "") -> None:
    job.status, job.reason, job.changed = status, reason, account.now
    job.state["ended"] = account.now


def _create(ask: Ask, sort: Sort) -> Json:
    name, account = ask.request[f"{sort.word}JobName"], ask.account
    unknown = ask.request.keys() - sort.modelled
    if unknown:
        raise not_modelled(f"Create{sort.word}Job with {', '.join(sorted(unknown))}")
    if account.exists(sort.kind, name):
        raise refuse(EXISTS, arn=account.arn(sort.kind, name))
    if sort.kind == TRANSFORM:
        find_model(ask, ask.request["ModelName"])
        _check_requests(ask.request)
    else:
        _check_inputs(ask.request)
    _check_quota(account, sort, ask.request)
    job = account.make(sort.kind, name, ask.request, ask.principal)
    _begin(account, job, sort)
    return {f"{sort.word}JobArn": job.arn}


def _check_requests(request: Json) -> None:
    most = request.get("MaxPayloadInMB", 6)
    if most > 100 or most * request.get("MaxConcurrentTransforms", 1) > 100:
        raise refuse(PAYLOAD)
    split = request["TransformInput"].get("SplitType", "None")
    if request.get("BatchStrategy") is not None and split == "None":
        raise refuse(STRATEGY)


def _check_inputs(request: Json) -> None:
    names = [given["InputName"] for given in request.get("ProcessingInputs", ())]
    if len(set(names)) != len(names):
        raise refuse(SAME_INPUT)


def _machines(sort: Sort, request: Json) -> Json:
    if sort.kind == TRANSFORM:
        found: Json = request["TransformResources"]
    else:
        found = request["ProcessingResources"]["ClusterConfig"]
    return found


def _check_quota(account: Account, sort: Sort, request: Json) -> None:
    asked = _machines(sort, request)
    type_, delta = asked["InstanceType"], asked["InstanceCount"]
    limit = account.batch_quota.get((sort.kind, type_))
    if limit is None:
        return
    running = [one for one in account.all(sort.kind) if one.status in ("InProgress", "Stopping")]
    machines = [_machines(sort, one.body) for one in running]
    used = sum(m["InstanceCount"] for m in machines if m["InstanceType"] == type_)
    if used + delta > limit:
        usage = f"{sort.duration} job"
        raise refuse(QUOTA, type=type_, usage=usage, limit=limit, used=used, delta=delta)


def _describe(ask: Ask, sort: Sort) -> Json:
    job = _find(ask, sort)
    model = operation_model("sagemaker", f"Describe{sort.word}Job")
    assert model is not None
    assert model.output_shape is not None
    told = {**job.body, **_summary(job, sort)}
    if "began" in job.state:
        told[f"{sort.word}StartTime"] = job.state["began"]
    return only_members(model.output_shape, told)


def _summary(job: Resource, sort: Sort) -> Json:
    told: Json = {
        f"{sort.word}JobName": job.name,
        f"{sort.word}JobArn": job.arn,
        f"{sort.word}JobStatus": job.status,
        "CreationTime": job.made,
        "LastModifiedTime": job.changed,
    }
    if "ended" in job.state:
        told[f"{sort.word}EndTime"] = job.state["ended"]
    if job.reason:
        told["FailureReason"] = job.reason
    if job.state.get("said") and sort.kind == PROCESSING:
        told["ExitMessage"] = job.state["said"]
    return told


def _stop(ask: Ask, sort: Sort) -> None:
    job = _find(ask, sort)
    if job.status == "Stopping":
        return
    if job.status != "InProgress":
        raise refuse(NOT_RUNNING, status=job.status)
    due: Due = job.state["due"]
    due.off = True
    job.status, job.changed = "Stopping", ask.account.now
    ask.account.timeline.at(
        ask.account.durations["job.stop"], lambda: _finish(ask.account, job, "Stopped")
    )


def _list(ask: Ask, sort: Sort) -> Json:
    found = select(ask.account.all(sort.kind), ask.request)
    items, more = page(ask.account, [_summary(one, sort) for one in found], ask.request)
    return {f"{sort.word}JobSummaries": items, **more}


def _find(ask: Ask, sort: Sort) -> Resource:
    name = ask.request[f"{sort.word}JobName"]
    found = ask.account.get(sort.kind, name)
    if found is None:
        raise refuse(ABSENT, name=name)
    return found


def _enter(sort: Sort) -> None:
    word = sort.word
    serves(f"Create{word}Job")(lambda ask: _create(ask, sort))
    serves(f"Describe{word}Job")(lambda ask: _describe(ask, sort))
    serves(f"Stop{word}Job")(lambda ask: _stop(ask, sort))
    serves(f"List{word}Jobs")(lambda ask: _list(ask, sort))


for _sort in SORTS:
    _enter(_sort)
