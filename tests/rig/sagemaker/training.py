"""Training jobs: secondary states in turn, spot interruptions, limits, and what they leave."""

from __future__ import annotations

from dataclasses import replace

from rig.sagemaker.account import Account, Plan, Resource, page, select
from rig.sagemaker.endpoints import QUOTA
from rig.sagemaker.operations import Ask, serves
from rig.sagemaker.refusals import refuse, rule
from rig.sagemaker.shapes import Json, only_members, operation_model

TRAINING = "training-job"
STEPS = ("Starting", "Downloading", "Training", "Uploading")

EXISTS = rule(
    "training.exists",
    "issue",
    "ResourceInUse",
    "Training job names must be unique within an AWS account and region, and a training job with "
    "this name already exists ({arn})",
    "apache/airflow#7891",
)
ABSENT = rule(
    "training.absent",
    "issue",
    "ValidationException",
    "Requested resource not found.",
    "aws-controllers-k8s/sagemaker-controller, generator.yaml",
)
NOT_RUNNING = rule(
    "training.stop",
    "issue",
    "ValidationException",
    "The request was rejected because the training job is in status {status}.",
    "awslabs/benchmark-ai#928",
)
WAIT_WITHOUT_SPOT = rule(
    "training.wait-without-spot",
    "issue",
    "ValidationException",
    "MaxWaitTimeInSeconds above 0 is not allowed when EnableManagedSpotTraining is false.",
    "Kenza-AI/sagify#111",
)
WAIT_TOO_SHORT = rule(
    "training.wait-too-short",
    "guess",
    "ValidationException",
    "MaxWaitTimeInSeconds must not be less than MaxRuntimeInSeconds",
    "the need is documented; the words are not known",
)


@serves("CreateTrainingJob")
def create_training(ask: Ask) -> Json:
    return {"TrainingJobArn": start(ask.account, ask.request, ask.principal).arn}


def start(account: Account, request: Json, principal: str) -> Resource:
    """Check and begin a training job; tuning begins its children here too."""
    name = request["TrainingJobName"]
    if account.exists(TRAINING, name):
        raise refuse(EXISTS, arn=account.arn(TRAINING, name))
    _check_spot(request)
    _check_quota(account, request["ResourceConfig"])
    job = account.make(TRAINING, name, request, principal)
    Run(account, job, account.plan("training", name)).begin()
    return job


def _check_spot(request: Json) -> None:
    limits = request["StoppingCondition"]
    wait = limits.get("MaxWaitTimeInSeconds")
    if wait is None:
        return
    if not request.get("EnableManagedSpotTraining") and not request.get("RetryStrategy"):
        raise refuse(WAIT_WITHOUT_SPOT)
    if wait < limits.get("MaxRuntimeInSeconds", 86_400):
        raise refuse(WAIT_TOO_SHORT)


def _check_quota(account: Account, resources: Json) -> None:
    type_ = resources.get("InstanceType")
    limit = account.training_quota.get(str(type_))
    if limit is None:
        return
    running = [one for one in account.all(TRAINING) if one.status in ("InProgress", "Stopping")]
    used = sum(
        one.body["ResourceConfig"].get("InstanceCount", 1)
        for one in running
        if one.body["ResourceConfig"].get("InstanceType") == type_
    )
    delta = resources.get("InstanceCount", 1)
    if used + delta > limit:
        raise refuse(QUOTA, type=type_, usage="training job", limit=limit, used=used, delta=delta)


