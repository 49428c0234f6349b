"""Provisioned concurrency of Lambda functions: what moto does not know."""

from __future__ import annotations

from rig.sagemaker.account import Account, Resource
from rig.sagemaker.operations import Ask, serves
from rig.sagemaker.refusals import refuse, rule
from rig.sagemaker.shapes import Json

PROVISIONED = "provisioned-concurrency"
READY_AFTER = 60.0
ABSENT = rule(
    "lambda.provisioned-absent",
    "doc",
    "ProvisionedConcurrencyConfigNotFoundException",
    "No Provisioned Concurrency Config found for this function",
    status=404,
)


@serves("PutProvisionedConcurrencyConfig", "lambda")
def put(ask: Ask) -> Json:
    name = ask.request["FunctionName"]
    found = ask.account.get(PROVISIONED, name)
    if found is not None:
        ask.account.drop(found)
    made = ask.account.make(PROVISIONED, name, ask.request, ask.principal, service="lambda")
    return _shown(ask.account, made)


@serves("GetProvisionedConcurrencyConfig", "lambda")
def get(ask: Ask) -> Json:
    return _shown(ask.account, _held(ask))


@serves("DeleteProvisionedConcurrencyConfig", "lambda")
def delete(ask: Ask) -> None:
    ask.account.drop(_held(ask))


def _held(ask: Ask) -> Resource:
    found = ask.account.get(PROVISIONED, ask.request["FunctionName"])
    if found is None:
        raise refuse(ABSENT)
    return found


def _shown(account: Account, held: Resource) -> Json:
    wished = held.body["ProvisionedConcurrentExecutions"]
    ready = account.now >= held.made + READY_AFTER
    return {
        "RequestedProvisionedConcurrentExecutions": wished,
        "AllocatedProvisionedConcurrentExecutions": wished if ready else 0,
        "Status": "READY" if ready else "IN_PROGRESS",
    }
