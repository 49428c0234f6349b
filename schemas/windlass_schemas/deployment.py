"""Kind Deployment: a Model served on a Target."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from windlass_schemas.base import Frozen
from windlass_schemas.key import Key
from windlass_schemas.metadata import Metadata
from windlass_schemas.policy import Policy
from windlass_schemas.references import Reference
from windlass_schemas.scalars import Name
from windlass_schemas.target import BUILT_IN_TARGET

MODEL_ARTIFACT = "artifact"
"""The output of a Model that a Deployment takes."""


class DeploymentSpec(Frozen):
    """Which Model, served where."""

    model: Name
    """The Model's name, in the same namespace."""
    target: Name = BUILT_IN_TARGET
    """Where it is served."""
    options: dict[str, JsonValue] = {}
    """Options of the Target's adapter; it checks them itself."""

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
