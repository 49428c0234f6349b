"""What all declared and reported values share: frozen, strict, camelCase outside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic.alias_generators import to_camel


class Frozen(BaseModel):
    """A value: immutable, and with no room for a field that nobody reads.

    Documents are validated by alias only (``timeLimit``); code constructs by name (``time_limit``).
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )


def canonical_json(value: JsonValue | Mapping[str, JsonValue]) -> str:
    """The one text of a JSON value: sorted keys, no spaces. Equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: JsonValue | Mapping[str, JsonValue]) -> str:
    """``sha256:<hex>`` of the canonical JSON of a value."""
    return "sha256:" + hashlib.sha256(canonical_json(value).encode()).hexdigest()
