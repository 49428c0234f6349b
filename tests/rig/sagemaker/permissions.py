"""What a call needs of IAM: actions, the ARNs they are needed on, and what conditions may look at.

By AWS's service authorization reference, as far as the operations here go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rig.sagemaker.account import Account
from rig.sagemaker.endpoints import TARGET
from rig.sagemaker.rollouts import ENDPOINT
from rig.sagemaker.shapes import Json
from rig.sagemaker.wire import Asked


@dataclass(frozen=True)
class Need:
    """One action that must be allowed on one ARN."""

    action: str
    arn: str
    context: dict[str, str] = field(default_factory=dict)
    """Condition keys in lower case."""


_NAMES = {
    "EndpointName": "endpoint",
    "EndpointConfigName": "endpoint-config",
    "ModelName": "model",
    "TrainingJobName": "training-job",
    "ProcessingJobName": "processing-job",
    "TransformJobName": "transform-job",
    "HyperParameterTuningJobName": "hyper-parameter-tuning-job",
    "ModelPackageGroupName": "model-package-group",
    "ModelPackageName": "model-package",
}
_S3 = {
    "HeadObject": ("s3:GetObject",),
    "GetObjectAttributes": ("s3:GetObject", "s3:GetObjectAttributes"),
    "CreateMultipartUpload": ("s3:PutObject",),
    "UploadPart": ("s3:PutObject",),
    "CompleteMultipartUpload": ("s3:PutObject",),
    "ListParts": ("s3:ListMultipartUploadParts",),
    "ListObjectsV2": ("s3:ListBucket",),
    "ListObjects": ("s3:ListBucket",),
    "HeadBucket": ("s3:ListBucket",),
    "ListMultipartUploads": ("s3:ListBucketMultipartUploads",),
}
_FREE = frozenset({"sts:GetCallerIdentity"})
"""What everybody may do."""


def needs(account: Account, asked: Asked, request: Json) -> list[Need]:
    """Everything that must be allowed for a call."""
    if f"{asked.service}:{asked.operation}" in _FREE:
        return []
    match asked.service:
        case "sagemaker":
            return list(_of_sagemaker(account, asked.operation, request))
        case "application-autoscaling":
            return list(_of_scaling(account, asked.operation, request))
        case "resourcegroupstaggingapi":
            return [Need(f"tag:{asked.operation}", "*")]
        case "sagemaker-runtime":
            arn = account.arn("endpoint", request["EndpointName"].lower())
            return [Need(f"sagemaker:{asked.operation}", arn, _tags(account, arn))]
        case "s3":
            return list(_of_s3(asked.operation, request))
        case service:
            return list(_of_other(account, service, asked.operation, request))


def _of_sagemaker(account: Account, operation: str, request: Json) -> Iterator[Need]:
    action = f"sagemaker:{operation}"
    given = {f"aws:requesttag/{t['Key'].lower()}": t["Value"] for t in request.get("Tags", ())}
    arns = list(_named(account, operation, request)) or ["*"]
    for arn in arns:
        yield Need(action, arn, {**given, **_tags(account, arn)})
    if operation.startswith("Create"):
        if given:
            yield Need("sagemaker:AddTags", arns[0], {**given, **_tags(account, arns[0])})
        for role in _roles(request):
            yield Need("iam:PassRole", role, {"iam:passedtoservice": "sagemaker.amazonaws.com"})
    if operation == "DeleteEndpoint" and account.exists(ENDPOINT, request["EndpointName"]):
        prefix = f"endpoint/{request['EndpointName']}/"
        for target in account.all(TARGET):
            if target.name.startswith(prefix):
                yield Need("application-autoscaling:DeregisterScalableTarget", target.arn)


def _named(account: Account, operation: str, request: Json) -> Iterator[str]:
    """ARNs that an operation is about; the first is what it makes or changes."""
    if operation in ("ListTags", "AddTags", "DeleteTags"):
        yield request["ResourceArn"]
        return
    if operation == "UpdateModelPackage":
        yield request["ModelPackageArn"]
        return
    if operation.startswith("List") or operation == "Search":
        return
    if operation == "CreateModelPackage":
        group = request.get("ModelPackageGroupName", "")
        yield account.arn("model-package", f"{group}/*")
        yield account.arn("model-package-group", group)
        return
    subject = operation.removeprefix("UpdateEndpointWeightsAndCapacities") or "UpdateEndpoint"
    own = next((n for n in _NAMES if n.removesuffix("Name") in subject[6:] and n in request), None)
    names = [own] if own else []
    if operation in ("CreateEndpoint", "UpdateEndpoint"):
        names = ["EndpointName", "EndpointConfigName"]
    else:
        exact = [n for n in _NAMES if subject.endswith(n.removesuffix("Name")) and n in request]
        names = exact[-1:] if exact else names
    for name in names:
        value = request[name]
        folded = value.lower() if name == "EndpointName" else value
        yield value if value.startswith("arn:") else account.arn(_NAMES[name], folded)


def _of_scaling(account: Account, operation: str, request: Json) -> Iterator[Need]:
    action = f"application-autoscaling:{operation}"
    if operation.startswith("Describe"):
        yield Need(action, "*")
        return
    held = account.get(TARGET, request.get("ResourceId", ""))
    anywhere = account.arn("scalable-target", "*", "application-autoscaling")
    arn = request.get("ResourceARN") or (held.arn if held else anywhere)
    given = {f"aws:requesttag/{k.lower()}": v for k, v in (request.get("Tags") or {}).items()}
    tags = {f"aws:resourcetag/{k.lower()}": v for k, v in (held.tags if held else {}).items()}
    yield Need(action, arn, {**given, **tags})
    if operation == "RegisterScalableTarget":
        if given and held is None:
            yield Need("application-autoscaling:TagResource", arn, given)
        if not account.all(TARGET):
            name = "sagemaker.application-autoscaling.amazonaws.com"
            role = f"arn:aws:iam::{account.number}:role/aws-service-role/{name}/*"
            yield Need("iam:CreateServiceLinkedRole", role, {"iam:awsservicename": name})


def _of_s3(operation: str, request: Json) -> Iterator[Need]:
    arn = f"arn:aws:s3:::{request.get('Bucket', '*')}"
    if "Key" in request:
        arn += f"/{request['Key']}"
    for action in _S3.get(operation, (f"s3:{operation}",)):
        yield Need(action, arn)
    if "Tagging" in request:
        yield Need("s3:PutObjectTagging", arn)


def _of_other(account: Account, service: str, operation: str, request: Json) -> Iterator[Need]:
    where = f"arn:aws:{service}:{account.region}:{account.number}"
    arn = "*"
    if service == "lambda" and "FunctionName" in request:
        name = request["FunctionName"].rpartition(":function:")[2].partition(":")[0]
        arn = f"{where}:function:{name}"
        if operation == "CreateFunction":
            context = {"iam:passedtoservice": "lambda.amazonaws.com"}
            yield Need("iam:PassRole", request["Role"], context)
            if request.get("Tags"):
                yield Need("lambda:TagResource", arn)
    elif service == "iam" and "RoleName" in request:
        arn = f"arn:aws:iam::{account.number}:role/{request['RoleName']}"
        if operation == "CreateRole" and any(name.startswith("Tags") for name in request):
            yield Need("iam:TagRole", arn)
    elif service == "sts" and "RoleArn" in request:
        arn = request["RoleArn"]
    elif service == "logs" and "logGroupName" in request:
        arn = f"{where}:log-group:{request['logGroupName']}"
        stream = request.get("logStreamName")
        arn += f":log-stream:{stream}" if stream else ":*"
    yield Need(f"{service}:{operation}", arn)


def _tags(account: Account, arn: str) -> dict[str, str]:
    held = account.by_arn(arn)
    tags = held.tags if held else {}
    if held is not None and held.kind == "model-package":  # versions take the tags of their group
        group = account.get("model-package-group", held.body["ModelPackageGroupName"])
        tags = group.tags if group else {}
    return {f"aws:resourcetag/{key.lower()}": value for key, value in tags.items()}


def _roles(request: Json) -> list[str]:
    inside = request.get("TrainingJobDefinition", {})
    found = (request.get("ExecutionRoleArn"), request.get("RoleArn"), inside.get("RoleArn"))
    return [role for role in found if role]
