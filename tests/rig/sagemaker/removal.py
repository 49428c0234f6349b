"""Removing the records of jobs: only of those that are over; their names are free again then."""

from __future__ import annotations

from rig.sagemaker.batch import PROCESSING
from rig.sagemaker.operations import Ask, serves
from rig.sagemaker.refusals import refuse, rule
from rig.sagemaker.training import TRAINING
from rig.sagemaker.tuning import TUNING

ABSENT = rule(
    "job.delete-absent", "doc", "ResourceNotFound", "Requested resource not found: {name}"
)
RUNNING = rule(
    "job.delete-running",
    "doc",
    "ResourceInUse",
    "{name} is {status}; only jobs in a terminal state can be deleted",
)


def _remove(ask: Ask, kind: str, member: str) -> None:
    name = ask.request[member]
    found = ask.account.get(kind, name)
    if found is None:
        raise refuse(ABSENT, name=name)
    if found.status in ("InProgress", "Stopping"):
        raise refuse(RUNNING, name=name, status=found.status)
    ask.account.drop(found)


@serves("DeleteTrainingJob")
def delete_training(ask: Ask) -> None:
    _remove(ask, TRAINING, "TrainingJobName")


@serves("DeleteProcessingJob")
def delete_processing(ask: Ask) -> None:
    _remove(ask, PROCESSING, "ProcessingJobName")


@serves("DeleteHyperParameterTuningJob")
def delete_tuning(ask: Ask) -> None:
    _remove(ask, TUNING, "HyperParameterTuningJobName")
