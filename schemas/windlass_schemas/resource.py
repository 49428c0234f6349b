"""A resource: one document of one kind, and the digest that makes it a new generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue, TypeAdapter

from windlass_schemas.base import digest_of
from windlass_schemas.deployment import Deployment
from windlass_schemas.job import Job
from windlass_schemas.key import Key
from windlass_schemas.model import Model
from windlass_schemas.references import Reference
from windlass_schemas.sweep import Sweep
from windlass_schemas.target import Target

API_VERSION = "windlass/v1"

Resource = Annotated[Target | Model | Deployment | Job | Sweep, Field(discriminator="kind")]

KINDS: Mapping[str, type[Target] | type[Model] | type[Deployment] | type[Job] | type[Sweep]] = {
    "Target": Target,
    "Model": Model,
    "Deployment": Deployment,
    "Job": Job,
    "Sweep": Sweep,
}

_ADAPTER: TypeAdapter[Resource] = TypeAdapter(Resource)


def parse_resource(document: object) -> Resource:
    """Read one document strictly, camelCase names only. Raises pydantic.ValidationError."""
    return _ADAPTER.validate_python(document, by_alias=True, by_name=False)


def parse_canonical(text: str) -> Resource:
    """Read back what ``canonical_json`` of a dumped resource gave. Raises ValidationError."""
    return _ADAPTER.validate_json(text, by_alias=True, by_name=False)


def dump_resource(resource: Resource) -> dict[str, JsonValue]:
    """The canonical JSON form: defaults left out, so that a new default is no change of spec."""
    return resource.model_dump(mode="json", exclude_defaults=True) | {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
    }


def key_of(resource: Resource) -> Key:
    """The key of a resource."""
    return Key(resource.kind, resource.metadata.namespace, resource.metadata.name)


def references_of(resource: Resource) -> tuple[Reference, ...]:
    """Everything that must be Ready first: the spec's own references and ``policy.dependsOn``."""
    named = resource.spec.references(resource.metadata.namespace)
    extra = tuple(
        Reference(dependency.key, f"policy.dependsOn[{i}].ref", condition=dependency.condition)
        for i, dependency in enumerate(resource.policy.depends_on)
    )
    return named + extra


def digest_of_resource(resource: Resource, files: Mapping[str, str]) -> str:
    """What makes a generation: spec, policy and the digests of the files that the spec names.

    ``files`` maps path to ``sha256:...``. Labels and the place of the document do not count.
    """
    return digest_of_dumped(dump_resource(resource), files)


def digest_of_dumped(dumped: Mapping[str, JsonValue], files: Mapping[str, str]) -> str:
    """The same, of a resource that has been dumped already."""
    document = {name: value for name, value in dumped.items() if name != "metadata"}
    return digest_of({"document": document, "files": dict(files)})
