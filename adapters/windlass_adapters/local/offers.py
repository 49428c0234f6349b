"""What of a Deployment's spec this machine does not do: refused, never accepted and ignored.

The local adapter's share of ``normalise``; pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from windlass_adapters.base import TerminalError
from windlass_schemas import Deployment, DeploymentSpec, Reason


def refuse_what_is_not_offered(deployment: Deployment) -> None:
    """Raises TerminalError, reason InvalidSpec, that names every field at once."""
    if found := "; ".join(_not_offered(deployment.spec)):
        raise TerminalError(found, reason=Reason.INVALID_SPEC)


def _not_offered(spec: DeploymentSpec) -> Iterator[str]:
    if spec.autoscaling is not None:
        yield "spec.autoscaling: a local Target does not scale; leave it out"
    if spec.rollout.canary is not None:
        yield "spec.rollout.canary: a local Target swaps at once; leave it out"
    if spec.rollout.shadow is not None:
        yield "spec.rollout.shadow: a local Target swaps at once; leave it out"
    if spec.access == "keys":
        yield "spec.access: a local Target knows no keys; leave it out, or say public"
    if spec.resources.memory is not None:
        yield "spec.resources.memory: a local Target sets no limit; leave it out"
    if spec.resources.gpus:
        yield "spec.resources.gpus: on a local Target say spec.options.providers instead"
