"""What the double refuses, and how we know: each rule carries ``doc``, ``issue`` or ``guess``.

``doc`` is stated by AWS, ``issue`` was seen in public reports of the live service, ``guess`` is
neither. The words of a guess are never given out: its message is different in every process, so
that no code can come to depend on it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum


class Known(StrEnum):
    """How a rule is known."""

    DOC = "doc"
    ISSUE = "issue"
    GUESS = "guess"


@dataclass(frozen=True)
class Rule:
    """One way in which a request is refused."""

    name: str
    known: Known
    code: str
    text: str
    """With the fields that the message names."""
    status: int = 400
    evidence: str = ""


class Refusal(Exception):
    """An error as AWS answers it."""

    def __init__(
        self, code: str, message: str, status: int = 400, rule: str = "", **extra: str | int
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status, self.rule = code, message, status, rule
        self.extra = extra
        """More members of the error, such as OriginalStatusCode."""


RULES: dict[str, Rule] = {}
_OPAQUE = uuid.uuid4().hex


def rule(
    name: str, known: str, code: str, text: str, evidence: str = "", status: int = 400
) -> Rule:
    """Enter a rule into the ledger."""
    made = Rule(name, Known(known), code, text, status, evidence)
    assert RULES.setdefault(name, made) == made, f"rule {name} twice"
    return made


def refuse(broken: Rule, **fields: object) -> Refusal:
    """The error of a rule. What is guessed is worded so that nobody can match on it."""
    message = broken.text.format(**fields)
    if broken.known is Known.GUESS:
        message = f"[words not known, {_OPAQUE[:8]}] {_scrambled(message)}"
    return Refusal(broken.code, message, broken.status, broken.name)


def not_modelled(what: str) -> Refusal:
    """The double does not know, and says so instead of guessing."""
    return Refusal("NotImplementedByDouble", f"the double does not model {what}", 501)


def _scrambled(message: str) -> str:
    """The same length, and no word of it."""
    return "".join(_OPAQUE[(i * 7) % 32] if c.isalnum() else c for i, c in enumerate(message))
