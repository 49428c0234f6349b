"""What SageMaker's words for a job's state mean here. Pure."""

from __future__ import annotations

from windlass_adapters.base import State
from windlass_adapters.sagemaker.answers import Answer, count, moment, part
from windlass_adapters.sagemaker.errors import passes
from windlass_schemas import Reason

_WAITS = {
    "Starting": "waiting for machines",
    "Pending": "waiting for machines",
    "LaunchingMLInstances": "waiting for machines",
    "PreparingTrainingStack": "preparing the machines",
    "Downloading": "downloading data",
    "DownloadingTrainingImage": "downloading the image",
    "Training": "running",
    "Interrupted": "AWS took the spot machines back; waiting for others",
    "Restarting": "restarting",
    "Uploading": "uploading what it made",
}
RunState = tuple[State, Reason | None, str, bool]
"""State, reason, message, and whether a failure counts as an attempt."""


def run_state(status: str, secondary: str, failure: str) -> RunState:
    """What a job's status comes to."""
    match status:
        case "InProgress":
            return State.PROGRESSING, None, _WAITS.get(secondary, secondary or "running"), True
        case "Stopping":
            return State.PROGRESSING, None, "is being stopped", True
        case "Completed":
            return State.SUCCEEDED, None, "", True
        case "Stopped" | "Failed" if secondary in ("MaxRuntimeExceeded", "MaxWaitTimeExceeded"):
            limit = "timeLimit" if secondary == "MaxRuntimeExceeded" else "options.spot.maxWait"
            message = f"it took longer than {limit}; raise that, or make it faster"
            return State.FAILED, Reason.TIME_LIMIT_EXCEEDED, message, True
        case "Stopped":
            message = "somebody stopped it in SageMaker; windlass sync runs it again"
            return State.FAILED, Reason.INTERRUPTED, message, True
        case "Failed":
            reason = Reason.INTERRUPTED if passes(failure) else Reason.FAILED
            return State.FAILED, reason, failure or "SageMaker gives no reason", not passes(failure)
        case _:
            return State.PROGRESSING, None, status, True


def run_out(answer: Answer, word: str) -> bool:
    """Whether a job ended when its time was over: AWS's words for that are not known."""
    limit = count(part(answer, "StoppingCondition"), "MaxRuntimeInSeconds")
    began, ended = moment(answer, f"{word}StartTime"), moment(answer, f"{word}EndTime")
    if limit is None or began is None or ended is None:
        return False
    return (ended - began).total_seconds() >= limit
