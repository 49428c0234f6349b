"""Kind Target: a place where things run. The Target ``local`` is always there."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from windlass_schemas.base import Frozen
from windlass_schemas.metadata import Metadata
from windlass_schemas.policy import Policy
from windlass_schemas.references import Reference

BUILT_IN_TARGET = "local"


class TargetSpec(Frozen):
    """Which adapter, and what that adapter needs to know."""

    adapter: str = Field(min_length=1)
    """The adapter's entry-point name, for example ``local``."""
    params: dict[str, JsonValue] = {}
    """The adapter's own parameters; it checks them itself. Secrets by reference only."""

    def references(self, namespace: str) -> tuple[Reference, ...]:
        return ()

    def named_files(self) -> tuple[tuple[str, str], ...]:
        return ()


class Target(Frozen):
    """A place where things run."""

    api_version: Literal["windlass/v1"]
    kind: Literal["Target"]
    metadata: Metadata
    spec: TargetSpec
    policy: Policy = Policy()
