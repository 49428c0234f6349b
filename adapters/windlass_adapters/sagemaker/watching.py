"""Alarms and metrics in CloudWatch: what is asked before an update and about an idle endpoint."""

from __future__ import annotations

from collections.abc import Sequence

from windlass_adapters.base import TerminalError, WaitingError
from windlass_adapters.sagemaker.answers import parts, text
from windlass_adapters.sagemaker.api import Api
from windlass_schemas import Reason


async def refuse_alarm(api: Api, alarms: Sequence[str]) -> None:
    """Begin no update while one of its alarms rings, or is not there: it would roll back at once.

    Raises TerminalError for an alarm that is not there, WaitingError for one that rings.
    """
    if not alarms:
        return
    answer = await api.call("cloudwatch", "DescribeAlarms", AlarmNames=list(alarms))
    states = {
        text(alarm, "AlarmName"): text(alarm, "StateValue")
        for kind in ("MetricAlarms", "CompositeAlarms")
        for alarm in parts(answer, kind)
    }
    missing = sorted(set(alarms) - set(states))
    if missing:
        raise TerminalError(
            f"spec.options.updates.alarms: there is no alarm {', '.join(missing)} in CloudWatch",
            reason=Reason.INVALID_SPEC,
        )
    ringing = sorted(name for name, state in states.items() if state == "ALARM")
    if ringing:
        raise WaitingError(f"{', '.join(ringing)} is in ALARM; the update begins when it is not")
