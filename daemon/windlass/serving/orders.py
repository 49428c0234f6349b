"""Orders: which version somebody wants served, and how; read from the admin API's bodies.

Serves hop 7: the local adapter writes them, ``deployments`` carries them out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from windlass.serving.batching import Batching
from windlass.serving.model import CPU

MAX_THREADS = 256
FIELDS = ("install", "uid", "key", "digest", "model_path")
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Options:
    """How a version is served."""

    threads: int = 1
    """Threads of one inference."""
    replicas: int = 1
    """Inferences that may run at the same time."""
    batching: Batching = field(default_factory=Batching)
    providers: tuple[str, ...] = (CPU,)


@dataclass(frozen=True)
class Order:
    """One version that somebody wants in force, and who."""

    install: str
    uid: str
    key: str
    digest: str
    model_path: Path
    options: Options = field(default_factory=Options)

    @property
    def version(self) -> str:
        """What clients see: the first 12 hex digits of the digest."""
        return self.digest.partition(":")[2][:12]


def parse_order(body: bytes) -> Order:
    """Read the body of a PUT. Raises ValueError that names every wrong member."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("the body must be an object")  # noqa: TRY004 - one error type for callers
    faults = [
        f"{field} must be a text that is not empty"
        for field in FIELDS
        if not isinstance(document.get(field), str) or not document[field]
    ]
    if not faults and not _is_digest(document["digest"]):
        faults.append("digest must be sha256: and 64 lower-case hex digits")
    if not faults and (
        "\0" in document["model_path"] or not Path(document["model_path"]).is_absolute()
    ):
        faults.append("model_path must be an absolute path")
    options = _Members(document.get("options", {}))
    found = _options(options)
    faults += options.faults
    if unknown := sorted(set(document) - {*FIELDS, "options"}):
        faults.append(f"unknown: {', '.join(unknown)}")
    if faults:
        raise ValueError("; ".join(faults))
    install, uid, key, digest, path = (document[field] for field in FIELDS)
    return Order(install, uid, key, digest, Path(path), found)


def _is_digest(text: str) -> bool:
    kind, _, digits = text.partition(":")
    return kind == "sha256" and len(digits) == 64 and set(digits) <= _HEX


def _options(given: _Members) -> Options:
    batching = Batching(
        max_rows=given.whole("max_batch", 32, 1, 4096),
        max_delay=given.number("max_delay", None, 0, 10),
        max_waiting=given.whole("max_waiting", 1024, 1, 1 << 20),
    )
    found = Options(
        threads=given.whole("threads", 1, 1, MAX_THREADS),
        replicas=given.whole("replicas", 1, 0, 1000),
        batching=batching,
        providers=given.texts("providers", (CPU,)),
    )
    given.nothing_else()
    return found


class _Members:
    """Members of an object, taken one by one; what is wrong is gathered in ``faults``."""

    def __init__(self, value: object) -> None:
        self.faults: list[str] = []
        self._left: dict[str, object] = dict(value) if isinstance(value, dict) else {}
        if not isinstance(value, Mapping):
            self.faults.append("options must be an object")

    def _take(self, name: str, right: Callable[[object], bool], rule: str) -> object:
        value = self._left.pop(name, None)
        if value is not None and not right(value):
            self.faults.append(f"options must be right: {name} must be {rule}")
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

    def texts(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of texts that is not empty."""

        def right(value: object) -> bool:
            return isinstance(value, list) and all(isinstance(each, str) for each in value)

        value = self._take(name, right, "a list of texts")
        return tuple(map(str, value)) if isinstance(value, list) and value else default

    def nothing_else(self) -> None:
        """Refuse what nobody has taken."""
        if self._left:
            self.faults.append(f"options must be known: {', '.join(sorted(self._left))} is not")
