"""What people type for a kind or an object, and the key that it means."""

from __future__ import annotations

from windlass.cli.failure import Failure, split_hint
from windlass_schemas import KINDS, Key

_SHORT = {"deploy": "Deployment", "dep": "Deployment"}


def kind_of(text: str) -> str:
    """The kind: any case, singular or plural, or a short form. Raises Failure."""
    lower = text.lower()
    for kind in KINDS:
        if lower in {kind.lower(), f"{kind.lower()}s"}:
            return kind
    if lower in _SHORT:
        return _SHORT[lower]
    raise Failure(f"there is no kind {text!r}", f"kinds are {', '.join(KINDS)}")


def key_of(text: str) -> Key:
    """The key of ``KIND/NAME`` or ``KIND/NAMESPACE/NAME``. Raises Failure."""
    kind, slash, rest = text.partition("/")
    if not slash or not rest:
        raise Failure(f"{text!r} names no object", "write KIND/NAME, for example Deployment/wine")
    kind = kind_of(kind)
    try:
        return Key.parse(f"{kind}/{rest}")
    except ValueError as error:
        raise Failure(*split_hint(str(error))) from error


def parse_selector(text: str | None) -> tuple[str | None, Key | None]:
    """``KIND`` or ``KIND/NAME``, or nothing for everything. Raises Failure."""
    if text is None:
        return None, None
    if "/" in text:
        key = key_of(text)
        return key.kind, key
    return kind_of(text), None
