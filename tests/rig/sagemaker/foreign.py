"""Others who act on the account: a person in the console, an autoscaler, another daemon, AWS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rig.sagemaker import rollouts
from rig.sagemaker.calls import Call
from rig.sagemaker.front import Front
from rig.sagemaker.rollouts import ENDPOINT
from rig.sagemaker.shapes import Json
from rig.sagemaker.wire import TARGETS, Asked


@dataclass
class Foreign:
    """Acts at once and past HTTP, signatures, faults and permissions; the rules are the same."""

    front: Front
    principal: str = "arn:aws:iam::999999999999:user/somebody-else"

    def call(self, operation: str, service: str = "sagemaker", /, **request: Any) -> Json:
        """Do what a client of somebody else does. Raises Refusal."""
        assert service in TARGETS.values()
        what = Asked(service, operation, "json", {})
        permits, self.front.permits = self.front.permits, lambda *_: None
        watches, self.front.watches = self.front.watches, []
        try:
            self.front.account.before_request()
            answer = self.front.perform(what, request, self.principal)
        finally:
            self.front.permits, self.front.watches = permits, watches
        now = self.front.account.now
        call = Call(now, service, operation, self.principal, request, foreign=True)
        self.front.calls.log.append(call)
        return answer or {}

    def scale(self, endpoint: str, variant: str, count: int) -> None:
        """What the autoscaler does: other counts, and no word about it."""
        held = self.front.account.get(ENDPOINT, endpoint)
        assert held is not None, f"no endpoint {endpoint}"
        changed = rollouts.of(held).variants[variant]
        changed.desired = changed.current = count
        held.changed = self.front.account.now

    def patch(self, endpoint: str, seconds: float = 300.0) -> None:
        """What AWS does now and then: SystemUpdating."""
        held = self.front.account.get(ENDPOINT, endpoint)
        assert held is not None, f"no endpoint {endpoint}"
        rollouts.begin_system_update(self.front.account, held, seconds)
