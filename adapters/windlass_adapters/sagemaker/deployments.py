"""A Deployment as SageMaker must hold it: the sagemaker adapter's share of ``normalise``; pure.

Artifact -> model -> endpoint config -> endpoint -> autoscaling (-> function). Model and config
never change: their names carry the hash of all that they say, so that a new version is a new name
and the endpoint's whole drift is one comparison of config names. Replicas, weights and autoscaling
are not in that hash: they change in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from windlass_adapters.base import Desired, TerminalError, WaitingError, Wanted
from windlass_adapters.sagemaker.names import (
    FLEET_TAG,
    IDLE_TAG,
    TTL_TAG,
    Identity,
    endpoint_name,
    hashed,
    short_hash,
    slug,
)
from windlass_adapters.sagemaker.packing import check_name
from windlass_adapters.sagemaker.params import (
    DeploymentOptions,
    SageMakerParams,
    Serverless,
    Size,
    Updates,
    Variant,
)
from windlass_adapters.sagemaker.storage import Keys
from windlass_schemas import (
    Artifact,
    Autoscaling,
    Deployment,
    DeploymentSpec,
    Reason,
    digest_of,
    references_of,
)

ARTIFACT_ROLE = "artifact"
MODEL_ROLE = "model"
CONFIG_ROLE = "config"
ENDPOINT_ROLE = "endpoint"
SCALING_ROLE = "scaling"
ONE_VARIANT = "AllTraffic"
HASH = 10
"""Characters of the hash in a name."""

Json = dict[str, JsonValue]


def name_digest(name: str) -> str:
    """The digest of what never changes under its name."""
    return digest_of({"name": name})


@dataclass(frozen=True)
class Renderer:
    """Renders for one Target."""

    params: SageMakerParams
    keys: Keys
    identity: Identity

    def deployment(self, desired: Desired, deployment: Deployment) -> tuple[Wanted, ...]:
        """Everything that a Deployment needs, in the order of creation.

        Raises TerminalError for what SageMaker cannot do, WaitingError while there is no artifact.
        """
        if found := "; ".join(
            f"{field}: {fault}" for field, fault in deployment_faults(deployment)
        ):
            raise TerminalError(found, reason=Reason.INVALID_SPEC)
        options = DeploymentOptions.model_validate(deployment.spec.options)
        artifact, format_ = _artifact(desired, deployment)
        artifact = artifact.model_copy(update={"format": format_})
        wanted: list[Wanted] = []
        if artifact.url is None:
            wanted.append(self.artifact(desired, artifact, format_))
            url = self.keys.url(wanted[0].name)
        else:
            url = artifact.url
        variants = _variants(deployment.spec, options, self.params)
        models: dict[str, Wanted] = {}
        for variant in variants:
            model = self._model(desired, options, variant, (url, artifact.digest, format_))
            models[variant.name] = model
        wanted += {model.name: model for model in models.values()}.values()
        config = self._config(desired, deployment.spec, options, (variants, models))
        endpoint = self._endpoint(desired, deployment, options, (variants, config))
        wanted += [config, endpoint]
        if deployment.spec.autoscaling is not None:
            wanted += [
                _scaling(endpoint.name, variant, deployment.spec.autoscaling)
                for variant in variants
            ]
        return tuple(wanted)

    def artifact(self, desired: Desired, artifact: Artifact, format_: str) -> Wanted:
        """The object in S3 that an artifact of the artifact store becomes."""
        fault = check_name(artifact.name, format_)
        if fault:
            raise TerminalError(fault, reason=Reason.INVALID_ARTIFACT)
        key = self.keys.of(desired.owner, artifact)
        body: Json = {"artifact": artifact.model_dump(mode="json"), "format": format_}
        return Wanted(ARTIFACT_ROLE, key, name_digest(key), body)

    def _tags(self, desired: Desired, options: DeploymentOptions) -> Json:
        tags = self.identity.tags(desired.owner, {**self.params.tags, **options.tags})
        return dict(tags)

    def _model(
        self,
        desired: Desired,
        options: DeploymentOptions,
        variant: Variant,
        artifact: tuple[str, str, str],
    ) -> Wanted:
        url, digest, format_ = artifact
        image = variant.image or options.image or self.params.images.get(format_)
        if image is None:
            raise TerminalError(
                f"there is no container image for {format_}: set spec.options.image, or"
                f" params.images.{format_} of the Target",
                reason=Reason.INVALID_SPEC,
            )
        container: Json = {"Image": image, "ModelDataUrl": url}
        env = {**options.env, **variant.env}
        if env:
            container["Environment"] = dict(env)
        request: Json = {
            "PrimaryContainer": container,
            "ExecutionRoleArn": options.role or self.params.role,
            "EnableNetworkIsolation": options.isolated,
        }
        if options.vpc is not None:
            request["VpcConfig"] = {
                "Subnets": list(options.vpc.subnets),
                "SecurityGroupIds": list(options.vpc.security_groups),
            }
        name = self._hashed(desired, {"request": request, "artifact": digest})
        body: Json = {"request": request, "tags": self._tags(desired, options)}
        return Wanted(MODEL_ROLE, name, name_digest(name), body)

    def _hashed(self, desired: Desired, content: Json) -> str:
        owner = self.identity.token(desired.owner)
        hash_ = short_hash(HASH, owner, str(desired.owner.key), content)
        return hashed(slug(desired.owner.key), hash_)

    def _config(
        self,
        desired: Desired,
        spec: DeploymentSpec,
        options: DeploymentOptions,
        fleets: tuple[tuple[Variant, ...], Mapping[str, Wanted]],
    ) -> Wanted:
        """Its hash is over everything but what changes in place."""
        variants, models = fleets
        rendered = [_production(v, models[v.name].name, options) for v in variants]
        request: Json = {"ProductionVariants": list(rendered)}
        if options.kms_key is not None:
            request["KmsKeyId"] = options.kms_key
        name = self._hashed(desired, request)
        for variant, production in zip(variants, rendered, strict=True):
            if variant.serverless is not None:
                memory = {"MemorySizeInMB": variant.serverless.memory}
                production["ServerlessConfig"] = {**memory, **_concurrency(variant.serverless)}
            else:
                production["InitialInstanceCount"] = _initial(spec, variant)
            production["InitialVariantWeight"] = variant.weight
        body: Json = {"request": request, "tags": self._tags(desired, options)}
        return Wanted(CONFIG_ROLE, name, name_digest(name), body)

    def _endpoint(
        self,
        desired: Desired,
        deployment: Deployment,
        options: DeploymentOptions,
        parts: tuple[tuple[Variant, ...], Wanted],
    ) -> Wanted:
        variants, config = parts
        spec = deployment.spec
        name = options.endpoint_name or endpoint_name(desired.owner.key)
        body: Json = {
            "config": config.name,
            "variants": {v.name: _in_place(spec, v) for v in variants},
            "fleets": {v.name: v.instance_type for v in variants},
            "most": {v.name: _most(spec, v) for v in variants},
            "update": _update_policy(options.updates),
            "alarms": list(options.updates.alarms),
            "tags": self._tags(desired, options) | lifetime_tags(options, variants),
            "adopt": deployment.policy.adopt,
        }
        return Wanted(ENDPOINT_ROLE, name, name_digest(config.name), body)


def _artifact(desired: Desired, deployment: Deployment) -> tuple[Artifact, str]:
    """The Model's artifact and its format."""
    for reference in references_of(deployment):
        if reference.output is not None and (found := desired.inputs.get(reference.slot)):
            return found, found.format or "onnx"
    raise WaitingError(
        f"Model/{deployment.spec.model} has no artifact yet", reason=Reason.DEPENDENCY_NOT_READY
    )


