"""How an update moves from one fleet to another, step by step: from AWS's documentation.

Blue/green brings a whole second fleet up, then moves the traffic to it: all at once, a canary
first, or in equal steps. Rolling exchanges the fleet batch by batch, and never has more than one
batch too many. After each step the alarms are watched for the baking time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rig.sagemaker.account import Account
from rig.sagemaker.refusals import refuse, rule
from rig.sagemaker.shapes import Json

WATCHED_EVERY = 10.0
"""Virtual seconds between two looks at the alarms."""
SIZE = rule(
    "update.size",
    "guess",
    "ValidationException",
    "{member} must be {least}-{most}% of the variant's total instance count",
    "the bounds are documented with each member of the policies; the words are not known",
)
ONE_POLICY = rule(
    "update.one-policy",
    "guess",
    "ValidationException",
    "Only one update policy should be used in the deployment configuration",
    "that only one may be used is documented; the words are not known",
)
NOT_ROLLING = rule(
    "update.rolling",
    "guess",
    "ValidationException",
    "A rolling deployment is not for serverless endpoints and several variants",
    "documented among the exclusions of deployment guardrails; the words are not known",
)
EXECUTION_TIMEOUT = rule(
    "endpoint.execution-timeout",
    "guess",
    "ValidationException",
    "MaximumExecutionTimeoutInSeconds must be longer than all waits together",
    "the need is documented; the words are not known",
)


@dataclass(frozen=True)
class Shift:
    """One step."""

    share: float
    """Of the traffic, on the new fleet, when the step is done."""
    seconds: float
    """To bring up what it needs and turn the traffic on."""
    baking: float
    """How long the alarms are watched after it."""


@dataclass(frozen=True)
class Course:
    """All steps of an update."""

    shifts: tuple[Shift, ...]
    rolling: bool = False
    termination: float = 0.0
    """How long the old fleet stays after the last one."""
    longest: float = math.inf
    back: float = 0.0
    """Seconds that going back takes."""


def course_of(account: Account, deployment: Json | None, count: int) -> Course:
    """The steps that a DeploymentConfig means for a fleet of so many instances."""
    bring_up, back = account.durations["endpoint.update"], account.durations["endpoint.rollback"]
    policy = (deployment or {}).get("RollingUpdatePolicy")
    if policy is not None:
        batch = instances(policy["MaximumBatchSize"], count)
        steps = math.ceil(count / batch)
        wait = float(policy["WaitIntervalInSeconds"])
        each = account.durations["endpoint.batch"]
        rolled = tuple(Shift(min(1.0, n * batch / count), each, wait) for n in range(1, steps + 1))
        undo = policy.get("RollbackMaximumBatchSize")
        rounds = math.ceil(count / instances(undo, count)) if undo else 1
        longest = policy.get("MaximumExecutionTimeoutInSeconds", math.inf)
        return Course(rolled, True, 0.0, longest, back * rounds)
    policy = (deployment or {}).get("BlueGreenUpdatePolicy")
    if policy is None:
        return Course((Shift(1.0, bring_up, 0.0),), back=back)
    routing = policy["TrafficRoutingConfiguration"]
    wait, turn = float(routing["WaitIntervalInSeconds"]), account.durations["endpoint.shift"]
    shares = list(_shares(routing, count))
    shifts = tuple(Shift(share, turn if n else bring_up, wait) for n, share in enumerate(shares))
    longest = policy.get("MaximumExecutionTimeoutInSeconds", math.inf)
    return Course(shifts, False, policy.get("TerminationWaitInSeconds", 0), longest, back)


def _shares(routing: Json, count: int) -> Iterator[float]:
    match routing["Type"]:
        case "CANARY":
            yield instances(routing["CanarySize"], count) / count
        case "LINEAR":
            step = instances(routing["LinearStepSize"], count)
            yield from (n * step / count for n in range(1, math.ceil(count / step)))
    yield 1.0


def instances(size: Json, count: int) -> int:
    """A CapacitySize as instances: one at least."""
    value: int = size["Value"]
    return max(1, value if size["Type"] == "INSTANCE_COUNT" else math.ceil(count * value / 100))


def check_deployment(deployment: Json, count: int, *, variants: int, serverless: bool) -> None:
    """Raises Refusal for what the documentation forbids."""
    blue_green = deployment.get("BlueGreenUpdatePolicy")
    rolling = deployment.get("RollingUpdatePolicy")
    if blue_green is not None and rolling is not None:
        raise refuse(ONE_POLICY)
    if rolling is not None:
        if serverless or variants > 1:
            raise refuse(NOT_ROLLING)
        _check_size(rolling, "MaximumBatchSize", count, 5, 50)
        if "RollbackMaximumBatchSize" in rolling:
            _check_size(rolling, "RollbackMaximumBatchSize", count, 5, 100)
        waits = rolling["WaitIntervalInSeconds"]
        if waits >= rolling.get("MaximumExecutionTimeoutInSeconds", 28_800):
            raise refuse(EXECUTION_TIMEOUT)
    if blue_green is not None:
        routing = blue_green["TrafficRoutingConfiguration"]
        if routing["Type"] == "CANARY":
            _check_size(routing, "CanarySize", count, 0, 50)
        if routing["Type"] == "LINEAR":
            _check_size(routing, "LinearStepSize", count, 10, 50)
        waits = blue_green.get("TerminationWaitInSeconds", 0) + routing["WaitIntervalInSeconds"]
        if waits >= blue_green.get("MaximumExecutionTimeoutInSeconds", 28_800):
            raise refuse(EXECUTION_TIMEOUT)


def _check_size(policy: Json, member: str, count: int, least: int, most: int) -> None:
    size = policy.get(member, {"Type": "CAPACITY_PERCENT", "Value": 0})
    percent = float(size["Value"])
    if size["Type"] == "INSTANCE_COUNT":
        percent = 100 * percent / max(count, 1)
    if not max(least, 0.01) <= percent <= most:
        raise refuse(SIZE, member=member, least=least, most=most)
