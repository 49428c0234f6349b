"""Endpoints: what is asked of them. How they go on is in ``rollouts``."""

from __future__ import annotations

from rig.sagemaker import rollouts
from rig.sagemaker.account import Resource, page, select
from rig.sagemaker.models import find_config
from rig.sagemaker.operations import Ask, serves
from rig.sagemaker.refusals import refuse, rule
from rig.sagemaker.rollouts import ENDPOINT, Variant
from rig.sagemaker.shapes import Json
from rig.sagemaker.shifting import check_deployment

TARGET = "scalable-target"

BUSY = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})

EXISTS = rule(
    "endpoint.exists",
    "issue",
    "ValidationException",
    'Cannot create already existing endpoint "{arn}".',
    "aws/sagemaker-python-sdk#101",
)
ABSENT = rule(
    "endpoint.absent",
    "issue",
    "ValidationException",
    'Could not find endpoint "{arn}".',
    "aws-controllers-k8s/sagemaker-controller, generator.yaml",
)
IS_BUSY = rule(
    "endpoint.busy",
    "issue",
    "ValidationException",
    'Cannot update in-progress endpoint "{arn}".',
    "aws/amazon-sagemaker-examples#3432; hashicorp/terraform-provider-aws#39152",
)
FAILED_IS_FINAL = rule(
    "endpoint.failed",
    "guess",
    "ValidationException",
    'Endpoint "{arn}" is in status Failed',
    "that DeleteEndpoint is all that can be done is documented; the words are not known",
)
VARIANT_ABSENT = rule(
    "endpoint.variant",
    "guess",
    "ValidationException",
    'The variant name(s) "{variant}" is/are not present within endpoint configuration "{config}".',
)
INTERLOCK = rule(
    "endpoint.autoscaled",
    "guess",
    "ValidationException",
    'The variant(s) "{variant}" must be deregistered as a scalable target first.',
    "that it must be deregistered first is documented; the words are not known",
)
QUOTA = rule(
    "quota.endpoint",
    "issue",
    "ResourceLimitExceeded",
    "The account-level service limit '{type} for {usage} usage' is {limit} Instances, with "
    "current utilization of {used} Instances and a request delta of {delta} Instances. Please use "
    "AWS Service Quotas to request an increase for this quota. If AWS Service Quotas is not "
    "available, contact AWS support to request an increase for this quota.",
    "aws-solutions/deepracer-on-aws#88",
)
GUARDRAIL_NAMES = rule(
    "endpoint.guardrail-variants",
    "guess",
    "ValidationException",
    "A blue/green deployment with traffic shifting needs the same variant names",
    "the need is documented; the words are not known",
)
TO_SERVERLESS = rule(
    "endpoint.to-serverless",
    "guess",
    "ValidationException",
    "An endpoint with instances cannot become a serverless one",
    "that it cannot is documented with serverless endpoints; the words are not known",
)


@serves("CreateEndpoint")
def create_endpoint(ask: Ask) -> Json:
    request, account = ask.request, ask.account
    name = request["EndpointName"]
    if account.exists(ENDPOINT, name):
        raise refuse(EXISTS, arn=account.arn(ENDPOINT, name.lower()))
    config = find_config(ask, request["EndpointConfigName"])
    variants = rollouts.variants_of(config.body)
    check_quota(ask, {}, variants)
    made = account.make(ENDPOINT, name, request, ask.principal)
    rollouts.begin_create(account, made, config, variants, request.get("DeploymentConfig"))
    return {"EndpointArn": made.arn}


@serves("DescribeEndpoint")
def describe_endpoint(ask: Ask) -> Json:
    endpoint = find_endpoint(ask, ask.request["EndpointName"])
    return described(endpoint)


def described(endpoint: Resource) -> Json:
    """An endpoint as DescribeEndpoint tells it."""
    rollout = rollouts.of(endpoint)
    told: Json = {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointConfigName": rollout.config,
        "EndpointStatus": endpoint.status,
        "CreationTime": endpoint.made,
        "LastModifiedTime": endpoint.changed,
    }
    if endpoint.status not in ("Creating", "Failed"):
        told["ProductionVariants"] = [v.summary() for v in rollout.variants.values()]
    if endpoint.reason:
        told["FailureReason"] = endpoint.reason
    if rollout.deployment:
        told["LastDeploymentConfig"] = rollout.deployment
    if rollout.pending is not None:
        told["PendingDeploymentSummary"] = {
            "EndpointConfigName": rollout.pending.config,
            "ProductionVariants": [
                v.pending_summary(rollout.pending.status, rollout.pending.changed)
                for v in rollout.pending.variants.values()
            ],
            "StartTime": rollout.pending.since,
        }
    return told


@serves("UpdateEndpoint")
def update_endpoint(ask: Ask) -> Json:
    request = ask.request
    endpoint = find_endpoint(ask, request["EndpointName"])
    check_free(endpoint)
    rollout = rollouts.of(endpoint)
    find_config(ask, rollout.config)  # an endpoint whose configuration is gone is past help
    config = find_config(ask, request["EndpointConfigName"])
    wanted = rollouts.variants_of(config.body)
    _check_interlock(ask, endpoint, wanted)
    had = any(variant.serverless is None for variant in rollout.variants.values())
    if had and any(variant.serverless for variant in wanted.values()):
        raise refuse(TO_SERVERLESS)
    if request.get("RetainAllVariantProperties"):
        excluded = {
            one["VariantPropertyType"]
            for one in request.get("ExcludeRetainedVariantProperties", ())
        }
        rollouts.retain(rollout.variants, wanted, excluded)
    _check_deployment(request, rollout.variants, wanted)
    check_quota(ask, rollout.variants, wanted)
    deployment = request.get("DeploymentConfig")
    if deployment is None and request.get("RetainDeploymentConfig"):
        deployment = rollout.deployment
    rollouts.begin_update(ask.account, endpoint, config.name, wanted, deployment)
    return {"EndpointArn": endpoint.arn}