def _variants(
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


def _most(spec: DeploymentSpec, variant: Variant) -> int:
    """How many instances a fleet may come to have."""
    return spec.autoscaling.max if spec.autoscaling else _initial(spec, variant)


def _initial(spec: DeploymentSpec, variant: Variant) -> int:
    least = spec.autoscaling.min if spec.autoscaling else 1
    return variant.replicas or spec.replicas or max(least, 1)


def _in_place(spec: DeploymentSpec, variant: Variant) -> Json:
    """What of a fleet may change while it serves. Autoscaled replicas are not ours to set."""
    found: Json = {"weight": variant.weight}
    if variant.serverless is not None:
        found |= _concurrency(variant.serverless)
    elif spec.autoscaling is None:
        found["replicas"] = _initial(spec, variant)
    return found


def _concurrency(serverless: Serverless) -> Json:
    found: Json = {"MaxConcurrency": serverless.max_concurrency}
    if serverless.provisioned_concurrency is not None:
        found["ProvisionedConcurrency"] = serverless.provisioned_concurrency
    return found


def _production(variant: Variant, model: str, options: DeploymentOptions) -> Json:
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


_TRAFFIC = {"all-at-once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR"}


def _update_policy(updates: Updates) -> Json:
    """The DeploymentConfig of the next update; empty for SageMaker's default."""
    found: Json = {}
    longest: Json = {}
    if updates.max_time is not None:
        longest = {"MaximumExecutionTimeoutInSeconds": int(updates.max_time.total_seconds())}
    if updates.rolling is not None:
        found["RollingUpdatePolicy"] = {
            "MaximumBatchSize": _size(updates.rolling.batch),
            "WaitIntervalInSeconds": int(updates.rolling.wait.total_seconds()),
            **longest,
        }
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


_METRICS = {
    "concurrency": ("SageMakerVariantConcurrentRequestsPerModelHighResolution", 1),
    "requestsPerSecond": ("SageMakerVariantInvocationsPerInstance", 60),
}
"""The predefined metric, and what our target is multiplied with: AWS counts by the minute."""


def _scaling(endpoint: str, variant: Variant, autoscaling: Autoscaling) -> Wanted:
    """The scalable target of one fleet, and its policy."""
    metric, factor = _METRICS[autoscaling.metric]
    body: Json = {
        "endpoint": endpoint,
        "min": max(autoscaling.min, 1),
        "max": autoscaling.max,
        "metric": metric,
        "target": autoscaling.target * factor,
        "cooldownOut": int(autoscaling.stabilisation.up.total_seconds()),
        "cooldownIn": int(autoscaling.stabilisation.down.total_seconds()),
    }
    name = f"endpoint/{endpoint}/variant/{variant.name}"
    return Wanted(SCALING_ROLE, name, name_digest(name), body)


def deployment_faults(deployment: Deployment) -> Iterator[tuple[str, str]]:
    """What SageMaker cannot do of a Deployment: refused, never accepted and ignored."""
    spec, options = deployment.spec, DeploymentOptions.model_validate(deployment.spec.options)
    if spec.rollout.canary is not None or spec.rollout.shadow is not None:
        yield "spec.rollout", "SageMaker has its own ways: use spec.options.updates with alarms"
    if spec.access is not None:
        yield "spec.access", "who may invoke an endpoint is said in IAM; leave it out"
    resources = spec.resources
    if resources.cpus is not None or resources.memory is not None or resources.gpus:
        yield "spec.resources", "SageMaker sells whole instances; use spec.options.instanceType"
    yield from _scaling_faults(spec, options)
    serverless = options.serverless or any(v.serverless for v in options.variants)
    if spec.replicas is not None and serverless:
        yield "spec.replicas", "a serverless endpoint has none; leave it out"
    if options.updates.rolling is not None and (serverless or len(options.variants) > 1):
        yield "spec.options.updates.rolling", "is for one variant with instances; use blueGreen"


def _scaling_faults(spec: DeploymentSpec, options: DeploymentOptions) -> Iterator[tuple[str, str]]:
    scaling = spec.autoscaling
    if scaling is None:
        return
    if scaling.metric not in _METRICS:
        known = " or ".join(sorted(_METRICS))
        yield "spec.autoscaling.metric", f"SageMaker scales by {known}, not by {scaling.metric}"
    if scaling.min < 1:
        yield "spec.autoscaling.min", "is 1 at least: an endpoint keeps one instance"
    if options.serverless or any(v.serverless for v in options.variants):
        yield "spec.autoscaling", "a serverless endpoint scales by itself; leave it out"
    if any(v.replicas is not None for v in options.variants):
        yield "spec.options.variants", "replicas and spec.autoscaling exclude each other"
