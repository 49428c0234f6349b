"""A Deployment as SageMaker must hold it: the sagemaker adapter's share of ``normalise``; pure.

Artifact -> model -> endpoint config -> endpoint -> autoscaling (-> function). Model and config
never change: their names carry the hash of all that they say, so that a new version is a new name
and the endpoint's whole drift is one comparison of config names. Replicas, weights and autoscaling
are not in that hash: they change in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import JsonValue

from windlass_adapters.base import Desired, TerminalError, WaitingError, Wanted
from windlass_adapters.sagemaker.fleets import (
    changeable,
    concurrency,
    fleet_size,
    initial,
    lifetime_tags,
    most,
    production,
    size_faults,
    update_policy,
    variants_of,
)
from windlass_adapters.sagemaker.joboptions import JobOptions
from windlass_adapters.sagemaker.names import (
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
    Variant,
    Vpc,
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
HASH = 10
"""Characters of the hash in a name."""

Json = dict[str, JsonValue]


class Place(NamedTuple):
    """An artifact in S3."""

    url: str
    digest: str
    format: str


def vpc_config(vpc: Vpc) -> Json:
    """A network as every request of SageMaker has it."""
    return {"Subnets": list(vpc.subnets), "SecurityGroupIds": list(vpc.security_groups)}


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
        variants = variants_of(deployment.spec, options, self.params)
        models: dict[str, Wanted] = {}
        for variant in variants:
            image = variant.image or options.image
            place = Place(url, artifact.digest, format_)
            env = {**options.env, **variant.env}
            models[variant.name] = self.model(desired, options, place, image, env)
        wanted += {model.name: model for model in models.values()}.values()
        config = self._config(desired, deployment.spec, options, (variants, models))
        endpoint = self._endpoint(desired, deployment, options, (variants, config))
        wanted += [config, endpoint]
        if deployment.spec.autoscaling is not None:
            tags = self._tags(desired, options)
            wanted += [
                _scaling(endpoint.name, variant, deployment.spec.autoscaling, tags)
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

    def _tags(self, desired: Desired, options: DeploymentOptions | JobOptions) -> Json:
        tags = self.identity.tags(desired.owner, {**self.params.tags, **options.tags})
        return dict(tags)

    def model(
        self,
        desired: Desired,
        options: DeploymentOptions | JobOptions,
        place: Place,
        image: str | None,
        env: Mapping[str, str],
    ) -> Wanted:
        """An artifact in a container. Raises TerminalError when there is no image for it."""
        image = image or self.params.images.get(place.format)
        if image is None:
            raise TerminalError(
                f"there is no container image for {place.format}: set spec.options.image, or"
                f" params.images.{place.format} of the Target",
                reason=Reason.INVALID_SPEC,
            )
        container: Json = {"Image": image, "ModelDataUrl": place.url}
        if env:
            container["Environment"] = dict(env)
        request: Json = {
            "PrimaryContainer": container,
            "ExecutionRoleArn": options.role or self.params.role,
            "EnableNetworkIsolation": options.isolated,
        }
        if options.vpc is not None:
            request["VpcConfig"] = vpc_config(options.vpc)
        name = self._hashed(desired, {"request": request, "artifact": place.digest})
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
        rendered = [production(v, models[v.name].name, options) for v in variants]
        request: Json = {"ProductionVariants": list(rendered)}
        if options.kms_key is not None:
            request["KmsKeyId"] = options.kms_key
        name = self._hashed(desired, request)
        for variant, given in zip(variants, rendered, strict=True):
            if variant.serverless is not None:
                memory = {"MemorySizeInMB": variant.serverless.memory}
                given["ServerlessConfig"] = {**memory, **concurrency(variant.serverless)}
            else:
                given["InitialInstanceCount"] = initial(spec, variant)
            given["InitialVariantWeight"] = variant.weight
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
            "variants": {v.name: changeable(spec, v) for v in variants},
            "fleets": {v.name: v.instance_type for v in variants},
            "most": {v.name: most(spec, v) for v in variants},
            "update": update_policy(options.updates),
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


_METRICS = {
    "concurrency": ("SageMakerVariantConcurrentRequestsPerModelHighResolution", 1),
    "requestsPerSecond": ("SageMakerVariantInvocationsPerInstance", 60),
}
"""The predefined metric, and what our target is multiplied with: AWS counts by the minute."""


def _scaling(endpoint: str, variant: Variant, autoscaling: Autoscaling, tags: Json) -> Wanted:
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
        "tags": tags,
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
    if serverless:
        yield from _serverless_faults(spec, options)
    if options.updates.rolling is not None and (serverless or len(options.variants) > 1):
        yield "spec.options.updates.rolling", "is for one variant with instances; use blueGreen"
    if not serverless:
        yield from size_faults(options.updates, fleet_size(spec, options))


def _serverless_faults(
    spec: DeploymentSpec, options: DeploymentOptions
) -> Iterator[tuple[str, str]]:
    if spec.replicas is not None:
        yield "spec.replicas", "a serverless endpoint has none; leave it out"
    if len(options.variants) > 1:
        yield "spec.options.variants", "a serverless endpoint has one variant; AWS takes no more"
    if options.max_hourly_cost is not None:
        yield (
            "spec.options.maxHourlyCost",
            "a serverless endpoint costs by the request; bound it with maxConcurrency",
        )
    for field in ("vpc", "isolated", "volume", "startup_timeout"):
        if getattr(options, field):
            name = "startupTimeout" if field == "startup_timeout" else field
            yield f"spec.options.{name}", "AWS has none for a serverless endpoint; leave it out"


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
