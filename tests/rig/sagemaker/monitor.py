"""What must never happen, whatever goes wrong on the way. Watches every call."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rig.sagemaker import rollouts
from rig.sagemaker.account import Account, Resource
from rig.sagemaker.calls import Call
from rig.sagemaker.refusals import RULES as LEDGER
from rig.sagemaker.refusals import Known
from rig.sagemaker.rollouts import ENDPOINT
from rig.sagemaker.shapes import Json
from rig.sagemaker.wire import Asked

_KINDS = {
    "EndpointName": "endpoint",
    "EndpointConfigName": "endpoint-config",
    "ModelName": "model",
    "TrainingJobName": "training-job",
    "ProcessingJobName": "processing-job",
    "TransformJobName": "transform-job",
    "HyperParameterTuningJobName": "hyper-parameter-tuning-job",
    "ModelPackageGroupName": "model-package-group",
}
_CHANGES = ("Update", "Delete", "Stop", "AddTags", "DeleteTags", "Register", "Put", "Deregister")


@dataclass
class Monitor:
    """Collects violations; ``check`` raises when there are any."""

    account: Account
    violations: list[str] = field(default_factory=list)
    adoptable: set[str] = field(default_factory=set)
    """ARNs of what somebody else made and the test lets be taken over."""
    refused: Counter[str] = field(default_factory=Counter)
    """How often each rule refused a request."""

    def before(self, asked: Asked, request: Json, principal: str) -> None:
        """Look at what is about to be done."""
        operation = asked.operation
        if operation == "DeleteEndpointConfig":
            self._check_unused(request["EndpointConfigName"])
        if operation.startswith(_CHANGES):
            resource = self._touched(operation, request)
            if resource is not None and resource.maker != principal:
                self._check_ours(operation, resource)

    def after(self, call: Call) -> None:
        """Look at what became of it."""
        if not call.error:
            return
        self.refused[call.rule] += 1
        known = LEDGER.get(call.rule)
        if call.rule == "shape":
            self.violations.append(
                f"{call.operation} with a request that AWS refuses: {call.request}"
            )
        elif call.error == "NotImplementedByDouble":
            self.violations.append(f"{call.operation} is not modelled: {call.request}")
        elif known is not None and known.known is Known.GUESS and call.rule.endswith("tags"):
            self.violations.append(f"{call.operation} runs into {call.rule}")

    def _check_unused(self, config: str) -> None:
        for endpoint in self.account.all(ENDPOINT):
            rollout = rollouts.of(endpoint)
            used = {rollout.config} | ({rollout.pending.config} if rollout.pending else set())
            if config in used and endpoint.status != "Deleting":
                self.violations.append(
                    f"configuration {config} is deleted while {endpoint.name} uses it"
                )

    def _check_ours(self, operation: str, resource: Resource) -> None:
        if resource.arn not in self.adoptable:
            self.violations.append(
                f"{operation} on {resource.arn}, which {resource.maker} has made"
            )

    def _touched(self, operation: str, request: Json) -> Resource | None:
        arn = request.get("ResourceArn") or request.get("ModelPackageArn")
        if arn is not None:
            return self.account.by_arn(arn)
        if request.get("ServiceNamespace") == "sagemaker":
            return self.account.get(ENDPOINT, request["ResourceId"].split("/")[1])
        for member, kind in _KINDS.items():
            if member in request:
                return self.account.get(kind, request[member])
        return None

    def held(self) -> list[str]:
        """The ARNs of all that is there and costs or clutters; runs that are over do neither."""
        over = ("Completed", "Failed", "Stopped")
        return sorted(
            one.arn
            for one in self.account.held.values()
            if not ("-job" in one.kind and one.status in over)
        )

    def check(self) -> None:
        """Raises AssertionError when anything happened that must not."""
        assert not self.violations, "\n".join(self.violations)
