"""JSON Schema of the kinds, for editors: generated from the models, never written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import JsonValue, TypeAdapter

from windlass_schemas.resource import API_VERSION, KINDS, Resource

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ALL = "windlass"
"""Name of the schema that takes a document of any kind."""


def schema_of(kind: str) -> dict[str, JsonValue]:
    """The schema of one kind's documents. Raises KeyError for a kind that there is not."""
    return _headed(kind, TypeAdapter(KINDS[kind]).json_schema(by_alias=True))


def schema_of_all() -> dict[str, JsonValue]:
    """The schema of a document of any kind, told apart by ``kind``."""
    found: TypeAdapter[Resource] = TypeAdapter(Resource)
    return _headed(f"A document of {API_VERSION}", found.json_schema(by_alias=True))


def _headed(title: str, schema: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {"$schema": DIALECT, **schema, "title": title}


def schema_files() -> Mapping[str, str]:
    """Text by file name: one schema for each kind, and one for all."""
    found = {kind.lower(): schema_of(kind) for kind in KINDS} | {ALL: schema_of_all()}
    return {
        f"{name}.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in found.items()
    }
