"""Members of a JSON object, taken one by one and checked: for ``orders``. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

W = TypeVar("W", bound=str)


class Members:
    """Members of an object, taken one by one; what is wrong is gathered in ``faults``."""

    def __init__(self, value: object, where: str, faults: list[str] | None = None) -> None:
        self.faults: list[str] = [] if faults is None else faults
        self._where = where
        self._left: dict[str, object] = dict(value) if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            self.faults.append(f"{where} must be an object")

    def _take(self, name: str, right: Callable[[object], bool], rule: str) -> object:
        value = self._left.pop(name, None)
        if value is not None and not right(value):
            self.faults.append(f"{self._where} must be right: {name} must be {rule}")
            return None
        return value

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number in a range."""

        def right(value: object) -> bool:
            return type(value) is int and low <= value <= high

        value = self._take(name, right, f"a whole number from {low} to {high}")
        return value if isinstance(value, int) else default

    def number(self, name: str, default: float | None, low: float, high: float) -> float | None:
        """A number in a range, or nothing."""

        def right(value: object) -> bool:
            return type(value) in (int, float) and low <= float(str(value)) <= high

        value = self._take(name, right, f"a number from {low} to {high}")
        return float(value) if isinstance(value, int | float) else default

    def truth(self, name: str, *, default: bool) -> bool:
        """Yes or no."""
        value = self._take(name, lambda given: isinstance(given, bool), "true or false")
        return value if isinstance(value, bool) else default

    def texts(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of texts that is not empty."""

        def right(value: object) -> bool:
            return isinstance(value, list) and all(isinstance(each, str) for each in value)

        value = self._take(name, right, "a list of texts")
        return tuple(map(str, value)) if isinstance(value, list) and value else default

    def word(self, name: str, words: tuple[W, ...]) -> W:
        """One of some words; the first by default."""
        value = self._take(name, lambda given: given in words, f"one of {', '.join(words)}")
        return next((word for word in words if word == value), words[0])

    def part(self, name: str) -> Members | None:
        """An object inside, or nothing; its faults are gathered here too."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        return Members(value, f"{self._where}.{name}", self.faults)

    def nothing_else(self) -> None:
        """Refuse what nobody has taken."""
        if self._left:
            names = ", ".join(sorted(self._left))
            self.faults.append(f"{self._where} must be known: {names} is not")
