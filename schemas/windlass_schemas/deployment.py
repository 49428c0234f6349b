"""Kind Deployment: a Model served on a Target."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StrictInt, model_validator

from windlass_schemas.base import Frozen
from windlass_schemas.key import Key
from windlass_schemas.metadata import Metadata
from windlass_schemas.policy import Policy
from windlass_schemas.references import Reference
from windlass_schemas.scalars import Duration, Name
from windlass_schemas.target import BUILT_IN_TARGET

MODEL_ARTIFACT = "artifact"
"""The output of a Model that a Deployment takes."""

Replicas = Annotated[StrictInt, Field(ge=1, le=1000)]
Percent = Annotated[StrictInt, Field(ge=1, le=99)]


class Stabilisation(Frozen):
    """How long a need must last before the replicas follow it."""

    up: Duration = timedelta(0)
    """Before replicas are added."""
    down: Duration = timedelta(seconds=60)
    """Before replicas are taken away. The highest need of this time counts."""


class Autoscaling(Frozen):
    """Replicas that follow the load: as many as bring the metric to its target, min to max."""

    min: Annotated[StrictInt, Field(ge=0, le=1000)] = 1
    """Fewest replicas. With 0 the model leaves the memory when nobody asks, and comes back then."""
    max: Replicas
    """Most replicas."""
    metric: Literal["requestsPerSecond", "concurrency", "latency"] = "requestsPerSecond"
    """Requests a second for each replica, requests at once for each, or milliseconds an answer."""
    target: float = Field(gt=0)
    """The value of the metric that one replica is meant to carry."""
    stabilisation: Stabilisation = Stabilisation()
    """What keeps the number from flapping."""

    @model_validator(mode="after")
    def _min_is_not_above_max(self) -> Autoscaling:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max {self.max}; min must not be above max")
        return self


class Canary(Frozen):
    """A new version takes a share of the requests first, and all of them if it does well."""

    weight: Percent = 10
    """Percent of the requests that the new version answers meanwhile."""
    duration: Duration = timedelta(minutes=5)
    """How long it must do well."""
    min_requests: Annotated[StrictInt, Field(ge=1)] = 20
    """Answers of the new version that are needed for a verdict, however long that takes."""
    max_error_rate: float = Field(default=0.01, ge=0, le=1)
    """Share of its answers that may be server errors; above it the old version comes back."""
    max_latency_ratio: float = Field(default=2.0, ge=1)
    """How many times the old version's p95 latency it may take; above it the old one comes back."""


class Shadow(Frozen):
    """A new version gets copies of requests first; its answers are compared and thrown away."""

    weight: Annotated[StrictInt, Field(ge=1, le=100)] = 100
    """Percent of the requests that are copied."""
    duration: Duration = timedelta(minutes=5)
    """How long it is tried before it takes over."""


class Rollout(Frozen):
    """How a new version takes over; at once, when there is neither of the two."""

    canary: Canary | None = None
    """Answer a share of the requests first."""
    shadow: Shadow | None = None
    """Watch a copy of the requests first."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Rollout:
        if self.canary is not None and self.shadow is not None:
            raise ValueError("takes canary or shadow, not both")
        return self


class Resources(Frozen):
    """What one replica needs."""

    cpus: Annotated[StrictInt, Field(ge=1, le=256)] | None = None
    """Cores that one inference may use."""
    memory: str | None = Field(default=None, pattern=r"^[1-9][0-9]*(Mi|Gi)$")
    """Memory, for example ``512Mi`` or ``4Gi``."""
    gpus: Annotated[StrictInt, Field(ge=0, le=64)] = 0
    """Graphics cards."""


class DeploymentSpec(Frozen):
    """Which Model, served where."""

    model: Name
    """The Model's name, in the same namespace."""
    target: Name = BUILT_IN_TARGET
    """Where it is served."""
    replicas: Replicas | None = None
    """How many serve it; 1 when neither this nor ``autoscaling`` is given."""
    autoscaling: Autoscaling | None = None
    """Let the number of replicas follow the load."""
    rollout: Rollout = Rollout()
    """How a new version takes over from the old one."""
    access: Literal["keys", "public"] | None = None
    """Who may ask: holders of an API key, or anybody. The Target's own rule, when absent."""
    resources: Resources = Resources()
    """What one replica needs."""
    options: dict[str, JsonValue] = {}
    """Options of the Target's adapter; it checks them itself."""

    @model_validator(mode="after")
    def _one_number(self) -> DeploymentSpec:
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError("takes replicas or autoscaling, not both")
        return self

    def references(self, namespace: str) -> tuple[Reference, ...]:
        """What must be there first: the Target and the Model's artifact."""
        return (
            Reference(Key("Target", namespace, self.target), "spec.target"),
            Reference(Key("Model", namespace, self.model), "spec.model", MODEL_ARTIFACT),
        )

    def named_files(self) -> tuple[tuple[str, str], ...]:
        return ()


class Deployment(Frozen):
    """A Model served on a Target."""

    api_version: Literal["windlass/v1"]
    kind: Literal["Deployment"]
    metadata: Metadata
    spec: DeploymentSpec
    policy: Policy = Policy()
