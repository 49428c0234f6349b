"""Alarms and metrics in CloudWatch: what is asked before an update and about an idle endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from windlass_adapters.base import TerminalError, WaitingError
from windlass_adapters.sagemaker.answers import number, parts, text
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


LOOK_AGAIN = 900.0
"""Seconds between two questions whether an endpoint is idle."""


class Idleness:
    """Whether anybody asks an endpoint. What CloudWatch cannot say counts as somebody."""

    def __init__(self, api: Api, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._clock = clock
        self._asked: dict[str, tuple[datetime, bool]] = {}

    async def is_idle(self, endpoint: str, variants: Sequence[str], seconds: float) -> bool:
        """Whether there was no invocation for so long."""
        now = self._clock()
        at, known = self._asked.get(endpoint, (None, False))
        if at is not None and now - at < timedelta(seconds=LOOK_AGAIN):
            return known
        total = 0.0
        for variant in variants:
            answer = await self._api.call(
                "cloudwatch",
                "GetMetricStatistics",
                Namespace="AWS/SageMaker",
                MetricName="Invocations",
                Dimensions=[
                    {"Name": "EndpointName", "Value": endpoint},
                    {"Name": "VariantName", "Value": variant},
                ],
                StartTime=now - timedelta(seconds=seconds),
                EndTime=now,
                Period=3600,
                Statistics=["Sum"],
            )
            total += sum(number(point, "Sum") or 0.0 for point in parts(answer, "Datapoints"))
        self._asked[endpoint] = (now, total == 0)
        return total == 0
