"""Processing and transform jobs: one step each, and an end."""

from __future__ import annotations

from dataclasses import dataclass

from rig.sagemaker.account import Account, Resource, page, select
from rig.sagemaker.models import find_model
from rig.sagemaker.operations import Ask, serves
from rig.sagemaker.refusals import refuse, rule
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


@dataclass(frozen=True)
class Sort:
    """What differs between the two."""

    kind: str
    word: str
    """``Processing`` in ``ProcessingJobName``."""
    duration: str


SORTS = (Sort(PROCESSING, "Processing", "processing"), Sort(TRANSFORM, "Transform", "transform"))


def _begin(account: Account, job: Resource, sort: Sort) -> None:
    plan = account.plan(sort.duration, job.name)
    seconds = account.durations[sort.duration] if plan.seconds is None else plan.seconds
    limit = job.body.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
    job.status, job.state["began"] = "InProgress", account.now

    def end() -> None:
        status = "Failed" if plan.fail else plan.status or "Completed"
        if limit is not None and seconds > limit:
            status = "Stopped"
        _finish(account, job, status, plan.fail)

    when = seconds if limit is None else min(seconds, limit)
    job.state["due"] = account.timeline.at(when, end)


def _finish(account: Account, job: Resource, status: str, reason: str = "") -> None:
    job.status, job.reason, job.changed = status, reason, account.now
    job.state["ended"] = account.now


def _create(ask: Ask, sort: Sort) -> Json:
    name, account = ask.request[f"{sort.word}JobName"], ask.account
    if account.exists(sort.kind, name):
        raise refuse(EXISTS, arn=account.arn(sort.kind, name))
    if sort.kind == TRANSFORM:
        find_model(ask, ask.request["ModelName"])
    job = account.make(sort.kind, name, ask.request, ask.principal)
    _begin(account, job, sort)
    return {f"{sort.word}JobArn": job.arn}


def _describe(ask: Ask, sort: Sort) -> Json:
    job = _find(ask, sort)
    model = operation_model("sagemaker", f"Describe{sort.word}Job")
    assert model is not None
    assert model.output_shape is not None
    told = {
        **job.body,
        **_summary(job, sort),
        f"{sort.word}StartTime": job.state["began"],
    }
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
