"""What was asked of the double: each call with its outcome, counted by operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rig.sagemaker.shapes import Json

READS = ("Describe", "List", "Get", "Search", "Head", "Invoke", "Filter", "BatchDescribe")


@dataclass(frozen=True)
class Call:
    """One request and what became of it."""

    at: float
    service: str
    operation: str
    principal: str
    request: Json
    error: str = ""
    """The error's code; empty when it was done."""
    rule: str = ""
    """The rule or fault that refused it."""
    foreign: bool = False
    """Made by a foreign actor of the test."""

    @property
    def mutates(self) -> bool:
        """Whether it is one that changes something."""
        return not self.operation.startswith(READS) and self.service != "sts"


class Calls:
    """All calls since the last ``clear``, those of foreign actors apart."""

    def __init__(self) -> None:
        self.log: list[Call] = []

    def __iter__(self) -> Iterator[Call]:
        return (call for call in self.log if not call.foreign)

    def __getitem__(self, operation: str) -> int:
        """How often an operation was asked for."""
        return sum(call.operation == operation for call in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def counts(self) -> Counter[str]:
        """Calls by operation."""
        return Counter(call.operation for call in self)

    def done(self) -> Counter[str]:
        """Calls by operation that had their effect."""
        return Counter(call.operation for call in self if not call.error)

    def mutations(self) -> list[Call]:
        """Those that change something, or were to."""
        return [call for call in self if call.mutates]

    def clear(self) -> None:
        """Begin to count anew."""
        self.log.clear()
