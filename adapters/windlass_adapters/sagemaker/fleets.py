"""Fleets of an endpoint, and how updates roll over them: rendered for SageMaker. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import JsonValue

from windlass_adapters.sagemaker.names import FLEET_TAG, IDLE_TAG, TTL_TAG
from windlass_adapters.sagemaker.params import (
    DeploymentOptions,
    SageMakerParams,
    Serverless,
    Size,
    Updates,
    Variant,
)
from windlass_schemas import DeploymentSpec

ONE_VARIANT = "AllTraffic"
Json = dict[str, JsonValue]


def variants_of(
    spec: DeploymentSpec, options: DeploymentOptions, params: SageMakerParams
) -> tuple[Variant, ...]:
    """The fleets, each with all that it needs to know."""
    given = options.variants or (
        Variant(
            name=ONE_VARIANT, instance_type=options.instance_type, serverless=options.serverless
        ),
    )
    return tuple(
        v
        if v.serverless is not None
        else v.model_copy(update={"instance_type": v.instance_type or params.instance_type})
        for v in given
    )


def lifetime_tags(options: DeploymentOptions, variants: tuple[Variant, ...]) -> Json:
    """What a look at the endpoint alone must know: its machines, and how long it may stay."""
    fleet = " ".join(f"{v.name}={v.instance_type}" for v in variants if v.instance_type)
    found: Json = {FLEET_TAG: fleet} if 0 < len(fleet) <= 256 else {}
    if options.ttl is not None:
        found[TTL_TAG] = str(int(options.ttl.total_seconds()))
    if options.idle_stop is not None:
        found[IDLE_TAG] = str(int(options.idle_stop.after.total_seconds()))
    return found


def most(spec: DeploymentSpec, variant: Variant) -> int:
    """How many instances a fleet may come to have."""
    return spec.autoscaling.max if spec.autoscaling else initial(spec, variant)


def initial(spec: DeploymentSpec, variant: Variant) -> int:
    least = spec.autoscaling.min if spec.autoscaling else 1
    return variant.replicas or spec.replicas or max(least, 1)


def fleet_size(spec: DeploymentSpec, options: DeploymentOptions) -> int | None:
    """How many instances there are in all; None while something else decides that."""
    if spec.autoscaling is not None:
        return None
    given = options.variants or (Variant(name=ONE_VARIANT),)
    return sum(initial(spec, variant) for variant in given)


def changeable(spec: DeploymentSpec, variant: Variant) -> Json:
    """What of a fleet may change while it serves. Autoscaled replicas are not ours to set."""
    found: Json = {"weight": variant.weight}
    if variant.serverless is not None:
        found |= concurrency(variant.serverless)
    elif spec.autoscaling is None:
        found["replicas"] = initial(spec, variant)
    return found


def concurrency(serverless: Serverless) -> Json:
    found: Json = {"MaxConcurrency": serverless.max_concurrency}
    if serverless.provisioned_concurrency is not None:
        found["ProvisionedConcurrency"] = serverless.provisioned_concurrency
    return found


def production(variant: Variant, model: str, options: DeploymentOptions) -> Json:
    found: Json = {"VariantName": variant.name, "ModelName": model}
    if variant.serverless is not None:
        found["ServerlessConfig"] = {"MemorySizeInMB": variant.serverless.memory}
        return found
    found["InstanceType"] = variant.instance_type
    if options.volume is not None:
        found["VolumeSizeInGB"] = options.volume
    if options.startup_timeout is not None:
        seconds = int(options.startup_timeout.total_seconds())
        found["ContainerStartupHealthCheckTimeoutInSeconds"] = seconds
    return found


def _size(size: Size) -> Json:
    if size.instances is not None:
        return {"Type": "INSTANCE_COUNT", "Value": size.instances}
    return {"Type": "CAPACITY_PERCENT", "Value": size.percent}


def size_faults(updates: Updates, fleet: int | None) -> Iterator[tuple[str, str]]:
    """Steps that AWS refuses. Of a fleet that is scaled, only percents can be judged."""
    bounded = []
    if updates.rolling is not None:
        bounded.append(("rolling.batch", updates.rolling.batch, 5, 50))
        if updates.rolling.undo is not None:
            bounded.append(("rolling.undo", updates.rolling.undo, 5, 100))
    blue_green = updates.blue_green
    if blue_green is not None and blue_green.size is not None:
        least = 10 if blue_green.traffic == "linear" else 1
        bounded.append(("blueGreen.size", blue_green.size, least, 50))
    for field, size, least, most in bounded:
        percent: float | None = size.percent
        if size.instances is not None:
            percent = 100 * size.instances / fleet if fleet else None
        if percent is not None and not least <= percent <= most:
            of = f" of {fleet} replicas" if size.instances is not None else ""
            yield f"spec.options.updates.{field}", f"is {least} to {most} percent{of}"


_TRAFFIC = {"all-at-once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR"}


def update_policy(updates: Updates) -> Json:
    """The DeploymentConfig of the next update; empty for SageMaker's default."""
    found: Json = {}
    longest: Json = {}
    if updates.max_time is not None:
        longest = {"MaximumExecutionTimeoutInSeconds": int(updates.max_time.total_seconds())}
    if updates.rolling is not None:
        rolling: Json = {
            "MaximumBatchSize": _size(updates.rolling.batch),
            "WaitIntervalInSeconds": int(updates.rolling.wait.total_seconds()),
            **longest,
        }
        if updates.rolling.undo is not None:
            rolling["RollbackMaximumBatchSize"] = _size(updates.rolling.undo)
        found["RollingUpdatePolicy"] = rolling
    elif updates.blue_green is not None:
        blue_green = updates.blue_green
        traffic: Json = {
            "Type": _TRAFFIC[blue_green.traffic],
            "WaitIntervalInSeconds": int(blue_green.wait.total_seconds()),
        }
        if blue_green.size is not None:
            step = "CanarySize" if blue_green.traffic == "canary" else "LinearStepSize"
            traffic[step] = _size(blue_green.size)
        found["BlueGreenUpdatePolicy"] = {
            "TrafficRoutingConfiguration": traffic,
            "TerminationWaitInSeconds": int(blue_green.termination_wait.total_seconds()),
            **longest,
        }
    if updates.alarms:
        alarms: list[JsonValue] = [{"AlarmName": name} for name in updates.alarms]
        found["AutoRollbackConfiguration"] = {"Alarms": alarms}
    return found
