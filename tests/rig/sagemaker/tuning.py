"""Hyper-parameter tuning: training jobs as children, some at a time, the best one kept."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping

from rig.sagemaker import training
from rig.sagemaker.account import Account, Plan, Resource, page, select
from rig.sagemaker.operations import Ask, serves
from rig.sagemaker.refusals import Refusal, not_modelled, refuse, rule
from rig.sagemaker.shapes import Json, only_members, operation_model
from rig.sagemaker.training import run_of

TUNING = "hyper-parameter-tuning-job"

EXISTS = rule(
    "tuning.exists",
    "issue",
    "ResourceInUse",
    "Hyper parameter tuning job names must be unique within an AWS account and region, and a "
    "tuning job with this name already exists ({arn})",
    "aws/sagemaker-python-sdk#101",
)
ABSENT = rule(
    "tuning.absent",
    "issue",
    "ResourceNotFound",
    "Amazon SageMaker can't find a tuning job with the name {name} in your AWS account and region.",
    "aws/amazon-sagemaker-operator-for-k8s, constants",
)
NOT_RUNNING = rule(
    "tuning.stop", "guess", "ValidationException", "The tuning job is in status {status} already"
)


@serves("CreateHyperParameterTuningJob")
def create_tuning(ask: Ask) -> Json:
    request, account = ask.request, ask.account
    name = request["HyperParameterTuningJobName"]
    if account.exists(TUNING, name):
        raise refuse(EXISTS, arn=account.arn(TUNING, name))
    if "TrainingJobDefinition" not in request:
        raise not_modelled("tuning of several definitions at once")
    job = account.make(TUNING, name, request, ask.principal)
    Search(account, job, account.plan("tuning", name)).begin()
    return {"HyperParameterTuningJobArn": job.arn}


class Search:
    """One tuning job on its way; kept in ``job.state["search"]``."""

    def __init__(self, account: Account, job: Resource, plan: Plan) -> None:
        self.account, self.job, self.plan = account, job, plan
        self.children: list[Resource] = []
        self.started = 0
        limits = job.body["HyperParameterTuningJobConfig"]["ResourceLimits"]
        self.most: int = limits.get("MaxNumberOfTrainingJobs", 1)
        self.parallel: int = limits["MaxParallelTrainingJobs"]
        job.state["search"] = self

    def begin(self) -> None:
        """Start the first children."""
        self.job.status = "InProgress"
        self._go_on()

    def _go_on(self) -> None:
        if self.job.status == "InProgress" and self.plan.fail and self.started:
            self._finish("Failed", self.plan.fail)
        while (
            self.job.status == "InProgress"
            and self.started < self.most
            and len(self.running()) < self.parallel
        ):
            self._start()
        if self.running():
            return
        if self.job.status == "Stopping":
            self._finish("Stopped")
        elif self.job.status == "InProgress" and self.started >= self.most:
            good = any(child.status == "Completed" for child in self.children)
            why = "" if good else "No training job succeeded."
            self._finish("Completed" if good else "Failed", why)

    def _start(self) -> None:
        self.started += 1
        definition = self.job.body["TrainingJobDefinition"]
        tuned = self._draw()
        suffix = uuid.UUID(int=self.account.random.getrandbits(128)).hex[:8]
        request = {key: value for key, value in definition.items() if key in _CHILD_MEMBERS}
        request["TrainingJobName"] = f"{self.job.name}-{self.started:03d}-{suffix}"
        statics = definition.get("StaticHyperParameters", {})
        request["HyperParameters"] = {**statics, **tuned}
        try:
            child = training.start(self.account, request, "sagemaker.amazonaws.com")
        except Refusal as refusal:  # without quota for its children it comes to nothing
            self._finish("Failed", refusal.message)
            return
        child.state["tuning"] = self.job.arn
        child.state["tuned"] = tuned
        child.state["then"] = lambda _: self._go_on()
        value = self.account.objective(request["HyperParameters"])
        child.state["metrics"] = {self.objective["MetricName"]: value}
        self.children.append(child)
        self.job.changed = self.account.now

    def _draw(self) -> dict[str, str]:
        ranges = self.job.body["HyperParameterTuningJobConfig"].get("ParameterRanges", {})
        draw = self.account.random
        tuned: dict[str, str] = {}
        for one in ranges.get("IntegerParameterRanges", ()):
            tuned[one["Name"]] = str(draw.randint(int(one["MinValue"]), int(one["MaxValue"])))
        for one in ranges.get("ContinuousParameterRanges", ()):
            value = draw.uniform(float(one["MinValue"]), float(one["MaxValue"]))
            tuned[one["Name"]] = repr(value)
        for one in ranges.get("CategoricalParameterRanges", ()):
            tuned[one["Name"]] = draw.choice(one["Values"])
        return tuned

    @property
    def objective(self) -> Mapping[str, str]:
        """Type and MetricName of what is sought."""
        held: Mapping[str, str] = self.job.body["HyperParameterTuningJobConfig"][
            "HyperParameterTuningJobObjective"
        ]
        return held

    def running(self) -> list[Resource]:
        """The children that have not ended."""
        return [child for child in self.children if child.status in ("InProgress", "Stopping")]

    def stop(self) -> None:
        """Stop the children, then this."""
        self.job.status, self.job.changed = "Stopping", self.account.now
        for child in self.running():
            if child.status == "InProgress":
                run_of(child).stop()
        self._go_on()

    def _finish(self, status: str, reason: str = "") -> None:
        self.job.status, self.job.reason, self.job.changed = status, reason, self.account.now
        self.job.state["ended"] = self.account.now

    def best(self) -> Resource | None:
        """The child whose objective is best."""
        done = [child for child in self.children if child.status == "Completed"]
        sign = 1 if self.objective["Type"] == "Minimize" else -1
        return min(done, key=lambda child: sign * self._value(child), default=None)

    def _value(self, child: Resource) -> float:
        value: float = child.state["metrics"][self.objective["MetricName"]]
        return value

    def summary(self, child: Resource) -> Json:
        """A child as HyperParameterTrainingJobSummary."""
        told: Json = {
            "TrainingJobName": child.name,
            "TrainingJobArn": child.arn,
            "CreationTime": child.made,
            "TrainingJobStatus": child.status,
            "TunedHyperParameters": child.state["tuned"],
            "ObjectiveStatus": _OBJECTIVE.get(child.status, "Pending"),
        }
        if run_of(child).ended is not None:
            told["TrainingEndTime"] = run_of(child).ended
        if child.reason:
            told["FailureReason"] = child.reason
        if child.status == "Completed":
            told["FinalHyperParameterTuningJobObjectiveMetric"] = {
                "Type": self.objective["Type"],
                "MetricName": self.objective["MetricName"],
                "Value": self._value(child),
            }
        return told


_OBJECTIVE = {"Completed": "Succeeded", "Failed": "Failed", "Stopped": "Failed"}
_CHILD_MEMBERS = {
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "VpcConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "RetryStrategy",
    "Environment",
}


def _search_of(job: Resource) -> Search:
    found = job.state["search"]
    assert isinstance(found, Search)
    return found


def _counters(search: Search) -> Json:
    status = Counter(child.status for child in search.children)
    done, failed = status["Completed"], status["Failed"]
    pending = status["InProgress"] + status["Stopping"]
    return {
        "TrainingJobStatusCounters": {
            "Completed": done,
            "InProgress": pending,
            "RetryableError": 0,
            "NonRetryableError": failed,
            "Stopped": status["Stopped"],
        },
        "ObjectiveStatusCounters": {
            "Succeeded": done,
            "Pending": pending,
            "Failed": failed + status["Stopped"],
        },
    }


@serves("DescribeHyperParameterTuningJob")
def describe_tuning(ask: Ask) -> Json:
    job = _find(ask)
    search = _search_of(job)
    model = operation_model("sagemaker", "DescribeHyperParameterTuningJob")
    assert model is not None
    assert model.output_shape is not None
    told = {**only_members(model.output_shape, job.body), **_summary(job)}
    told.pop("Strategy")
    told.pop("ResourceLimits")
    best = search.best()
    if best is not None:
        told["BestTrainingJob"] = search.summary(best)
    if job.reason:
        told["FailureReason"] = job.reason
    return told


def _summary(job: Resource) -> Json:
    config = job.body["HyperParameterTuningJobConfig"]
    ended = job.state.get("ended")
    return {
        "HyperParameterTuningJobName": job.name,
        "HyperParameterTuningJobArn": job.arn,
        "HyperParameterTuningJobStatus": job.status,
        "Strategy": config["Strategy"],
        "ResourceLimits": config["ResourceLimits"],
        "CreationTime": job.made,
        "LastModifiedTime": job.changed,
        **({} if ended is None else {"HyperParameterTuningEndTime": ended}),
        **_counters(_search_of(job)),
    }


@serves("ListHyperParameterTuningJobs")
def list_tuning(ask: Ask) -> Json:
    found = select(ask.account.all(TUNING), ask.request)
    items, more = page(ask.account, [_summary(one) for one in found], ask.request)
    return {"HyperParameterTuningJobSummaries": items, **more}


@serves("ListTrainingJobsForHyperParameterTuningJob")
def list_children(ask: Ask) -> Json:
    search = _search_of(_find(ask))
    request = {k: v for k, v in ask.request.items() if k != "HyperParameterTuningJobName"}
    if request.get("SortBy") == "FinalObjectiveMetricValue":
        raise not_modelled("children by their objective")
    found = select(search.children, request)
    items, more = page(ask.account, [search.summary(one) for one in found], request)
    return {"TrainingJobSummaries": items, **more}


@serves("StopHyperParameterTuningJob")
def stop_tuning(ask: Ask) -> None:
    job = _find(ask)
    if job.status == "Stopping":
        return
    if job.status != "InProgress":
        raise refuse(NOT_RUNNING, status=job.status)
    _search_of(job).stop()


def _find(ask: Ask) -> Resource:
    name = ask.request["HyperParameterTuningJobName"]
    found = ask.account.get(TUNING, name)
    if found is None:
        raise refuse(ABSENT, name=name)
    return found
