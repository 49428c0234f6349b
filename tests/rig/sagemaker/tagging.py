"""Tags, and looking for what carries them: ListTags, AddTags, DeleteTags, Search, GetResources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rig.sagemaker.account import Resource, checked_tags, listed_tags, page
from rig.sagemaker.endpoints import described
from rig.sagemaker.operations import OPERATIONS, Ask, serves
from rig.sagemaker.refusals import not_modelled, refuse, rule
from rig.sagemaker.shapes import Json, only_members, service_model

UNKNOWN_ARN = rule("tags.absent", "guess", "ValidationException", "Could not find resource {arn}")
VERSION_TAGS = rule(
    "tags.package-version",
    "guess",
    "ValidationException",
    "Versioned model packages cannot be tagged: {arn}",
    "that they cannot is documented; the words are not known",
)

SEARCHED = {
    "Endpoint": "endpoint",
    "Model": "model",
    "TrainingJob": "training-job",
    "HyperParameterTuningJob": "hyper-parameter-tuning-job",
    "ModelPackage": "model-package",
    "ModelPackageGroup": "model-package-group",
}
RECORDS = {"HyperParameterTuningJob": "HyperParameterTuningJobSearchEntity"}
"""The shapes of what Search answers, where they are not named as the resource."""


@serves("ListTags")
def list_tags(ask: Ask) -> Json:
    items, more = page(ask.account, listed_tags(_tagged(ask)), ask.request, default=50)
    return {"Tags": items, **more}


@serves("AddTags")
def add_tags(ask: Ask) -> Json:
    resource = _tagged(ask)
    if resource.kind == "model-package" and "ModelPackageGroupName" in resource.body:
        raise refuse(VERSION_TAGS, arn=resource.arn)
    resource.tags = checked_tags(resource.tags, ask.request["Tags"])
    return {"Tags": listed_tags(resource)}


@serves("DeleteTags")
def delete_tags(ask: Ask) -> Json:
    resource = _tagged(ask)
    for key in ask.request["TagKeys"]:
        resource.tags.pop(key, None)
    return {}


def _tagged(ask: Ask) -> Resource:
    arn = ask.request["ResourceArn"]
    found = ask.account.by_arn(arn)
    if found is None:
        raise refuse(UNKNOWN_ARN, arn=arn)
    return found


@serves("Search")
def search(ask: Ask) -> Json:
    request = ask.request
    unknown = request.keys() - {"Resource", "SearchExpression", "MaxResults", "NextToken"}
    kind = SEARCHED.get(request["Resource"])
    if unknown or kind is None:
        raise not_modelled(f"Search of {request['Resource']} by {sorted(unknown)}")
    records = [(one, _record(ask, request["Resource"], one)) for one in _known(ask, kind)]
    found = [
        _entry(request["Resource"], {**record, "Tags": listed_tags(one)})
        for one, record in records
        if _matches(request.get("SearchExpression", {}), record, one)
    ]
    items, more = page(ask.account, found, request)
    return {"Results": items, **more}


def _entry(resource: str, record: Json) -> Json:
    return {resource: {"Model": record} if resource == "Model" else record}


def _known(ask: Ask, kind: str) -> list[Resource]:
    return sorted(ask.account.searchable(kind), key=lambda one: (-one.made, one.name))


def _record(ask: Ask, resource: str, one: Resource) -> Json:
    """What a Describe would tell, as far as a search record holds it."""
    shape = service_model("sagemaker").shape_for(RECORDS.get(resource, resource))
    if resource == "Endpoint":
        return only_members(shape, described(one))
    if resource == "ModelPackage":
        names: Json = {"ModelPackageName": one.arn}
    else:
        names = {f"{resource}Name": one.name}
    told = OPERATIONS["sagemaker", f"Describe{resource}"](
        Ask(ask.account.as_of(one), names, ask.principal)
    )
    assert told is not None
    return only_members(shape, told)


def _matches(expression: Json, record: Json, one: Resource) -> bool:
    if expression.keys() - {"Filters", "Operator", "SubExpressions"}:
        raise not_modelled(f"Search with {sorted(expression)}")
    results = [_passes(each, record, one) for each in expression.get("Filters", ())]
    results += [_matches(each, record, one) for each in expression.get("SubExpressions", ())]
    return (any if expression.get("Operator") == "Or" else all)(results)


def _passes(test: Json, record: Json, one: Resource) -> bool:
    name: str = test["Name"]
    held = one.tags.get(name[5:]) if name.startswith("Tags.") else record.get(name)
    operator = test.get("Operator", "Equals")
    compare = _OPERATORS.get(operator)
    if compare is None:
        raise not_modelled(f"Search with the operator {operator}")
    return compare(held, test.get("Value"))


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": lambda held, value: held == value,
    "NotEquals": lambda held, value: held != value,
    "Exists": lambda held, _: held is not None,
    "NotExists": lambda held, _: held is None,
    "Contains": lambda held, value: held is not None and value in held,
    "In": lambda held, value: held in value.split(","),
}


@serves("GetResources", "resourcegroupstaggingapi")
def get_resources(ask: Ask) -> Json:
    request = ask.request
    unknown = request.keys() - {"TagFilters", "ResourceTypeFilters", "ResourcesPerPage"}
    if unknown - {"PaginationToken"}:
        raise not_modelled(f"GetResources by {sorted(unknown)}")
    wanted = request.get("ResourceTypeFilters") or ["sagemaker"]
    filters = request.get("TagFilters", ())
    found = [
        {"ResourceARN": one.arn, "Tags": listed_tags(one)}
        for one in ask.account.searchable_all()
        if one.tags
        and any(w in ("sagemaker", f"sagemaker:{one.kind}") for w in wanted)
        and all(_holds(one.tags, each) for each in filters)
    ]
    if "lambda:function" in wanted:
        for arn, tags in ask.account.functions().items():
            if all(_holds(tags, each) for each in filters):
                listed = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
                found.append({"ResourceARN": arn, "Tags": listed})
    found.sort(key=lambda one: str(one["ResourceARN"]))
    asked = {"MaxResults": request.get("ResourcesPerPage", 50)}
    token = request.get("PaginationToken")
    items, more = page(ask.account, found, {**asked, **({"NextToken": token} if token else {})})
    return {"ResourceTagMappingList": items, "PaginationToken": more.get("NextToken", "")}


def _holds(tags: Mapping[str, str], wanted: Json) -> bool:
    if wanted["Key"] not in tags:
        return False
    return not wanted.get("Values") or tags[wanted["Key"]] in wanted["Values"]