class Run:
    """One training job on its way; kept in ``job.state["run"]``."""

    def __init__(self, account: Account, job: Resource, plan: Plan) -> None:
        self.account, self.job, self.plan = account, job, plan
        self.steps = list(plan.steps) or [(step, self._usual(step)) for step in STEPS]
        self.secondary = ""
        self.transitions: list[Json] = []
        self.ended: float | None = None
        self.trained = 0.0
        """Seconds in Training."""
        self._due = account.timeline.at(0.0, lambda: None)
        job.state["run"] = self

    def _usual(self, step: str) -> float:
        if step == "Training" and self.plan.seconds is not None:
            return self.plan.seconds
        return self.account.durations[f"training.{step}"]

    def begin(self) -> None:
        """Go through the states, bounded by the limits of the request."""
        self.job.status = "InProgress"
        self._next()
        limits = self.job.body["StoppingCondition"]
        wait = limits.get("MaxWaitTimeInSeconds")
        if wait is not None:
            self.account.timeline.at(wait, lambda: self._cut("MaxWaitTimeExceeded"))

    def _next(self) -> None:
        if not self.steps:
            self._end_as_planned()
            return
        step, seconds = self.steps.pop(0)
        self._enter(step)
        if step == "Training":
            most = self.job.body["StoppingCondition"].get("MaxRuntimeInSeconds", 86_400)
            left = max(0.0, most - self.trained)
            if seconds > left:
                self._due = self.account.timeline.at(left, lambda: self._cut("MaxRuntimeExceeded"))
                return
            self.trained += seconds
        self._due = self.account.timeline.at(seconds, self._next)

    def end(self, fail: str = "") -> None:
        """Come to the end now, well or not."""
        self._due.off = True
        self.plan = replace(self.plan, fail=fail)
        self._end_as_planned()

    def stop(self) -> None:
        """A user asks for the end: Stopping, then Stopped."""
        self._due.off = True
        self._enter("Stopping")
        self.job.status = "Stopping"
        self._due = self.account.timeline.at(
            self.account.durations["job.stop"], lambda: self._finish("Stopped", "Stopped")
        )

    def _cut(self, secondary: str) -> None:
        """A limit is reached: what there is is uploaded, and the job is Stopped."""
        if self.ended is None:
            self._due.off = True
            self._finish("Stopped", secondary)

    def _end_as_planned(self) -> None:
        if self.plan.fail:
            self.job.reason = self.plan.fail
            self._finish("Failed", "Failed")
        else:
            self._finish(self.plan.status or "Completed", self.plan.status or "Completed")

    def _enter(self, secondary: str) -> None:
        now = self.account.now
        if self.transitions:
            self.transitions[-1]["EndTime"] = now
        self.secondary = secondary
        self.transitions.append({"Status": secondary, "StartTime": now})
        self.job.changed = now

    def _finish(self, status: str, secondary: str) -> None:
        self._enter(secondary)
        self.ended = self.transitions[-1]["EndTime"] = self.account.now
        self.job.status = status
        leaves = self.account.on_output is not None and self.plan.output
        if status == "Completed" and leaves:
            assert self.account.on_output is not None
            self.account.on_output(artifact(self.job), self.plan.output)
        then = self.job.state.get("then")
        if then is not None:
            then(self.job)


def run_of(job: Resource) -> Run:
    """A training job's run."""
    found = job.state["run"]
    assert isinstance(found, Run)
    return found


def artifact(job: Resource) -> str:
    """Where a job leaves its model."""
    root = job.body["OutputDataConfig"]["S3OutputPath"].rstrip("/")
    return f"{root}/{job.name}/output/model.tar.gz"


@serves("DescribeTrainingJob")
def describe_training(ask: Ask) -> Json:
    return described(_find(ask))


def described(job: Resource) -> Json:
    """A training job as DescribeTrainingJob tells it."""
    model = operation_model("sagemaker", "DescribeTrainingJob")
    assert model is not None
    assert model.output_shape is not None
    run = run_of(job)
    told = {
        **only_members(model.output_shape, job.body),
        "TrainingJobArn": job.arn,
        "TrainingJobStatus": job.status,
        "SecondaryStatus": run.secondary,
        "SecondaryStatusTransitions": run.transitions,
        "CreationTime": job.made,
        "LastModifiedTime": job.changed,
        "ModelArtifacts": {"S3ModelArtifacts": artifact(job)},
    }
    began = next((t["StartTime"] for t in run.transitions if t["Status"] == "Training"), None)
    if began is not None:
        told["TrainingStartTime"] = began
    if run.ended is not None:
        told["TrainingEndTime"] = run.ended
        told["TrainingTimeInSeconds"] = told["BillableTimeInSeconds"] = max(1, int(run.trained))
    if job.reason:
        told["FailureReason"] = job.reason
    metrics = {**run.plan.metrics, **job.state.get("metrics", {})}
    if metrics and job.status == "Completed":
        told["FinalMetricDataList"] = [
            {"MetricName": name, "Value": value, "Timestamp": job.changed}
            for name, value in metrics.items()
        ]
    if "tuning" in job.state:
        told["TuningJobArn"] = job.state["tuning"]
    return told


@serves("StopTrainingJob")
def stop_training(ask: Ask) -> None:
    job = _find(ask)
    if job.status == "Stopping":
        return
    if job.status != "InProgress":
        raise refuse(NOT_RUNNING, status=job.status)
    run_of(job).stop()


@serves("ListTrainingJobs")
def list_training(ask: Ask) -> Json:
    found = select(ask.account.all(TRAINING), ask.request)
    items, more = page(ask.account, [_summary(one) for one in found], ask.request)
    return {"TrainingJobSummaries": items, **more}


def _summary(job: Resource) -> Json:
    run = run_of(job)
    ended = {} if run.ended is None else {"TrainingEndTime": run.ended}
    return {
        "TrainingJobName": job.name,
        "TrainingJobArn": job.arn,
        "CreationTime": job.made,
        "LastModifiedTime": job.changed,
        "TrainingJobStatus": job.status,
        "SecondaryStatus": run.secondary,
        **ended,
    }


def _find(ask: Ask) -> Resource:
    found = ask.account.get(TRAINING, ask.request["TrainingJobName"])
    if found is None:
        raise refuse(ABSENT)
    return found
