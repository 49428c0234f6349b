"""Application Auto Scaling, for the variants of endpoints."""

from __future__ import annotations

import hashlib
import re
import uuid

from rig.sagemaker import rollouts
from rig.sagemaker.account import Resource, checked_tags, page
from rig.sagemaker.endpoints import TARGET
from rig.sagemaker.operations import Ask, serves
from rig.sagemaker.refusals import not_modelled, refuse, rule
from rig.sagemaker.rollouts import ENDPOINT
from rig.sagemaker.shapes import Json, only_members, service_model

SERVICE = "application-autoscaling"
POLICY = "scaling-policy"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
RESOURCE_ID = re.compile(r"endpoint/([^/]+)/variant/([^/]+)")

NOT_IN_SERVICE = rule(
    "scaling.endpoint",
    "guess",
    "ValidationException",
    "The endpoint variant could not be found or is not InService: {id}",
)
CAPACITY = rule(
    "scaling.capacity",
    "guess",
    "ValidationException",
    "Maximum capacity cannot be less than minimum capacity",
    "documented as a constraint; the words are not known",
)
CAPACITY_NEEDED = rule(
    "scaling.capacity-needed",
    "guess",
    "ValidationException",
    "MinCapacity and MaxCapacity are required to register a new scalable target",
    "documented as a constraint; the words are not known",
)
TAGS_ONCE = rule(
    "scaling.tags",
    "guess",
    "ValidationException",
    "Tags cannot be given for a scalable target that is registered already",
    "terraform-aws-modules/terraform-aws-rds-aurora#420; the words are not known",
)
NO_TARGET = rule(
    "scaling.absent",
    "doc",
    "ObjectNotFoundException",
    "No scalable target registered for service namespace: sagemaker, resource ID: {id}, "
    "scalable dimension: {dimension}",
)
NO_POLICY = rule(
    "scaling.policy-absent",
    "doc",
    "ObjectNotFoundException",
    "No scaling policy found for service namespace: sagemaker, resource ID: {id}, "
    "scalable dimension: {dimension}: (Policy name: {policy})",
)
NO_ARN = rule(
    "scaling.tags-absent", "doc", "ResourceNotFoundException", "The resource {arn} does not exist"
)


@serves("RegisterScalableTarget", SERVICE)
def register(ask: Ask) -> Json:
    request, account = _of_sagemaker(ask.request), ask.account
    id_: str = request["ResourceId"]
    held = account.get(TARGET, id_)
    given = {key: value for key, value in request.items() if key != "Tags"}
    body = {**(held.body if held else {}), **given}
    if "MinCapacity" not in body or "MaxCapacity" not in body:
        raise refuse(CAPACITY_NEEDED)
    if body["MinCapacity"] > body["MaxCapacity"]:
        raise refuse(CAPACITY)
    if held is not None:
        if request.get("Tags"):
            raise refuse(TAGS_ONCE)
        held.body = body
        return {"ScalableTargetARN": held.arn}
    _check_variant(ask, id_)
    made = account.make(TARGET, id_, body, ask.principal, service=SERVICE)
    made.tags = checked_tags({}, _as_list(request.get("Tags")))
    short = hashlib.md5(id_.encode(), usedforsecurity=False).hexdigest()
    made.arn = account.arn("scalable-target", short, SERVICE)
    return {"ScalableTargetARN": made.arn}


def _check_variant(ask: Ask, id_: str) -> None:
    parts = RESOURCE_ID.fullmatch(id_)
    endpoint = ask.account.get(ENDPOINT, parts[1]) if parts else None
    if (
        parts is None
        or endpoint is None
        or endpoint.status != "InService"
        or parts[2] not in rollouts.of(endpoint).variants
    ):
        raise refuse(NOT_IN_SERVICE, id=id_)


@serves("DescribeScalableTargets", SERVICE)
def describe_targets(ask: Ask) -> Json:
    request = _of_sagemaker(ask.request)
    wanted = request.get("ResourceIds")
    shape = service_model(SERVICE).shape_for("ScalableTarget")
    role = (
        f"arn:aws:iam::{ask.account.number}:role/aws-service-role/"
        "sagemaker.application-autoscaling.amazonaws.com/"
        "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
    )
    found = [
        only_members(
            shape,
            {
                "RoleARN": role,
                "SuspendedState": _SUSPENDED,
                **one.body,
                "CreationTime": one.made,
                "ScalableTargetARN": one.arn,
            },
        )
        for one in ask.account.all(TARGET)
        if wanted is None or one.name in wanted
    ]
    items, more = page(ask.account, found, request, default=50, most=50)
    return {"ScalableTargets": items, **more}


