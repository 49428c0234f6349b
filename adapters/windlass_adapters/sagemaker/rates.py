"""Rates from a file that the user keeps.

Windlass asks no price list of AWS: rates differ by contract. Where there is no rate, nothing is
said about costs, and a limit on them is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from windlass_adapters.base import TerminalError
from windlass_schemas import Reason

_RATES = TypeAdapter(dict[str, float])
Fleets = Mapping[str, tuple[str, int]]
"""Instance type and count, by variant."""


@dataclass(frozen=True)
class Rates:
    """Dollars an hour by instance type."""

    by_type: Mapping[str, float]

    def hourly(self, fleets: Fleets) -> float | None:
        """Of all these together; None when a rate is not known."""
        if not fleets or any(type_ not in self.by_type for type_, _ in fleets.values()):
            return None
        return round(sum(self.by_type[type_] * count for type_, count in fleets.values()), 4)


def read_rates(path: str | None) -> Rates:
    """The rates in a YAML or JSON file. Raises TerminalError that says what is wrong."""
    if path is None:
        return Rates({})
    try:
        return Rates(_RATES.validate_python(yaml.safe_load(Path(path).read_text()) or {}))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise TerminalError(
            f"params.rates: {path} cannot be read as dollars an hour by instance type"
            f" ({type(error).__name__}); write lines such as ml.m5.large: 0.115",
            reason=Reason.INVALID_SPEC,
        ) from None


def dollars(amount: float) -> str:
    """As people write it."""
    return f"{amount:.4f}".rstrip("0").rstrip(".") + " $"
