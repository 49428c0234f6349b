"""What a Job and a Sweep on a sagemaker Target may be told: ``spec.options``. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from windlass_adapters.sagemaker.params import (
    INSTANCE_TYPE,
    KMS_KEY,
    ROLE,
    S3_URI,
    Tags,
    Vpc,
)
from windlass_schemas import Frozen
from windlass_schemas.scalars import Duration


class Spot(Frozen):
    """Cheaper machines that AWS may take back."""

    max_wait: Duration
    """How long the Job may take with all waiting for machines; ``timeLimit`` at least."""
    checkpoints: bool = True
    """Keep ``/opt/ml/checkpoints`` in S3, so that an interrupted Job goes on. Without, it begins
    from the start each time."""


class Transform(Frozen):
    """How a batch transform cuts its input into requests to the model, and joins the answers."""

    content_type: str | None = Field(default=None, min_length=1, max_length=256)
    """What the model is told that a request is, for example ``text/csv``."""
    accept: str | None = Field(default=None, min_length=1, max_length=256)
    """What it is asked to answer with."""
    gzip: bool = False
    """Whether the input is compressed."""
    split: Literal["none", "line", "recordIO", "tfRecord"] = "none"
    """What a record is; with ``none`` a request holds a whole file."""
    strategy: Literal["single", "multi"] | None = None
    """One record in a request, or as many as ``maxPayload`` allows."""
    assemble: Literal["none", "line"] = "none"
    """What goes between the answers of one file."""
    max_payload: int = Field(default=6, ge=0, le=100)
    """MB of a request; 0 for chunks of any size, where the model takes them."""
    max_concurrent: int = Field(default=1, ge=0)
    """Requests at a time to each machine; 0 asks the container."""
    timeout: Duration | None = None
    """How long one request may take: 1 second to 1 hour."""
    retries: int | None = Field(default=None, ge=0, le=3)
    """How often a request is sent again."""
    input_filter: str | None = Field(default=None, min_length=1, max_length=63)
    """A JSONPath: the part of a record that the model gets."""
    output_filter: str | None = Field(default=None, min_length=1, max_length=63)
    """A JSONPath: the part of the answer, or of what was joined, that is kept."""
    join: bool = False
    """Write each record beside its answer."""

    @model_validator(mode="after")
    def _fits(self) -> Transform:
        if self.strategy is not None and self.split == "none":
            raise ValueError("strategy needs split: line, recordIO or tfRecord")
        if self.max_payload * self.max_concurrent > 100:
            raise ValueError("maxPayload times maxConcurrent is 100 MB at most")
        seconds = self.timeout.total_seconds() if self.timeout else 60
        if not 1 <= seconds <= 3600:
            raise ValueError("timeout is 1s at least and 1h at most")
        return self


class JobOptions(Frozen):
    """How a Job, or the children of a Sweep, run on SageMaker."""

    type: Literal["training", "processing"] = "training"
    """What a program runs as. A Job with ``model`` is a batch transform."""
    transform: Transform = Transform()
    """Of a batch transform."""
    instance_type: str | None = Field(default=None, pattern=INSTANCE_TYPE)
    instances: int = Field(default=1, ge=1, le=100)
    """Machines that one attempt has."""
    volume: int = Field(default=30, ge=1, le=16384)
    """GB of storage for each machine."""
    shard: bool = False
    """Give each machine its share of the files of each channel, and not all of them."""
    channels: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")],
        Annotated[str, Field(pattern=S3_URI)],
    ] = {}
    """Data in S3, by name: reaches the program as an input does."""
    metrics: dict[Annotated[str, Field(min_length=1, max_length=255)], str] = {}
    """Numbers that CloudWatch keeps, by name: a regular expression with one group."""
    spot: Spot | None = None
    """Run on spare machines."""
    role: str | None = Field(default=None, pattern=ROLE)
    vpc: Vpc | None = None
    isolated: bool = False
    """No network from inside the container."""
    kms_key: str | None = Field(default=None, pattern=KMS_KEY)
    """The key that encrypts what it leaves in S3 and the storage of its machines."""
    image: str | None = Field(default=None, pattern=r"^\S{1,255}$")
    """The container of the model that a batch transform applies; by default the Target's."""
    tags: Tags = {}