_SUSPENDED = {
    "DynamicScalingInSuspended": False,
    "DynamicScalingOutSuspended": False,
    "ScheduledScalingSuspended": False,
}


@serves("DeregisterScalableTarget", SERVICE)
def deregister(ask: Ask) -> Json:
    request = _of_sagemaker(ask.request)
    target = _target(ask, request["ResourceId"])
    for policy in _policies(ask, target.name):
        ask.account.drop(policy)
    ask.account.drop(target)
    return {}


@serves("PutScalingPolicy", SERVICE)
def put_policy(ask: Ask) -> Json:
    request, account = _of_sagemaker(ask.request), ask.account
    id_ = request["ResourceId"]
    _target(ask, id_)
    place = f"{id_}/{request['PolicyName']}"
    held = account.get(POLICY, place)
    if held is None:
        held = account.make(POLICY, place, request, ask.principal, service="autoscaling")
        short = uuid.UUID(int=account.random.getrandbits(128))
        held.arn = (
            f"arn:aws:autoscaling:{account.region}:{account.number}:scalingPolicy:{short}:"
            f"resource/sagemaker/{id_}:policyName/{request['PolicyName']}"
        )
        held.state["alarms"] = [_alarm(ask, id_, side) for side in ("High", "Low")]
    held.body = {**request}
    held.changed = account.now
    return {"PolicyARN": held.arn, "Alarms": held.state["alarms"]}


def _alarm(ask: Ask, id_: str, side: str) -> Json:
    name = f"TargetTracking-{id_}-Alarm{side}-{uuid.UUID(int=ask.account.random.getrandbits(128))}"
    arn = f"arn:aws:cloudwatch:{ask.account.region}:{ask.account.number}:alarm:{name}"
    return {"AlarmName": name, "AlarmARN": arn}


@serves("DescribeScalingPolicies", SERVICE)
def describe_policies(ask: Ask) -> Json:
    request = _of_sagemaker(ask.request)
    id_, names = request.get("ResourceId"), request.get("PolicyNames")
    shape = service_model(SERVICE).shape_for("ScalingPolicy")
    found = [
        only_members(
            shape,
            {
                "PolicyType": "StepScaling",
                **one.body,
                "PolicyARN": one.arn,
                "Alarms": one.state["alarms"],
                "CreationTime": one.made,
            },
        )
        for one in ask.account.all(POLICY)
        if (id_ is None or one.body["ResourceId"] == id_)
        and (names is None or one.body["PolicyName"] in names)
    ]
    items, more = page(ask.account, found, request, default=10, most=10)
    return {"ScalingPolicies": items, **more}


@serves("DeleteScalingPolicy", SERVICE)
def delete_policy(ask: Ask) -> Json:
    request = _of_sagemaker(ask.request)
    id_, name = request["ResourceId"], request["PolicyName"]
    held = ask.account.get(POLICY, f"{id_}/{name}")
    if held is None:
        raise refuse(NO_POLICY, id=id_, dimension=DIMENSION, policy=name)
    ask.account.drop(held)
    return {}


@serves("TagResource", SERVICE)
def tag(ask: Ask) -> Json:
    target = _by_arn(ask)
    target.tags = checked_tags(target.tags, _as_list(ask.request["Tags"]))
    return {}


@serves("UntagResource", SERVICE)
def untag(ask: Ask) -> Json:
    target = _by_arn(ask)
    for key in ask.request["TagKeys"]:
        target.tags.pop(key, None)
    return {}


@serves("ListTagsForResource", SERVICE)
def tags_of(ask: Ask) -> Json:
    return {"Tags": dict(_by_arn(ask).tags)}


def _by_arn(ask: Ask) -> Resource:
    arn = ask.request["ResourceARN"]
    found = next((one for one in ask.account.all(TARGET) if one.arn == arn), None)
    if found is None:
        raise refuse(NO_ARN, arn=arn)
    return found


def _of_sagemaker(request: Json) -> Json:
    namespace = request["ServiceNamespace"]
    dimension = request.get("ScalableDimension", DIMENSION)
    if (namespace, dimension) != ("sagemaker", DIMENSION):
        raise not_modelled(f"scaling of {namespace} {dimension}")
    return request


def _target(ask: Ask, id_: str) -> Resource:
    found = ask.account.get(TARGET, id_)
    if found is None:
        raise refuse(NO_TARGET, id=id_, dimension=DIMENSION)
    return found


def _policies(ask: Ask, id_: str) -> list[Resource]:
    return [one for one in ask.account.all(POLICY) if one.body["ResourceId"] == id_]


def _as_list(tags: dict[str, str] | None) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
