"""Sweeps as SageMaker tuning: rendering (pure), and hops 5 and 7.

SageMaker chooses params, runs the children and names the best; what it found becomes the output
``best``, with the types of the ranges, for a Job's ``bestOf``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import JsonValue

from windlass_adapters.base import Desired, External, Found, Owner, State, Wanted
from windlass_adapters.sagemaker.answers import Answer, number, part, text
from windlass_adapters.sagemaker.deployments import Renderer
from windlass_adapters.sagemaker.joboptions import JobOptions
from windlass_adapters.sagemaker.jobs import (
    OUTPUTS,
    Json,
    hyper_parameters,
    training,
    wanted,
)
from windlass_adapters.sagemaker.names import TUNING_LIMIT
from windlass_adapters.sagemaker.training import Training, declared
from windlass_schemas import BEST_PARAMS, Artifact, Range, Reason, Sweep, digest_of

_STRATEGIES = {
    "bayesian": "Bayesian",
    "random": "Random",
    "grid": "Grid",
    "hyperband": "Hyperband",
}
_SCALES = {
    "auto": "Auto",
    "linear": "Linear",
    "logarithmic": "Logarithmic",
    "reverseLogarithmic": "ReverseLogarithmic",
}
TUNING_ROLE = "sweep"


def wanted_sweep(renderer: Renderer, desired: Desired, sweep: Sweep) -> Wanted:
    """The one tuning job of a Sweep."""
    spec, options = sweep.spec, JobOptions.model_validate(sweep.spec.options)
    definition, uploads = training(renderer, desired, spec, options)
    definition["StaticHyperParameters"] = hyper_parameters(spec)
    algorithm = definition["AlgorithmSpecification"]
    assert isinstance(algorithm, dict)
    metrics = algorithm.setdefault("MetricDefinitions", [])
    assert isinstance(metrics, list)
    metrics.append({"Name": spec.objective.metric, "Regex": spec.objective.regex})
    limits: Json = {"MaxParallelTrainingJobs": spec.max_parallel}
    if spec.sampler != "grid":
        limits["MaxNumberOfTrainingJobs"] = spec.max_jobs
    request: Json = {
        "HyperParameterTuningJobConfig": {
            "Strategy": _STRATEGIES[spec.sampler],
            "HyperParameterTuningJobObjective": {
                "Type": spec.objective.goal.capitalize(),
                "MetricName": spec.objective.metric,
            },
            "ResourceLimits": limits,
            "ParameterRanges": _ranges(spec.ranges, encoded=spec.entrypoint is not None),
            "TrainingJobEarlyStoppingType": "Auto" if spec.early_stopping else "Off",
        },
        "TrainingJobDefinition": definition,
    }
    return wanted(renderer, desired, spec, (request, uploads), TUNING_ROLE, TUNING_LIMIT)


def _ranges(ranges: Mapping[str, Range], *, encoded: bool) -> Json:
    whole: list[JsonValue] = []
    real: list[JsonValue] = []
    choices: list[JsonValue] = []
    for name, given in sorted(ranges.items()):
        if given.values is not None:
            values: list[JsonValue] = [json.dumps(v) if encoded else str(v) for v in given.values]
            choices.append({"Name": name, "Values": values})
            continue
        bounds: Json = {
            "Name": name,
            "MinValue": str(given.min),
            "MaxValue": str(given.max),
            "ScalingType": _SCALES[given.scale],
        }
        (whole if given.is_whole else real).append(bounds)
    found: Json = {}
    if whole:
        found["IntegerParameterRanges"] = whole
    if real:
        found["ContinuousParameterRanges"] = real
    if choices:
        found["CategoricalParameterRanges"] = choices
    return found


class Tuning(Training):
    """The tuning jobs of one Target."""

    noun = "HyperParameterTuningJob"
    role = TUNING_ROLE
    type = "sagemaker:hyper-parameter-tuning-job"
    log_mark = "-"  # of its children

    def request(self, wanted: Wanted) -> Json:
        request = json.loads(json.dumps(wanted.body["request"]))
        assert isinstance(request, dict)
        definition = request["TrainingJobDefinition"]
        assert isinstance(definition, dict)
        self.complete(wanted, definition, "StaticHyperParameters")
        return request

    def _found(
        self, owner: Owner, external: External, answer: Answer, tags: Mapping[str, str]
    ) -> Found:
        found = super()._found(owner, external, answer, tags)
        if found.state is State.SUCCEEDED and BEST_PARAMS not in found.outputs:
            message = "no child has given the objective; look at their logs and at objective.regex"
            return Found(
                external, found.owner_uid, State.FAILED, reason=Reason.FAILED, message=message
            )
        return found

    def outputs(self, answer: Answer, tags: Mapping[str, str]) -> dict[str, Artifact]:
        best = part(answer, "BestTrainingJob")
        name = text(best, "TrainingJobName")
        if not name:
            return {}
        definition = part(answer, "TrainingJobDefinition")
        ranges = part(part(answer, "HyperParameterTuningJobConfig"), "ParameterRanges")
        params = typed(part(best, "TunedHyperParameters"), ranges)
        content = json.dumps(params, sort_keys=True)
        place = text(part(definition, "OutputDataConfig"), "S3OutputPath").rstrip("/")
        folder = f"{place}/{name}/output"
        found = declared(tags, {path: f"{folder}/{path}" for path in OUTPUTS}.get)
        found[BEST_PARAMS] = Artifact(
            digest=digest_of(dict(params)), size=len(content), name="best.json", text=content
        )
        return found

    def detail(self, answer: Answer) -> Json:
        best = part(answer, "BestTrainingJob")
        counters = part(answer, "TrainingJobStatusCounters")
        shown: Json = {
            "status": text(answer, f"{self.noun}Status"),
            "completed": int(number(counters, "Completed") or 0),
            "running": int(number(counters, "InProgress") or 0),
            "failed": int(number(counters, "NonRetryableError") or 0),
            "best": text(best, "TrainingJobName"),
            "value": number(part(best, "FinalHyperParameterTuningJobObjectiveMetric"), "Value"),
        }
        return {"sweep": {k: v for k, v in shown.items() if v not in ("", None)}}


def typed(params: Answer, ranges: Answer) -> dict[str, JsonValue]:
    """Best params with the types of their ranges: SageMaker gives texts, often quoted ones."""
    found: dict[str, JsonValue] = {}
    whole = _names(ranges, "IntegerParameterRanges")
    real = _names(ranges, "ContinuousParameterRanges")
    for name in params:
        value = text(params, name)
        if name in whole:
            found[name] = int(float(value))
        elif name in real:
            found[name] = float(value)
        else:
            try:
                found[name] = json.loads(value)
            except ValueError:
                found[name] = value
    return found


def _names(ranges: Answer, member: str) -> set[str]:
    held = ranges.get(member)
    return {text(r, "Name") for r in held} if isinstance(held, list) else set()