@serves("UpdateEndpointWeightsAndCapacities")
def update_weights(ask: Ask) -> Json:
    endpoint = find_endpoint(ask, ask.request["EndpointName"])
    check_free(endpoint)
    rollout = rollouts.of(endpoint)
    wanted = {name: variant.copy() for name, variant in rollout.variants.items()}
    for change in ask.request["DesiredWeightsAndCapacities"]:
        variant = wanted.get(change["VariantName"])
        if variant is None:
            raise refuse(VARIANT_ABSENT, variant=change["VariantName"], config=rollout.config)
        variant.desired = change.get("DesiredInstanceCount", variant.desired)
        variant.wanted_weight = change.get("DesiredWeight", variant.wanted_weight)
        if "ServerlessUpdateConfig" in change:
            variant.serverless = {**(variant.serverless or {}), **change["ServerlessUpdateConfig"]}
    check_quota(ask, rollout.variants, wanted)
    rollouts.begin_scaling(ask.account, endpoint, wanted)
    return {"EndpointArn": endpoint.arn}


@serves("DeleteEndpoint")
def delete_endpoint(ask: Ask) -> None:
    endpoint = find_endpoint(ask, ask.request["EndpointName"])
    check_free(endpoint, failed_too=False)
    for target in scalable_targets(ask, endpoint):
        for policy in ask.account.all("scaling-policy"):
            if policy.body["ResourceId"] == target.name:
                ask.account.drop(policy)
        ask.account.drop(target)
    rollouts.begin_delete(ask.account, endpoint)


@serves("ListEndpoints")
def list_endpoints(ask: Ask) -> Json:
    found = select(ask.account.all(ENDPOINT), ask.request)
    shown = [
        {
            "EndpointName": one.name,
            "EndpointArn": one.arn,
            "CreationTime": one.made,
            "LastModifiedTime": one.changed,
            "EndpointStatus": one.status,
        }
        for one in found
    ]
    items, more = page(ask.account, shown, ask.request)
    return {"Endpoints": items, **more}


def find_endpoint(ask: Ask, name: str) -> Resource:
    """An endpoint that is there, or the words for one that is not."""
    found = ask.account.get(ENDPOINT, name)
    if found is None:
        raise refuse(ABSENT, arn=ask.account.arn(ENDPOINT, name.lower()))
    return found


def check_free(endpoint: Resource, *, failed_too: bool = True) -> None:
    """Raises Refusal for an endpoint that AWS is busy with, or that can only be deleted."""
    if endpoint.status in BUSY:
        raise refuse(IS_BUSY, arn=endpoint.arn)
    if failed_too and endpoint.status == "Failed":
        raise refuse(FAILED_IS_FINAL, arn=endpoint.arn)


def scalable_targets(ask: Ask, endpoint: Resource) -> list[Resource]:
    """The registered variants of an endpoint."""
    prefix = f"endpoint/{endpoint.name}/variant/"
    return [one for one in ask.account.all(TARGET) if one.name.startswith(prefix)]


def check_quota(ask: Ask, held: dict[str, Variant], wanted: dict[str, Variant]) -> None:
    """Raises Refusal when more instances of a type are wanted than the account may have."""
    for type_, limit in ask.account.quota.items():
        delta = _count(wanted, type_) - _count(held, type_)
        used = sum(
            _count(rollouts.of(one).variants, type_)
            for one in ask.account.all(ENDPOINT)
            if one.status != "Failed"
        )
        if delta > 0 and used + delta > limit:
            raise refuse(QUOTA, type=type_, usage="endpoint", limit=limit, used=used, delta=delta)


def _count(variants: dict[str, Variant], type_: str) -> int:
    return sum(variant.desired for variant in variants.values() if variant.type == type_)


def _check_interlock(ask: Ask, endpoint: Resource, wanted: dict[str, Variant]) -> None:
    variants = rollouts.of(endpoint).variants
    for target in scalable_targets(ask, endpoint):
        name = target.name.rpartition("/")[2]
        now, then = variants.get(name), wanted.get(name)
        if now is not None and (then is None or then.type != now.type):
            raise refuse(INTERLOCK, variant=name)


def _check_deployment(request: Json, now: dict[str, Variant], then: dict[str, Variant]) -> None:
    deployment = request.get("DeploymentConfig")
    if deployment is None:
        return
    blue_green = deployment.get("BlueGreenUpdatePolicy", {})
    shifting = blue_green.get("TrafficRoutingConfiguration", {}).get("Type", "ALL_AT_ONCE")
    if shifting != "ALL_AT_ONCE" and now.keys() != then.keys():
        raise refuse(GUARDRAIL_NAMES)
    serverless = any(v.serverless for v in (*now.values(), *then.values()))
    count = sum(variant.desired for variant in then.values())
    check_deployment(deployment, count, variants=len(then), serverless=serverless)
