"""Model package groups and their versions."""

from __future__ import annotations

from rig.sagemaker.account import Account, Resource, page, select
from rig.sagemaker.operations import Ask, serves
from rig.sagemaker.refusals import not_modelled, refuse, rule
from rig.sagemaker.shapes import Json, only_members, operation_model

GROUP, PACKAGE = "model-package-group", "model-package"

GROUP_EXISTS = rule(
    "group.exists",
    "guess",
    "ValidationException",
    "Model Package Group already exists: {arn}",
)
GROUP_ABSENT = rule(
    "group.absent",
    "issue",
    "ValidationException",
    "ModelPackageGroup {arn} does not exist.",
    "aws-controllers-k8s/sagemaker-controller, generator.yaml",
)
GROUP_FULL = rule(
    "group.full",
    "doc",
    "ConflictException",
    "Model Package Group cannot be deleted as it still contains model packages: {arn}",
)
ABSENT = rule(
    "package.absent",
    "issue",
    "ValidationException",
    "ModelPackage {arn} does not exist.",
    "aws-controllers-k8s/sagemaker-controller, generator.yaml",
)
VERSION_TAGS = rule(
    "package.version-tags",
    "guess",
    "ValidationException",
    "Tags cannot be given to a model package in a group",
    "that versions have no tags of their own is documented; the words are not known",
)


@serves("CreateModelPackageGroup")
def create_group(ask: Ask) -> Json:
    name, account = ask.request["ModelPackageGroupName"], ask.account
    if account.exists(GROUP, name):
        raise refuse(GROUP_EXISTS, arn=account.arn(GROUP, name))
    group = account.make(GROUP, name, ask.request, ask.principal)
    group.status, group.state["versions"] = "Completed", 0
    return {"ModelPackageGroupArn": group.arn}


@serves("DescribeModelPackageGroup")
def describe_group(ask: Ask) -> Json:
    group = _group(ask, ask.request["ModelPackageGroupName"])
    return {**_group_summary(group), "CreatedBy": {}}


def _group_summary(group: Resource) -> Json:
    description = group.body.get("ModelPackageGroupDescription")
    return {
        "ModelPackageGroupName": group.name,
        "ModelPackageGroupArn": group.arn,
        "CreationTime": group.made,
        "ModelPackageGroupStatus": group.status,
        **({} if description is None else {"ModelPackageGroupDescription": description}),
    }


@serves("ListModelPackageGroups")
def list_groups(ask: Ask) -> Json:
    found = select(ask.account.all(GROUP), ask.request)
    items, more = page(ask.account, [_group_summary(one) for one in found], ask.request)
    return {"ModelPackageGroupSummaryList": items, **more}


@serves("DeleteModelPackageGroup")
def delete_group(ask: Ask) -> None:
    group = _group(ask, ask.request["ModelPackageGroupName"])
    if _versions(ask.account, group.name):
        raise refuse(GROUP_FULL, arn=group.arn)
    ask.account.drop(group)


@serves("CreateModelPackage")
def create_package(ask: Ask) -> Json:
    request, account = ask.request, ask.account
    if "ModelPackageGroupName" not in request:
        raise not_modelled("model packages without a group")
    if request.get("Tags"):
        raise refuse(VERSION_TAGS)
    group = _group(ask, request["ModelPackageGroupName"])
    token = request.get("ClientToken")
    for held in _versions(account, group.name):
        if token is not None and held.body.get("ClientToken") == token:
            return {"ModelPackageArn": held.arn}  # idempotent by its token
    group.state["versions"] += 1
    number = group.state["versions"]
    package = account.make(PACKAGE, f"{group.name}/{number}", request, ask.principal)
    package.state["version"] = number
    package.status = "Pending"
    plan = account.plan("package", group.name)

    def end() -> None:
        package.status = "Failed" if plan.fail else "Completed"
        package.reason, package.changed = plan.fail, account.now

    account.timeline.at(account.durations["package"], end)
    return {"ModelPackageArn": package.arn}


@serves("DescribeModelPackage")
def describe_package(ask: Ask) -> Json:
    package = _package(ask, ask.request["ModelPackageName"])
    model = operation_model("sagemaker", "DescribeModelPackage")
    assert model is not None
    assert model.output_shape is not None
    held = only_members(model.output_shape, package.body)
    reason = {"FailureReason": package.reason} if package.reason else {}
    validation = {"Name": package.arn, "Status": package.status, **reason}
    return {
        **held,
        **_summary(package),
        "ModelPackageName": package.arn,
        "ModelPackageStatusDetails": {"ValidationStatuses": [validation]},
        "LastModifiedTime": package.changed,
    }


def _summary(package: Resource) -> Json:
    description = package.body.get("ModelPackageDescription")
    return {
        "ModelPackageGroupName": package.body["ModelPackageGroupName"],
        "ModelPackageVersion": package.state["version"],
        "ModelPackageArn": package.arn,
        "CreationTime": package.made,
        "ModelPackageStatus": package.status,
        "ModelApprovalStatus": package.body.get("ModelApprovalStatus", "PendingManualApproval"),
        **({} if description is None else {"ModelPackageDescription": description}),
    }


@serves("UpdateModelPackage")
def update_package(ask: Ask) -> Json:
    package = _package(ask, ask.request["ModelPackageArn"])
    unknown = ask.request.keys() - {
        "ModelPackageArn",
        "ModelApprovalStatus",
        "ApprovalDescription",
        "CustomerMetadataProperties",
    }
    if unknown:
        raise not_modelled(f"UpdateModelPackage of {sorted(unknown)}")
    for name in ("ModelApprovalStatus", "ApprovalDescription"):
        if name in ask.request:
            package.body[name] = ask.request[name]
    if "CustomerMetadataProperties" in ask.request:
        held = package.body.get("CustomerMetadataProperties", {})
        given = ask.request["CustomerMetadataProperties"]
        package.body["CustomerMetadataProperties"] = {**held, **given}
    package.changed = ask.account.now
    return {"ModelPackageArn": package.arn}


@serves("DeleteModelPackage")
def delete_package(ask: Ask) -> None:
    ask.account.drop(_package(ask, ask.request["ModelPackageName"]))


@serves("ListModelPackages")
def list_packages(ask: Ask) -> Json:
    request = dict(ask.request)
    group, approval = (
        request.pop("ModelPackageGroupName", None),
        request.pop("ModelApprovalStatus", None),
    )
    found = [
        one
        for one in ask.account.all(PACKAGE)
        if (group is None or one.body["ModelPackageGroupName"] == group)
        and (approval is None or _summary(one)["ModelApprovalStatus"] == approval)
    ]
    shown = [_summary(one) for one in select(found, request)]
    items, more = page(ask.account, shown, request)
    return {"ModelPackageSummaryList": items, **more}


def _versions(account: Account, group: str) -> list[Resource]:
    return [one for one in account.all(PACKAGE) if one.body["ModelPackageGroupName"] == group]


def _group(ask: Ask, name: str) -> Resource:
    found = ask.account.get(GROUP, name.rpartition("/")[2])
    if found is None:
        raise refuse(GROUP_ABSENT, arn=ask.account.arn(GROUP, name))
    return found


def _package(ask: Ask, name: str) -> Resource:
    found = ask.account.by_arn(name) if name.startswith("arn:") else None
    if found is None or found.kind != PACKAGE:
        raise refuse(ABSENT, arn=name)
    return found
