"""What a Job may ask of Slurm, what it may not, and what of it decides the result."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from windlass_adapters.base import Desired, Owner, TerminalError
from windlass_adapters.slurm.jobs import RunBody, wanted_run
from windlass_adapters.slurm.options import JobOptions, sbatch_options
from windlass_adapters.slurm.params import SlurmParams
from windlass_adapters.slurm.refusals import refusal_of
from windlass_adapters.slurm.script import assignment, sbatch_args, shape_of
from windlass_schemas import Job, Key, Reason, key_of, parse_resource

ROOT = "/scratch/ada/windlass"
PARAMS = SlurmParams.model_validate({"host": "hpc", "remoteRoot": ROOT})


def body_of(params: SlurmParams = PARAMS, **spec: JsonValue) -> RunBody:
    """What becomes of a Job."""
    return RunBody.model_validate(wanted(params, **spec)[1])


def wanted(params: SlurmParams = PARAMS, **spec: JsonValue) -> tuple[str, object]:
    """Digest and body of a Job's run."""
    given_spec = {"command": ["true"], **spec}
    document = {"apiVersion": "windlass/v1", "kind": "Job", "metadata": {"name": "j"}}
    resource = parse_resource({**document, "spec": given_spec})
    assert isinstance(resource, Job)
    found = wanted_run(Desired(Owner("i", "u" * 16, key_of(resource)), resource), resource, params)
    return found.digest, found.body


@pytest.mark.parametrize(
    "extra",
    [
        *("--job-name=x", "--job-n=x", "--output=/x", "--array=1", "--chdir=/", "--wrap=id"),
        *("--partition=x", "--par=x", "--export=NONE", "--no-requeue", "--hold", "--dependency=a"),
        *("-p", "x", "--", "--comment=a", "--mail-user=a\nb", "--parsable", "--clusters=b"),
    ],
)
def test_options_that_windlass_needs_are_refused_also_when_cut_short(extra: str) -> None:
    """sbatch takes any beginning of an option's name."""
    with pytest.raises(ValidationError):
        JobOptions.model_validate({"extraArgs": [extra]})


def test_other_options_go_through_as_they_are() -> None:
    """Blanks in a value are no matter: no shell reads it."""
    extra = ["--mail-type=END", "--licenses=a:1", "--mail-user=a b"]
    options = JobOptions.model_validate({"extraArgs": extra})
    assert sbatch_options(options.model_dump(mode="json", by_alias=False))[-3:] == extra


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("partition", "a b"),
        ("account", "x\n--uid=0"),
        ("qos", "-x"),
        ("mem", "4GB"),
        ("nodes", 0),
        ("signal", "USR1"),
        ("signal", "HUP@60"),
        ("gpus", "a b"),
        ("time", 60),
        ("container", {"binds": ["a:b"]}),
        ("container", {"binds": ["/a,/b"]}),
        ("container", {"nv": True, "rocm": True}),
        ("requeue", "yes"),
        ("partitions", "x"),
    ],
)
def test_a_value_that_is_none_is_refused(field: str, value: JsonValue) -> None:
    """Before anything is sent."""
    with pytest.raises(ValidationError):
        JobOptions.model_validate({field: value})


def test_a_jobs_options_go_over_the_targets_defaults() -> None:
    """Field by field, also inside the container."""
    params = PARAMS.model_copy(
        update={
            "defaults": JobOptions.model_validate(
                {"partition": "cpu", "time": "1h", "container": {"nv": True, "binds": ["/data"]}}
            )
        }
    )
    body = body_of(params, options={"partition": "gpu", "container": {"binds": []}})
    assert (body.options.partition, body.minutes) == ("gpu", 60)
    assert (body.options.container.nv, body.options.container.binds) == (True, ())
    args = sbatch_args(Owner("i", "u", Key("Job", "default", "j")), body)
    assert args == [
        "--partition=gpu",
        "--time=60",
        "--no-requeue",
        "--comment=Job/default/j",
    ]


def test_slurm_is_asked_for_whole_minutes_and_for_enough() -> None:
    """``timeLimit`` decides, unless ``options.time`` asks for more."""
    assert body_of(timeLimit="61s").minutes == 2
    assert body_of(timeLimit="30m", options={"time": "1h"}).minutes == 60
    assert body_of().minutes is None
    with pytest.raises(TerminalError, match="shorter than timeLimit"):
        wanted(timeLimit="2h", options={"time": "1h"})


