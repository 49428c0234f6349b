"""Resolve an object's references from the store: part of hop 4.

An object may be acted on when everything that it refers to is Ready at its current generation, and
everything that those refer to in turn. What it takes from them arrives as artifacts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from windlass.plan import Blocker
from windlass.reading import Reading
from windlass.store.base import Object
from windlass_adapters.base import TerminalError
from windlass_schemas import (
    BEST_PARAMS,
    BUILT_IN_TARGET,
    Artifact,
    Job,
    Key,
    Reason,
    Reference,
    Resource,
    references_of,
)


@dataclass(frozen=True)
class Resolution:
    """What an object's references came to."""

    blockers: tuple[Blocker, ...]
    inputs: dict[str, Artifact]
    """By ``Reference.slot``; complete only without blockers."""


def with_best_params(resource: Resource, inputs: Mapping[str, Artifact]) -> Resource:
    """A Job with the params that its ``bestOf`` has found; its own come first.

    Raises TerminalError when the Sweep's output cannot be read.
    """
    if not isinstance(resource, Job) or resource.spec.best_of is None:
        return resource
    sweep = Key("Sweep", resource.metadata.namespace, resource.spec.best_of)
    found = inputs.get(Reference(sweep, "spec.bestOf", BEST_PARAMS).slot)
    try:
        best = json.loads((found.text if found else None) or "null")
        params = {**best, **resource.spec.params}
        document = resource.model_dump(exclude={"spec": {"params", "best_of"}})
        document["spec"] |= {"params": params}
        return Job.model_validate(document)
    except (ValueError, TypeError) as error:
        raise TerminalError(
            f"spec.bestOf: the best params of {sweep.short} cannot be taken ({error})",
            reason=Reason.INVALID_ARTIFACT,
        ) from None


async def resolve(reading: Reading, object_: Object) -> Resolution:
    """Look every reference up, through to the end of the chain."""
    seen: dict[Key, Object | None] = {object_.key: object_}
    blockers: list[Blocker] = []
    inputs: dict[str, Artifact] = {}
    for reference in references_of(object_.resource):
        blocker = await _check(reading, reference, seen, (object_.key,))
        if blocker is not None:
            blockers.append(blocker)
            continue
        found = seen.get(reference.key)
        if reference.output is None or found is None:
            continue
        artifact = found.status.outputs.get(reference.output)
        if artifact is None:
            known = ", ".join(sorted(found.status.outputs)) or "none"
            message = f"{reference.key} has no output {reference.output!r}; it has: {known}"
            blockers.append(Blocker(reference.key, message))
        else:
            inputs[reference.slot] = artifact
    return Resolution(tuple(blockers), inputs)


async def _check(
    reading: Reading, reference: Reference, seen: dict[Key, Object | None], path: tuple[Key, ...]
) -> Blocker | None:
    key = reference.key
    if key in path:
        circle = " -> ".join(str(k) for k in (*path[path.index(key) :], key))
        return Blocker(key, f"these need each other: {circle}", cycle=True)
    if key not in seen:
        seen[key] = await reading.get(key)
    found = seen[key]
    if found is None:
        if key.kind == "Target" and key.name == BUILT_IN_TARGET:
            return None
        return Blocker(key, f"{key} is not declared ({reference.field})")
    if found.deleting_since is not None:
        return Blocker(key, f"{key} is being deleted")
    for further in references_of(found.resource):
        blocker = await _check(reading, further, seen, (*path, key))
        if blocker is not None:
            return blocker if blocker.cycle else Blocker(key, f"{key} waits: {blocker.message}")
    if found.status.is_true(reference.condition, found.generation):
        return None
    condition = found.status.condition(reference.condition)
    if condition is None:
        return Blocker(key, f"{key} is not {reference.condition} yet")
    if condition.observed_generation != found.generation:
        return Blocker(key, f"{key} has changed and is not {reference.condition} yet")
    why = f"{condition.reason}: {condition.message}"
    return Blocker(key, f"{key} is not {reference.condition}: {why}")
