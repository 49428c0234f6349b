"""Let adapters check their own fields early: hop 1, for ``spec.params`` and ``spec.options``.

What cannot be known here, because the adapter is not installed on this machine, is no fault: the
daemon that runs it says so in a condition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache

from pydantic import BaseModel, JsonValue, ValidationError

from windlass.registry import Registry
from windlass.sources.document import field_text
from windlass.sources.wording import explain_fields
from windlass_adapters.base import Adapter, AdapterError, ChecksSpecs
from windlass_schemas import BUILT_IN_TARGET, DEFAULT_NAMESPACE, Key, Resource, Target

BUILT_IN_ADAPTER = "local"

Lookup = Callable[[Key], Resource | None]
Finding = tuple[str, str]
"""(field path, what is wrong and what to write instead)."""


def adapter_check(registry: Registry) -> Callable[[Resource, Lookup], Iterable[Finding]]:
    """A check of one resource by the adapter that would serve it."""

    def check(resource: Resource, lookup: Lookup) -> Iterable[Finding]:
        if isinstance(resource, Target):
            adapter = _installed(registry, resource.spec.adapter)
            if adapter is not None:
                yield from _faults(adapter.params_model, resource.spec.params, "spec.params")
            return
        name = _adapter_of(resource.metadata.namespace, resource.spec.target, lookup)
        adapter = _installed(registry, name) if name else None
        if adapter is None:
            return
        options = adapter.options_models.get(resource.kind)
        if options is None:
            kinds = ", ".join(sorted(adapter.options_models))
            yield "spec.target", f"the adapter {name} takes no {resource.kind}; it takes {kinds}"
        else:
            yield from _faults(options, resource.spec.options, "spec.options")
            checks = _checks_specs(adapter)
            if checks is not None:
                yield from checks.faults(resource)

    return check


@cache
def _checks_specs(adapter: type[Adapter]) -> type[ChecksSpecs] | None:
    """The adapter, if it does. Asked once: to ask it of a class takes longer than most checks."""
    return adapter if isinstance(adapter, ChecksSpecs) else None


def _adapter_of(namespace: str, target: str, lookup: Lookup) -> str | None:
    """The adapter's name; None when the Target is declared elsewhere."""
    declared = lookup(Key("Target", namespace, target))
    if declared is None and target == BUILT_IN_TARGET:
        declared = lookup(Key("Target", DEFAULT_NAMESPACE, target))
        if declared is None:
            return BUILT_IN_ADAPTER
    return declared.spec.adapter if isinstance(declared, Target) else None


def _installed(registry: Registry, name: str) -> type[Adapter] | None:
    try:
        return registry.get(name)
    except AdapterError:
        return None


def _faults(
    model: type[BaseModel], values: Mapping[str, JsonValue], field: str
) -> Iterable[Finding]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        for wrong in explain_fields(error, values, model):
            yield field_text((field, *wrong.path)), wrong.message
