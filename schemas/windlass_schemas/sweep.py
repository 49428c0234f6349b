"""Kind Sweep: a search over a Job's params. Its children are runs of that Job in the backend."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, StrictFloat, StrictInt, StrictStr, model_validator

from windlass_schemas.base import Frozen
from windlass_schemas.job import JobSpec, Word
from windlass_schemas.metadata import Metadata
from windlass_schemas.policy import Policy


class Range(Frozen):
    """What a param may be: ``values``, or all from ``min`` to ``max``."""

    values: tuple[StrictInt | StrictFloat | StrictStr, ...] | None = Field(
        default=None, min_length=1, max_length=30
    )
    """One of these."""
    min: StrictInt | StrictFloat | None = None
    max: StrictInt | StrictFloat | None = None
    """Whole numbers when both bounds are whole, else real ones."""
    scale: Literal["auto", "linear", "logarithmic", "reverseLogarithmic"] = "auto"
    """How values are spread between the bounds."""

    @model_validator(mode="after")
    def _one_form(self) -> Range:
        bounds = (self.min is not None) + (self.max is not None)
        if (self.values is None) == (bounds == 0) or bounds == 1:
            raise ValueError("needs either values, or both min and max")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min is {self.min} and max {self.max}; min must be below max")
        if self.values is not None and self.scale != "auto":
            raise ValueError("scale goes with min and max")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether the bounds are whole numbers."""
        return isinstance(self.min, int) and isinstance(self.max, int)


class Objective(Frozen):
    """What is best: a number that the script prints."""

    metric: str = Field(min_length=1, max_length=255)
    """Its name."""
    goal: Literal["minimize", "maximize"] = "minimize"
    regex: str = Field(min_length=1, max_length=500)
    """Finds the number in the output: the first group."""

    @model_validator(mode="after")
    def _has_a_group(self) -> Objective:
        try:
            groups = re.compile(self.regex).groups
        except re.error as error:
            raise ValueError(f"regex cannot be read ({error})") from None
        if groups != 1:
            raise ValueError(f"regex needs one group (...) around the number; it has {groups}")
        return self


class SweepSpec(JobSpec):
    """A Job's spec, with ranges in place of some params."""

    ranges: dict[Word, Range] = Field(min_length=1, max_length=30)
    """What is searched, by the name of the param."""
    objective: Objective
    """What is best."""
    max_jobs: StrictInt = Field(ge=1, le=750)
    """How many children run in all."""
    max_parallel: StrictInt = Field(default=1, ge=1, le=100)
    """How many at once."""
    sampler: Literal["bayesian", "random", "grid", "hyperband"] = "bayesian"
    """How the next params are chosen."""
    early_stopping: bool = False
    """Whether a child that cannot become the best is stopped."""

    @model_validator(mode="after")
    def _is_a_search(self) -> SweepSpec:
        both = sorted(set(self.ranges) & set(self.params))
        if both:
            raise ValueError(f"{', '.join(both)}: give a param either a value or a range")
        if self.model is not None:
            raise ValueError("a Sweep takes no model; it runs a program with many params")
        if self.best_of is not None:
            raise ValueError("a Sweep takes no bestOf; it is what bestOf names")
        if self.max_parallel > self.max_jobs:
            raise ValueError("maxParallel must not be above maxJobs")
        if self.sampler == "grid" and any(r.values is None for r in self.ranges.values()):
            raise ValueError("the grid sampler takes values only, no min and max")
        return self


class Sweep(Frozen):
    """A search over a Job's params."""

    api_version: Literal["windlass/v1"]
    kind: Literal["Sweep"]
    metadata: Metadata
    spec: SweepSpec
    policy: Policy = Policy()
