"""What a Job on Slurm may ask for: ``Job.spec.options``, and the Target's defaults for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from windlass_schemas import Frozen
from windlass_schemas.scalars import Duration

_WORD = re.compile(r"[A-Za-z0-9_.,:=@%+/*|&()\[\]!~-]+")
_EXTRA = re.compile(r"--[a-z][a-z0-9-]+(=[ -~]+)?")
_BIND = re.compile(r"/[^,:\s]*(:/[^,:\s]*(:(ro|rw))?)?")

PLACEMENT = frozenset(
    {
        *("account", "coalesce", "constraint", "exclude", "exclusive", "extra_args", "partition"),
        *("qos", "requeue", "reservation", "signal", "time"),
    }
)
"""Options that say where and when it runs, and decide nothing of its result."""

OWNED = frozenset(
    {
        *("array", "begin", "bb", "bbf", "chdir", "cluster-constraint", "clusters", "comment"),
        *("dependency", "error", "export", "export-file", "get-user-env", "gid", "help", "hold"),
        *("input", "job-name", "kill-on-invalid-dep", "no-kill", "no-requeue", "open-mode"),
        *("output", "parsable", "quiet", "requeue", "test-only", "uid", "usage", "verbose"),
        *("version", "wait", "wait-all-nodes", "wckey", "wrap", "ignore-pbs"),
    }
)
"""Options of sbatch by which a run is found again, or by which it would not be one run."""
FIELDS = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "nodes": "nodes",
    "ntasks": "ntasks",
    "cpus": "cpus-per-task",
    "mem": "mem",
    "gres": "gres",
    "gpus": "gpus",
    "time": "time",
    "exclude": "exclude",
    "exclusive": "exclusive",
    "constraint": "constraint",
    "reservation": "reservation",
    "signal": "signal",
}
"""The option of sbatch behind each field."""


def _word(value: str) -> str:
    if not _WORD.fullmatch(value) or value.startswith("-"):
        raise ValueError("must be one word, without blanks, and not begin with '-'")
    return value


def _amount(value: int | str) -> int | str:
    if isinstance(value, str):
        return _word(value)
    if value < 1:
        raise ValueError(f"is {value}; write a number of at least 1")
    return value


def _memory(value: str) -> str:
    if not re.fullmatch(r"[0-9]+[KMGT]?", value):
        raise ValueError("must be a whole number with K, M, G or T; write for example 4G")
    return value


def _signal(value: str) -> str:
    if not re.fullmatch(r"(USR1|USR2|TERM)@[0-9]{1,5}", value):
        raise ValueError(
            "must be USR1, USR2 or TERM, @, and seconds before the end; write for example USR1@120"
        )
    return value


def _bind(value: str) -> str:
    if not _BIND.fullmatch(value) or ".." in value.split(":")[0].split("/"):
        raise ValueError("must be /source, /source:/target or /source:/target:ro; no blank, no ','")
    return value


def _extra(value: str) -> str:
    if not _EXTRA.fullmatch(value):
        raise ValueError("must be --name or --name=value in one line of plain characters")
    name = value[2:].partition("=")[0]
    for field, option in FIELDS.items():
        if option.startswith(name):
            raise ValueError(f"--{name} has a field of its own; write options.{field}")
    if taken := sorted(option for option in OWNED if option.startswith(name)):
        raise ValueError(f"--{name} is Windlass's own (--{taken[0]}); remove it")
    return value


Word = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_word)]
Amount = Annotated[StrictInt | StrictStr, AfterValidator(_amount)]
Count = Annotated[StrictInt, Field(ge=1)]


class ContainerOptions(Frozen):
    """How the image is run. By default nothing of the cluster's home or environment is inside."""

    binds: tuple[Annotated[str, AfterValidator(_bind)], ...] = ()
    """Folders of the cluster to see inside: ``/source``, ``/source:/target``, ``...:ro``."""
    nv: StrictBool = False
    """Give it the NVIDIA GPUs."""
    rocm: StrictBool = False
    """Give it the AMD GPUs."""
    pwd: Annotated[str, Field(pattern=r"^/[^\s]*$")] | None = None
    """Folder inside in which the program starts; by default the run's working directory."""
    clean: StrictBool = True
    """Start from an empty environment; the scheduler's variables are kept."""
    home: StrictBool = False
    """Show it the home folder."""
    runtime: Literal["apptainer", "singularity"] | None = None
    """Which program runs it; by default the first that the compute node has."""


class JobOptions(Frozen):
    """One Job's request to Slurm."""

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    nodes: Amount | None = None
    """How many machines, or a range such as ``2-4``."""
    ntasks: Count | None = None
    cpus: Count | None = None
    """Processors for each task."""
    mem: Annotated[str, AfterValidator(_memory)] | None = None
    """Memory for each machine, for example ``4G``."""
    gres: Word | None = None
    """Generic resources, for example ``gpu:a100:2``."""
    gpus: Amount | None = None
    time: Duration | None = None
    """What Slurm is asked for; by default ``timeLimit``."""
    exclude: Word | None = None
    """Machines not to use, as ``squeue`` writes them."""
    exclusive: StrictBool = False
    """No other job on the same machines."""
    constraint: Word | None = None
    """Features that the machines must have."""
    reservation: Word | None = None
    requeue: StrictBool = False
    """Let Slurm itself put it back into the queue when a machine fails: the same attempt."""
    signal: Annotated[str, AfterValidator(_signal)] | None = None
    """A signal before the end, for example ``USR1@120``: 120 s before the time is up.

    Only those that a job's script hands on to the program; any other would end the script.
    """
    coalesce: StrictBool = False
    """Let Jobs of one shape be submitted as one array."""
    extra_args: tuple[Annotated[str, AfterValidator(_extra)], ...] = ()
    """More options of sbatch, ``--name=value`` each; those that Windlass needs are refused."""
    container: ContainerOptions = ContainerOptions()

    @model_validator(mode="after")
    def _one_vendor(self) -> JobOptions:
        if self.container.nv and self.container.rocm:
            raise ValueError("container.nv and container.rocm exclude each other; keep one")
        return self

    def over(self, defaults: JobOptions) -> JobOptions:
        """These, and the defaults for what is not said here."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        inner = {name: getattr(self.container, name) for name in self.container.model_fields_set}
        container = defaults.container.model_copy(update=inner)
        return defaults.model_copy(update=said | {"container": container})


def sbatch_options(options: Mapping[str, JsonValue]) -> list[str]:
    """``--name=value`` for each field, as ``model_dump(mode='json', by_alias=False)`` gives them.

    ``time`` is in minutes.
    """
    found = []
    for field, option in FIELDS.items():
        value = options.get(field)
        if value is True:
            found.append(f"--{option}")
        elif value not in (None, False):
            text = f"B:{value}" if field == "signal" else value
            found.append(f"--{option}={text}")
    found.append("--requeue" if options.get("requeue") else "--no-requeue")
    extra = options.get("extra_args")
    return [*found, *(str(each) for each in extra)] if isinstance(extra, list) else found


RUNTIMES: tuple[str, ...] = ("apptainer", "singularity")
assert set(get_args(get_args(ContainerOptions.model_fields["runtime"].annotation)[0])) == set(
    RUNTIMES
)
