"""Models and endpoint configurations: both immutable, both only a name away from being orphans."""

from __future__ import annotations

from rig.sagemaker.account import Resource, page, select
from rig.sagemaker.operations import Ask, serves
from rig.sagemaker.refusals import refuse, rule
from rig.sagemaker.shapes import Json, only_members, operation_model

MODEL, CONFIG = "model", "endpoint-config"

MODEL_EXISTS = rule(
    "model.exists",
    "issue",
    "ValidationException",
    'Cannot create already existing model "{arn}".',
    "aws/sagemaker-python-sdk#101",
)
MODEL_ABSENT = rule(
    "model.absent",
    "issue",
    "ValidationException",
    'Could not find model "{arn}".',
    "aws/amazon-sagemaker-operator-for-k8s, constants",
)
MODEL_EMPTY = rule(
    "model.empty",
    "doc",
    "ValidationException",
    "One of PrimaryContainer, Containers or InferenceExecutionConfig is required",
)
CONFIG_EXISTS = rule(
    "config.exists",
    "issue",
    "ValidationException",
    'Cannot create already existing endpoint configuration "{arn}".',
    "apache/airflow#7598",
)
SERVERLESS = rule(
    "config.serverless",
    "guess",
    "ValidationException",
    "Serverless endpoints take one variant, no VPC and no network isolation",
    "documented as exclusions of serverless inference; the words are not known",
)
CONFIG_ABSENT = rule(
    "config.absent",
    "issue",
    "ValidationException",
    'Could not find endpoint configuration "{arn}".',
    "hashicorp/terraform-provider-aws#40048",
)


def output(operation: str, body: Json) -> Json:
    """The members of a body that an operation's answer repeats."""
    model = operation_model("sagemaker", operation)
    assert model is not None
    assert model.output_shape is not None
    return only_members(model.output_shape, body)


@serves("CreateModel")
def create_model(ask: Ask) -> Json:
    request, account = ask.request, ask.account
    name = request["ModelName"]
    if account.exists(MODEL, name):
        raise refuse(MODEL_EXISTS, arn=account.arn(MODEL, name))
    if not (request.get("PrimaryContainer") or request.get("Containers")):
        raise refuse(MODEL_EMPTY)
    return {"ModelArn": account.make(MODEL, name, request, ask.principal).arn}


@serves("DescribeModel")
def describe_model(ask: Ask) -> Json:
    model = find_model(ask, ask.request["ModelName"])
    # The service answers members that were not asked for: no drift.
    defaults = {"EnableNetworkIsolation": False}
    made = {"ModelArn": model.arn, "CreationTime": model.made}
    return {**defaults, **output("DescribeModel", model.body), **made}


@serves("DeleteModel")
def delete_model(ask: Ask) -> None:
    ask.account.drop(find_model(ask, ask.request["ModelName"]))


@serves("ListModels")
def list_models(ask: Ask) -> Json:
    found = select(ask.account.all(MODEL), ask.request)
    shown = [{"ModelName": m.name, "ModelArn": m.arn, "CreationTime": m.made} for m in found]
    items, more = page(ask.account, shown, ask.request)
    return {"Models": items, **more}


@serves("CreateEndpointConfig")
def create_config(ask: Ask) -> Json:
    request, account = ask.request, ask.account
    name = request["EndpointConfigName"]
    if account.exists(CONFIG, name):
        raise refuse(CONFIG_EXISTS, arn=account.arn(CONFIG, name))
    for variant in (*request["ProductionVariants"], *request.get("ShadowProductionVariants", ())):
        if variant.get("ModelName"):
            _check_serverless(request, variant, find_model(ask, variant["ModelName"]).body)
    return {"EndpointConfigArn": account.make(CONFIG, name, request, ask.principal).arn}


def _check_serverless(request: Json, variant: Json, model: Json) -> None:
    networked = model.get("VpcConfig") or model.get("EnableNetworkIsolation")
    if variant.get("ServerlessConfig") and (networked or len(request["ProductionVariants"]) > 1):
        raise refuse(SERVERLESS)


@serves("DescribeEndpointConfig")
def describe_config(ask: Ask) -> Json:
    config = find_config(ask, ask.request["EndpointConfigName"])
    body = output("DescribeEndpointConfig", config.body)
    body["ProductionVariants"] = [_with_defaults(v) for v in body["ProductionVariants"]]
    return {**body, "EndpointConfigArn": config.arn, "CreationTime": config.made}


def _with_defaults(variant: Json) -> Json:
    return {"InitialVariantWeight": 1.0, **variant}


@serves("DeleteEndpointConfig")
def delete_config(ask: Ask) -> None:
    # In use or not: the service lets it happen, and the endpoint can be changed no more.
    ask.account.drop(find_config(ask, ask.request["EndpointConfigName"]))


@serves("ListEndpointConfigs")
def list_configs(ask: Ask) -> Json:
    found = select(ask.account.all(CONFIG), ask.request)
    shown = [
        {"EndpointConfigName": c.name, "EndpointConfigArn": c.arn, "CreationTime": c.made}
        for c in found
    ]
    items, more = page(ask.account, shown, ask.request)
    return {"EndpointConfigs": items, **more}


def find_model(ask: Ask, name: str) -> Resource:
    """A model that is there, or the words for one that is not."""
    found = ask.account.get(MODEL, name)
    if found is None:
        raise refuse(MODEL_ABSENT, arn=ask.account.arn(MODEL, name))
    return found


def find_config(ask: Ask, name: str) -> Resource:
    """A configuration that is there, or the words for one that is not."""
    found = ask.account.get(CONFIG, name)
    if found is None:
        raise refuse(CONFIG_ABSENT, arn=ask.account.arn(CONFIG, name))
    return found
