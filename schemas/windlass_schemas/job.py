"""Kind Job: something that runs to completion on a Target."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from windlass_schemas.base import Frozen
from windlass_schemas.deployment import MODEL_ARTIFACT
from windlass_schemas.key import Key
from windlass_schemas.metadata import Metadata
from windlass_schemas.model import JobOutput
from windlass_schemas.policy import Policy
from windlass_schemas.references import Reference
from windlass_schemas.scalars import Duration, Name, RelativePath, inside_source
from windlass_schemas.target import BUILT_IN_TARGET

BEST_PARAMS = "best"
"""The output of a Sweep that a Job takes: its best params, as JSON."""

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr

IMAGE_SUFFIX = ".sif"
"""What the name of an image ends in that is a file beside the document."""

_PROGRAMS = ("entrypoint", "command", "model")
_WORD = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*$")
_ENV = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


def _word(value: str) -> str:
    if not _WORD.match(value):
        raise ValueError("must be a word of letters, digits, '_' and '-' that starts with a letter")
    return value


def _environment_name(value: str) -> str:
    if not _ENV.match(value):
        raise ValueError("must be a word of letters, digits and '_' that starts with a letter")
    if value.startswith("WINDLASS_"):
        raise ValueError("names that start with WINDLASS_ are set by Windlass itself")
    return value


Word = Annotated[str, AfterValidator(_word)]
EnvironmentName = Annotated[str, AfterValidator(_environment_name)]


def _indices(value: str) -> str:
    for part in value.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise ValueError(f"{part} counts down; write {last}-{first}")
    return value


class JobArray(Frozen):
    """One run of many elements, told apart by ``WINDLASS_ARRAY_INDEX``."""

    indices: Annotated[
        str,
        Field(pattern=r"^[0-9]{1,7}(-[0-9]{1,7})?(,[0-9]{1,7}(-[0-9]{1,7})?)*$", max_length=2000),
        AfterValidator(_indices),
    ]
    """Which indices, for example ``0-99`` or ``0-9,20``."""
    limit: StrictInt | None = Field(default=None, ge=1)
    """How many elements may run at once; as many as there is room for, when absent."""

    def numbers(self) -> tuple[int, ...]:
        """Every index once, in order."""
        found: set[int] = set()
        for part in self.indices.split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
        return tuple(sorted(found))


def _image(value: str) -> str:
    if not value.isprintable() or value != value.strip() or value.startswith("-"):
        raise ValueError("must be a path or an address, without blanks around it")
    return value if _is_elsewhere(value) else inside_source(value)


def _is_elsewhere(image: str) -> bool:
    """Whether an image is a path on the target or an address, not a file beside the document."""
    return image.startswith("/") or "://" in image or not image.endswith(IMAGE_SUFFIX)


class JobInput(Frozen):
    """A file that the Job reads: exactly one of the fields."""

    file: RelativePath | None = None
    """A file beside the document, read at the same revision."""
    job: JobOutput | None = None
    """An output of another Job."""
    model: Name | None = None
    """The artifact of a Model."""

    @model_validator(mode="after")
    def _exactly_one(self) -> JobInput:
        given = [name for name in ("file", "job", "model") if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) if given else "none"
            raise ValueError(f"needs exactly one of file, job and model; this has {said}")
        return self


class JobSpec(Frozen):
    """What runs, with what, for how long, and what it leaves behind."""

    entrypoint: RelativePath | None = None
    """A script beside the document; run with Python when it ends in ``.py``."""
    command: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The program and its arguments, when there is no entrypoint. No shell reads it."""
    model: Name | None = None
    """A Model that is applied to the one input, in place of a program: a batch transform."""
    files: tuple[RelativePath, ...] = ()
    """More files and folders beside the document that the script needs."""
    python: str | None = Field(default=None, min_length=1)
    """The Python for a ``.py`` entrypoint; by default the one that runs Windlass."""
    image: Annotated[str, AfterValidator(_image)] | None = Field(default=None, min_length=1)
    """The container: a path on the target, a ``.sif`` file beside the document, or an address."""
    array: JobArray | None = None
    """Run many elements of it side by side."""
    params: dict[Word, Scalar] = {}
    """Reach the script as ``--name value`` arguments and as ``WINDLASS_PARAM_NAME``."""
    best_of: Name | None = None
    """A Sweep whose best params are taken, where ``params`` does not give them."""
    env: dict[EnvironmentName, str] = {}
    """Environment; values ``env:NAME`` and ``file:/path`` are read when the Job starts."""
    inputs: dict[Word, JobInput] = {}
    """Files to read; each one's path is in ``WINDLASS_INPUT_NAME``."""
    outputs: dict[Word, RelativePath] = {}
    """Files to keep, by name: paths in the working directory that the script must write."""
    target: Name = BUILT_IN_TARGET
    """Where it runs."""
    options: dict[str, JsonValue] = {}
    """Options of the Target's adapter; it checks them itself."""
    time_limit: Duration | None = None
    """How long one attempt may run; no limit, when absent."""
    retries: StrictInt = Field(default=0, ge=0, le=100)
    """How many more attempts a failing script gets."""
    history: StrictInt | None = Field(default=None, ge=0, le=10_000)
    """How many earlier runs stay, with their logs; by default what the daemon says."""
    on_change: Literal["finish-then-run", "replace", "refuse"] = "finish-then-run"
    """What an edit does to a running attempt: let it finish first, stop it, or never run again."""

    @model_validator(mode="after")
    def _one_program(self) -> JobSpec:
        given = [name for name in _PROGRAMS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("needs exactly one of entrypoint, command and model")
        if self.command is not None and self.python is not None:
            raise ValueError("python goes with entrypoint; put the interpreter into command")
        if self.model is not None:
            for name in ("files", "python", "image", "params", "best_of"):
                if getattr(self, name):
                    alias = "bestOf" if name == "best_of" else name
                    raise ValueError(f"{alias} goes with a program, and this applies a model")
        return self

    def references(self, namespace: str) -> tuple[Reference, ...]:
        """What must be there first: the Target and whatever the inputs come from."""
        found = [Reference(Key("Target", namespace, self.target), "spec.target")]
        if self.best_of is not None:
            sweep = Key("Sweep", namespace, self.best_of)
            found.append(Reference(sweep, "spec.bestOf", BEST_PARAMS))
        if self.model is not None:
            model = Key("Model", namespace, self.model)
            found.append(Reference(model, "spec.model", MODEL_ARTIFACT))
        for name, source in self.inputs.items():
            field = f"spec.inputs.{name}"
            if source.job is not None:
                key = Key("Job", namespace, source.job.name)
                found.append(Reference(key, f"{field}.job", source.job.output))
            elif source.model is not None:
                key = Key("Model", namespace, source.model)
                found.append(Reference(key, f"{field}.model", MODEL_ARTIFACT))
        return tuple(found)

    @property
    def image_file(self) -> str | None:
        """The image, when it is a file beside the document."""
        return None if self.image is None or _is_elsewhere(self.image) else self.image

    def named_files(self) -> tuple[tuple[str, str], ...]:
        """(field, path) of the files and folders beside the document that the spec names."""
        found = [("spec.entrypoint", self.entrypoint)] if self.entrypoint else []
        found += [(f"spec.files[{i}]", path) for i, path in enumerate(self.files)]
        if self.image_file is not None:
            found.append(("spec.image", self.image_file))
        for name, source in self.inputs.items():
            if source.file is not None:
                found.append((f"spec.inputs.{name}.file", source.file))
        return tuple(found)


class Job(Frozen):
    """Something that runs to completion on a Target."""

    api_version: Literal["windlass/v1"]
    kind: Literal["Job"]
    metadata: Metadata
    spec: JobSpec
    policy: Policy = Policy()
