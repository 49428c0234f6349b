"""Which operations are modelled, by service, and what an operation is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rig.sagemaker.account import Account
from rig.sagemaker.shapes import Json


@dataclass(frozen=True)
class Ask:
    """One request that has passed every check of form."""

    account: Account
    request: Json
    principal: str
    """The ARN that asks."""


Operation = Callable[[Ask], Json | None]
OPERATIONS: dict[tuple[str, str], Operation] = {}


def serves(name: str, service: str = "sagemaker") -> Callable[[Operation], Operation]:
    """Enter a function as a service's operation."""

    def enter(operation: Operation) -> Operation:
        assert (service, name) not in OPERATIONS, f"{name} is modelled twice"
        OPERATIONS[service, name] = operation
        return operation

    return enter
