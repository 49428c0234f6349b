"""What goes wrong on the way, by rule: which operation, which request, which time."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass

from rig.sagemaker.refusals import Refusal
from rig.sagemaker.shapes import Json

_EXPIRED = "The security token included in the request is expired"
KINDS = {
    "throttle": ("ThrottlingException", "Rate exceeded", 400),
    "internal": ("InternalFailure", "The request processing has failed", 500),
    "unavailable": ("ServiceUnavailable", "The service is not available", 503),
    "expired": (
        "ExpiredTokenException",
        "The security token included in the request is expired",
        400,
    ),
    "denied": ("AccessDeniedException", "", 400),
    "quota": ("ResourceLimitExceeded", "", 400),
}
"""Faults that are answered without effect: code, message, HTTP status."""

BROKEN = ("html", "reset", "lost", "slow", "half")
"""Faults of the wire: a page of HTML with 502, a reset before and after the effect, a slow answer,
an answer that breaks off in the middle."""


@dataclass
class Fault:
    """One rule."""

    kind: str
    operation: str = "*"
    matching: str = "*"
    """A glob over the request as JSON."""
    times: int = 1
    skip: int = 0
    """How many that match are let through first."""
    code: str = ""
    message: str = ""
    status: int = 0
    seconds: float = 0.0
    """Real seconds, for ``slow``."""
    struck: int = 0

    def meets(self, operation: str, request: str) -> bool:
        """Whether it strikes this request; counts."""
        if self.times <= 0 or not fnmatch.fnmatchcase(operation, self.operation):
            return False
        if self.matching != "*" and not fnmatch.fnmatchcase(request, self.matching):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        self.struck += 1
        return True


class Faults:
    """The rules in force. The first that meets a request strikes it."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []
        self.rates: dict[str, tuple[float, float]] = {}
        """By operation: requests per virtual second, and how many at once."""
        self.last_struck: float | None = None
        """When a rule last struck, in virtual seconds."""
        self._buckets: dict[str, tuple[float, float]] = {}

    def add(
        self,
        kind: str,
        operation: str = "*",
        *,
        matching: str = "*",
        times: int = 1,
        skip: int = 0,
        code: str = "",
        message: str = "",
        status: int = 0,
        seconds: float = 0.0,
    ) -> Fault:
        """Let something go wrong; ``operation`` and ``matching`` are globs.

        ``error`` takes a code, a message and a status of one's own.
        """
        if kind not in KINDS and kind not in BROKEN and kind != "error":
            raise ValueError(f"{kind} is not a fault: {[*KINDS, *BROKEN, 'error']}")
        made = Fault(kind, operation, matching, times, skip, code, message, status, seconds)
        self.rules.append(made)
        return made

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self.rules.clear()
        self.rates.clear()

    def strike(self, operation: str, request: Json, now: float) -> Fault | None:
        """The rule that meets a request, if any."""
        if not self.rules:
            return None
        text = json.dumps(request)
        found = next((rule for rule in self.rules if rule.meets(operation, text)), None)
        if found is not None:
            self.last_struck = now
        return found

    def take(self, service: str, operation: str, now: float) -> None:
        """Take from an operation's bucket. Raises Refusal when it is empty."""
        if operation not in self.rates:
            return
        rate, burst = self.rates[operation]
        held, at = self._buckets.get(operation, (burst, now))
        held = min(burst, held + (now - at) * rate)
        self._buckets[operation] = (max(0.0, held - 1.0) if held >= 1.0 else held, now)
        if held < 1.0:
            raise refusal(Fault("throttle"), "", f"{service}:{operation}")


_OF_S3 = {"throttle": ("SlowDown", 503), "internal": ("InternalError", 500)}


def refusal(fault: Fault, principal: str, action: str) -> Refusal:
    """What a fault answers."""
    if action.startswith("s3:") and fault.kind in _OF_S3:
        code, status = _OF_S3[fault.kind]
        return Refusal(code, "Please reduce your request rate.", status, f"fault.{fault.kind}")
    code, message, status = KINDS.get(fault.kind, (fault.code, fault.message, 400))
    if fault.kind == "denied":
        message = f"User: {principal} is not authorized to perform: {action}"
    elif fault.kind == "quota":
        message = (
            "The account-level service limit 'ml.m5.large for endpoint usage' is 0 Instances, "
            "with current utilization of 0 Instances and a request delta of 1 Instances."
        )
    return Refusal(
        fault.code or code, fault.message or message, fault.status or status, f"fault.{fault.kind}"
    )
