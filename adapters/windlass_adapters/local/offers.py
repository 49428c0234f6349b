"""What of a Deployment's spec this machine does not do: refused, never accepted and ignored.

The local adapter's share of ``normalise``; pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from windlass_adapters.base import TerminalError
from windlass_adapters.local.params import LocalParams
from windlass_schemas import Deployment, DeploymentSpec, Reason


def refuse_what_is_not_offered(deployment: Deployment, params: LocalParams) -> None:
    """Raises TerminalError, reason InvalidSpec, that names every field at once."""
    if found := "; ".join(_not_offered(deployment.spec, params)):
        raise TerminalError(found, reason=Reason.INVALID_SPEC)


def _not_offered(spec: DeploymentSpec, params: LocalParams) -> Iterator[str]:
    if spec.access is None and not _is_loopback(params.host):
        yield f"spec.access: the Target listens on {params.host}; say keys or public"
    if spec.resources.memory is not None:
        yield "spec.resources.memory: on a local Target say spec.params.memory of the Target"
    if spec.resources.gpus:
        yield "spec.resources.gpus: on a local Target say spec.options.providers instead"


def _is_loopback(host: str) -> bool:
    """Whether only this machine can ask."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
