"""What is going to cost how much, and what would remain: for plans and limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from windlass_adapters.base import TerminalError, Wanted
from windlass_adapters.sagemaker.deployments import ENDPOINT_ROLE
from windlass_adapters.sagemaker.jobs import RUN_ROLE
from windlass_adapters.sagemaker.names import LIMIT_TAG
from windlass_adapters.sagemaker.processing import PROCESSING_ROLE
from windlass_adapters.sagemaker.rates import Rates, dollars
from windlass_adapters.sagemaker.transforms import TRANSFORM_ROLE
from windlass_adapters.sagemaker.tuning import TUNING_ROLE
from windlass_schemas import Reason

_RUNS = (RUN_ROLE, TUNING_ROLE, PROCESSING_ROLE, TRANSFORM_ROLE)


def _fleet(wanted: Wanted) -> dict[str, tuple[str, int]]:
    """The instances of an endpoint: as many as it may have."""
    sizes, types = wanted.body["most"], wanted.body["fleets"]
    assert isinstance(sizes, dict)
    assert isinstance(types, dict)
    return {
        name: (str(types[name]), int(str(count)))
        for name, count in sizes.items()
        if types.get(name) is not None
    }


def cost_of(rates: Rates, wanted: Sequence[Wanted]) -> str:
    """One line for ``windlass plan``; empty when nothing is known or nothing costs."""
    lines = [found for item in wanted if (found := _cost(rates, item))]
    return "; ".join(lines)


def _cost(rates: Rates, wanted: Wanted) -> str:
    if wanted.role == ENDPOINT_ROLE:
        fleets = _fleet(wanted)
        hourly = rates.hourly(fleets)
        sizes = " + ".join(f"{count} x {type_}" for type_, count in fleets.values())
        if hourly is None:
            return f"{sizes} (no rate known)" if sizes else ""
        return f"at most {dollars(hourly)} an hour ({sizes}), twice that during an update"
    if wanted.role in _RUNS:
        return _run_cost(rates, wanted)
    return ""


def _run_cost(rates: Rates, wanted: Wanted) -> str:
    request = wanted.body["request"]
    assert isinstance(request, dict)
    jobs, (type_, machines, seconds) = _jobs(request), _fleet_of_run(wanted, request)
    rate = rates.by_type.get(type_)
    if rate is None:
        return f"{machines} x {type_} (no rate known)"
    hours = seconds / 3600
    each = f"{machines} x {type_} for {hours:g} h at most"
    many = f", {jobs} times" if jobs > 1 else ""
    return f"at most {dollars(rate * machines * hours * jobs)} ({each}{many})"


def _fleet_of_run(wanted: Wanted, request: Mapping[str, JsonValue]) -> tuple[str, int, int]:
    """Instance type, machines, and the seconds that they may take."""
    definition = request.get("TrainingJobDefinition", request)
    assert isinstance(definition, dict)
    if wanted.role == TRANSFORM_ROLE:
        machines, seconds = definition["TransformResources"], _tag(wanted, LIMIT_TAG)
    else:
        if wanted.role == PROCESSING_ROLE:
            resources = definition["ProcessingResources"]
            assert isinstance(resources, dict)
            machines = resources["ClusterConfig"]
        else:
            machines = definition["ResourceConfig"]
        stopping = definition["StoppingCondition"]
        assert isinstance(stopping, dict)
        seconds = stopping["MaxRuntimeInSeconds"]
    assert isinstance(machines, dict)
    return str(machines["InstanceType"]), int(str(machines["InstanceCount"])), int(str(seconds))


def _tag(wanted: Wanted, name: str) -> JsonValue:
    tags = wanted.body["tags"]
    assert isinstance(tags, dict)
    return tags[name]


def _jobs(request: Mapping[str, JsonValue]) -> int:
    config = request.get("HyperParameterTuningJobConfig")
    if not isinstance(config, dict):
        return 1
    limits = config["ResourceLimits"]
    assert isinstance(limits, dict)
    return int(str(limits.get("MaxNumberOfTrainingJobs", 1)))


def refuse_too_expensive(rates: Rates, endpoint: Wanted, limit: float | None) -> None:
    """Raises TerminalError when an endpoint may cost more than its limit."""
    if limit is None:
        return
    hourly = rates.hourly(_fleet(endpoint))
    if hourly is None:
        raise TerminalError(
            "spec.options.maxHourlyCost: there is no rate for its instance types; name a file of"
            " rates in params.rates of the Target",
            reason=Reason.INVALID_SPEC,
        )
    if hourly > limit:
        raise TerminalError(
            f"it may cost {dollars(hourly)} an hour, and spec.options.maxHourlyCost allows"
            f" {dollars(limit)}; raise that, or take fewer or smaller instances",
            reason=Reason.COST_LIMIT_EXCEEDED,
        )


def what_remains(rates: Rates, wanted: Sequence[Wanted], *, orphaned: bool) -> str:
    """What is there still when the object has gone."""
    if orphaned:
        left = [f"{w.role} {w.name}" for w in wanted]
        money = cost_of(rates, wanted)
        return f"left behind: {', '.join(left)}" + (f"; {money}" if money else "")
    kept = [w for w in wanted if w.role in _RUNS]
    return f"its outputs stay in S3 below {kept[0].body['folder']}" if kept else ""
