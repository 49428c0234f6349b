"""What SageMaker's words for a state mean here: one table for each kind of thing. Pure.

No table takes Stopped for success, nor InService for the success of an update.
"""

from __future__ import annotations

from windlass_adapters.base import State
from windlass_adapters.sagemaker.errors import passes
from windlass_schemas import Reason

BUSY = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
"""Endpoints in these states take no change."""
SETTLED = frozenset({"InService", "OutOfService", "Failed", "UpdateRollbackFailed"})

_SAYING = {
    "Creating": "SageMaker is making the endpoint",
    "Updating": "SageMaker is updating the endpoint; the old version serves",
    "SystemUpdating": "AWS maintains the endpoint; it serves meanwhile",
    "RollingBack": "new counts or weights were not reached and are being rolled back",
    "Deleting": "SageMaker is deleting the endpoint",
}


def state_of(
    status: str, failure: str, failed: str, *, went_back: bool = False
) -> tuple[State, Reason | None, str]:
    """State, reason and message of an endpoint.

    ``failed`` is the config of a failed update; ``went_back`` says that its rollback failed too,
    and that the endpoint was told to go back.
    """
    match status:
        case "Creating" | "Updating" | "SystemUpdating" | "RollingBack":
            return State.PROGRESSING, None, _SAYING[status]
        case "Deleting":
            return State.DELETING, None, _SAYING[status]
        case "InService" if failed and went_back:
            message = (
                f"the update to {failed} failed and so did its rollback; Windlass has put the old"
                " version in force again, and it serves; commit another version"
            )
            return State.LIVE, Reason.UPDATE_FAILED, message
        case "InService" if failed:
            reason = Reason.WAITING if passes(failure) else Reason.UPDATE_FAILED
            message = f"the update to {failed} failed: {failure}; the old version serves"
            return State.LIVE, reason, message
        case "InService":
            note = f"in service; AWS says of its last change: {failure}" if failure else ""
            return State.LIVE, None, note
        case "UpdateRollbackFailed":
            tried = "; going back to the old version has failed once as well" if went_back else ""
            message = (
                f"the update failed and so did its rollback: {failure}{tried}; both versions serve:"
                " look at the endpoint's logs, then commit another version"
            )
            return State.DEGRADED, Reason.UPDATE_FAILED, message
        case "OutOfService":
            message = "the endpoint is out of service; see its logs in CloudWatch"
            return State.DEGRADED, Reason.BACKEND_REFUSED, message
        case _:
            reason = Reason.WAITING if passes(failure) else Reason.BACKEND_REFUSED
            return State.FAILED, reason, failure or f"SageMaker says {status}"
