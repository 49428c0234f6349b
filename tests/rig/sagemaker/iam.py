"""IAM: evaluates policies on each call, and knows what of them was never used."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rig.sagemaker.account import Account
from rig.sagemaker.permissions import Need, needs
from rig.sagemaker.refusals import Refusal
from rig.sagemaker.shapes import Json
from rig.sagemaker.wire import Asked


@dataclass(frozen=True)
class Statement:
    """One statement of a policy document."""

    sid: str
    allows: bool
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, tuple[str, ...]]]

    def covers(self, need: Need) -> str | None:
        """The action pattern by which it speaks of a need; None when it does not."""
        if not any(_like(need.arn, resource) for resource in self.resources):
            return None
        if not all(_holds(test, keys, need) for test, keys in self.conditions.items()):
            return None
        return next((a for a in self.actions if _like(need.action.lower(), a.lower())), None)


@dataclass
class Iam:
    """The policies in force for the principal of the daemon; none: everything is allowed."""

    account: Account
    principal: str
    statements: list[Statement] = field(default_factory=list)
    used: set[tuple[str, str]] = field(default_factory=set)
    """Statement and action pattern."""
    denied: list[Need] = field(default_factory=list)

    def enforce(self, *policies: Json | Path, **variables: str) -> None:
        """From now on only what these allow. ``variables`` fill ``${name}`` in a file."""
        for policy in policies:
            document = _load(policy, variables) if isinstance(policy, Path) else policy
            self.statements += [_statement(s, n) for n, s in enumerate(document["Statement"])]

    def permits(self, asked: Asked, request: Json, principal: str) -> None:
        """Raises Refusal for what is not allowed."""
        if not self.statements or principal != self.principal:
            return
        for need in needs(self.account, asked, request):
            if not self._allowed(need):
                self.denied.append(need)
                raise Refusal(
                    "AccessDeniedException" if asked.protocol != "rest-xml" else "AccessDenied",
                    f"User: {principal} is not authorized to perform: {need.action} on resource: "
                    f"{need.arn} because no identity-based policy allows the {need.action} action",
                    403 if asked.protocol == "rest-xml" else 400,
                    "iam",
                )

    def _allowed(self, need: Need) -> bool:
        found = [(s, s.covers(need)) for s in self.statements]
        if any(pattern and not s.allows for s, pattern in found):
            return False
        allowing = [(s.sid, pattern) for s, pattern in found if pattern and s.allows]
        self.used.update(allowing)
        return bool(allowing)

    def unused(self) -> list[str]:
        """What the policies allow and nothing has needed so far."""
        return sorted(
            f"{statement.sid}: {action}"
            for statement in self.statements
            if statement.allows
            for action in statement.actions
            if (statement.sid, action) not in self.used
        )


def _load(path: Path, variables: Mapping[str, str]) -> Json:
    text = path.read_text()
    for name, value in variables.items():
        text = text.replace(f"${{{name}}}", value)
    loaded: Json = json.loads(text)
    return loaded


def _statement(body: Json, number: int) -> Statement:
    return Statement(
        body.get("Sid", f"#{number}"),
        body["Effect"] == "Allow",
        _many(body["Action"]),
        _many(body["Resource"]),
        {
            test: {key.lower(): _many(values) for key, values in keys.items()}
            for test, keys in body.get("Condition", {}).items()
        },
    )


def _many(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _like(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def _holds(test: str, keys: Mapping[str, tuple[str, ...]], need: Need) -> bool:
    optional = test.endswith("IfExists")
    test = test.removesuffix("IfExists").rpartition(":")[2]
    compare = _TESTS.get(test)
    if compare is None and test != "Null":
        raise NotImplementedError(f"the double does not know the condition {test}")
    for key, values in keys.items():
        held = need.context.get(key)
        if test == "Null":
            if (held is None) != (values[0] == "true"):
                return False
        elif held is None:
            if not optional:
                return False
        elif compare is not None and not any(compare(held, value) for value in values):
            return False
    return True


_TESTS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda held, value: held == value,
    "StringEqualsIgnoreCase": lambda held, value: held.lower() == value.lower(),
    "StringLike": _like,
    "ArnLike": _like,
    "ArnEquals": _like,
}
