"""Kind Model: an artifact with an identity."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, model_validator

from windlass_schemas.base import Frozen
from windlass_schemas.key import Key
from windlass_schemas.metadata import Metadata
from windlass_schemas.policy import Policy
from windlass_schemas.references import Reference
from windlass_schemas.scalars import Digest, Name, RelativePath
from windlass_schemas.target import BUILT_IN_TARGET


class JobOutput(Frozen):
    """A named output of a Job in the same namespace."""

    name: Name
    """The Job's name."""
    output: str = Field(min_length=1)
    """One of the names under the Job's ``spec.outputs``."""


class ModelSource(Frozen):
    """Where the artifact comes from: exactly one of the fields."""

    file: RelativePath | None = None
    """A file beside the document, read at the same revision."""
    url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+/\S+$")
    """An ``https://`` address. Needs ``spec.digest``, so that the identity is declared."""
    s3: str | None = Field(default=None, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/\S+$")
    """An ``s3://`` address. Windlass follows it: a new version there is a new artifact."""
    job: JobOutput | None = None
    """An output of a Job."""

    @model_validator(mode="after")
    def _exactly_one(self) -> ModelSource:
        given = [name for name in ("file", "url", "s3", "job") if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) if given else "none"
            raise ValueError(f"needs exactly one of file, url, s3 and job; this has {said}")
        return self


class ModelSpec(Frozen):
    """An artifact, its format and, if wanted, its exact digest."""

    source: ModelSource
    """Where the artifact comes from."""
    format: Literal["onnx", "pytorch", "sklearn", "tensorflow"] = "onnx"
    """The artifact's format. ``local`` serves onnx, and reads its inputs and outputs."""
    digest: Digest | None = None
    """What the artifact must be, byte for byte. Required with ``source.url``."""
    target: Name = BUILT_IN_TARGET
    """Where the artifact is kept."""
    options: dict[str, JsonValue] = {}
    """Options of the Target's adapter; it checks them itself."""

    @model_validator(mode="after")
    def _url_is_pinned(self) -> ModelSpec:
        if self.source.url is not None and self.digest is None:
            raise ValueError("source.url needs digest; write the sha256:... of the file")
        return self

    def references(self, namespace: str) -> tuple[Reference, ...]:
        """What must be there first: the Target and, if the source is a Job, that Job's output."""
        found = [Reference(Key("Target", namespace, self.target), "spec.target")]
        if self.source.job is not None:
            key = Key("Job", namespace, self.source.job.name)
            found.append(Reference(key, "spec.source.job", self.source.job.output))
        return tuple(found)

    def named_files(self) -> tuple[tuple[str, str], ...]:
        """(field, path) of the files beside the document that the spec names."""
        return (("spec.source.file", self.source.file),) if self.source.file else ()


class Model(Frozen):
    """An artifact with an identity."""

    api_version: Literal["windlass/v1"]
    kind: Literal["Model"]
    metadata: Metadata
    spec: ModelSpec
    policy: Policy = Policy()