def test_where_and_when_it_runs_does_not_decide_the_result() -> None:
    """What it is given does."""
    plain, _ = wanted()
    elsewhere: JsonValue = {"partition": "x", "account": "y", "time": "2h", "requeue": True}
    assert wanted(options=elsewhere, timeLimit="5m")[0] == plain
    assert wanted(options={"mem": "1G"})[0] != plain
    assert wanted(image="/a.sif")[0] != plain
    assert wanted(array={"indices": "0-3"})[0] != plain
    many: JsonValue = {"indices": "0-3", "limit": 2}
    fewer: JsonValue = {"indices": "0-3", "limit": 1}
    assert wanted(array=many)[0] == wanted(array=fewer)[0]


def test_only_jobs_of_one_shape_go_together() -> None:
    """And only those that may."""
    owner = Owner("i", "u", Key("Job", "default", "j"))
    bodies = [
        body_of(options={"coalesce": True}),
        body_of(command=["false"], options={"coalesce": True}),
        body_of(options={"coalesce": True, "mem": "1G"}),
        body_of(),
        body_of(options={"coalesce": True}, array={"indices": "0-1"}),
    ]
    shapes = [shape_of(body, sbatch_args(owner, body)) for body in bodies]
    assert shapes[0] == shapes[1] != ""
    assert shapes[2] not in ("", shapes[0])
    assert shapes[3:] == ["", ""]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"remoteRoot": "/scratch"}, "folder of your own"),
        ({"remoteRoot": "/a/b/../c"}, "folder of your own"),
        ({"remoteRoot": "/a/b c"}, "must begin with / and hold letters"),
        ({"limits": {"poll": "0s"}}, "at least 100ms"),
        ({"key": "-----BEGIN OPENSSH PRIVATE KEY-----"}, "never the key itself"),
        ({"hostKey": "ssh-ed25519 AAAA", "insecureIgnoreHostKey": True}, "at most one of"),
        ({"insecureIgnoreHostKey": False}, "Input should be True"),
        ({"host": "a b"}, "match pattern"),
        ({"limits": {"poll": "9s", "idlePoll": "3s"}}, "must not be shorter"),
    ],
)
def test_a_target_that_would_do_harm_is_refused(params: dict[str, JsonValue], words: str) -> None:
    """With what to write instead."""
    given_params: dict[str, JsonValue] = {"host": "hpc", "remoteRoot": ROOT, **params}
    with pytest.raises(ValidationError, match=words):
        SlurmParams.model_validate(given_params)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_sh_reads_an_assignment_as_exactly_the_value(value: str) -> None:
    """Whatever it holds."""
    text = assignment("X", value) + 'printf %s "$X"'
    done = subprocess.run(["/bin/sh", "-c", text], capture_output=True, check=True, timeout=20)
    assert done.stdout.decode() == value


@pytest.mark.parametrize(
    ("code", "text", "class_", "reason"),
    [
        (1, "sbatch: error: Batch job submission failed: Invalid account or account/partition "
            "combination specified", "TerminalError", Reason.BACKEND_REFUSED),
        (1, "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
         "AmbiguousError", Reason.BACKEND_UNAVAILABLE),
        (None, "", "AmbiguousError", Reason.BACKEND_UNAVAILABLE),
        (1, "Unable to contact slurm controller (connect failure)", "TransientError",
         Reason.BACKEND_UNAVAILABLE),
        (1, "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: "
            "Job violates accounting/QOS policy", "WaitingError", Reason.WAITING),
        (1, "sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission "
            "failed: Job violates accounting/QOS policy", "TerminalError", Reason.BACKEND_REFUSED),
        (1, "error: Batch job submission failed: Disk quota exceeded", "WaitingError",
         Reason.STORAGE_FULL),
        (1, "Batch job submission failed: Resource temporarily unavailable", "WaitingError",
         Reason.WAITING),
    ],
)  # fmt: skip
def test_what_sbatch_says_has_one_meaning(
    code: int | None, text: str, class_: str, reason: Reason
) -> None:
    """A time-out is no refusal."""
    error = refusal_of(code, text)
    assert (type(error).__name__, error.reason) == (class_, reason)


def test_the_grace_and_the_soak_are_durations() -> None:
    """With units, as everywhere."""
    assert PARAMS.grace == timedelta(seconds=30)
    with pytest.raises(ValidationError):
        SlurmParams.model_validate({"host": "h", "remoteRoot": ROOT, "grace": 30})
    assert Path(PARAMS.remote_root) == Path(ROOT)
