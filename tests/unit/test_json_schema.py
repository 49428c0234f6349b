"""The JSON Schemas for editors are those of the models, and describe every field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue

from windlass_schemas import KINDS
from windlass_schemas.json_schema import schema_files, schema_of, schema_of_all

FOLDER = Path(__file__).resolve().parents[2] / "schemas/windlass_schemas/jsonschema"


def test_the_committed_files_are_what_the_models_give() -> None:
    """After a change of a kind: windlass schema --write schemas/windlass_schemas/jsonschema."""
    held = {file.name: file.read_text() for file in FOLDER.iterdir()}
    assert held == dict(schema_files())


def _models(schema: Mapping[str, JsonValue]) -> Iterator[Mapping[str, JsonValue]]:
    inner = schema.get("$defs", {})
    assert isinstance(inner, dict)
    for each in (schema, *inner.values()):
        if isinstance(each, dict) and "properties" in each:
            yield each


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_has_the_names_of_documents_and_refuses_unknown_fields(kind: str) -> None:
    """camelCase, as the loader takes them; everywhere, not only at the top."""
    text = json.dumps(schema_of(kind))
    assert "apiVersion" in text
    assert "api_version" not in text
    for model in _models(schema_of(kind)):
        assert model["additionalProperties"] is False
        assert model["description"]


def test_one_schema_takes_every_kind() -> None:
    """An editor tells them apart by ``kind``."""
    schema = schema_of_all()
    alternatives = schema["oneOf"]
    assert isinstance(alternatives, list)
    assert len(alternatives) == len(KINDS)
