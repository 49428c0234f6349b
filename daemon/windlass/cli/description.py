"""``windlass describe``: everything about one object, in sections that can be read aloud."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import yaml
from rich.text import Text

from windlass.api.views import HistoryEntry, ObjectView
from windlass.cli import rows
from windlass.cli.terminal import STYLES, age, clock_time, one_line, stdout
from windlass_schemas import Signature

Line = tuple[str, str]


def describe_object(view: ObjectView, history: Sequence[HistoryEntry]) -> None:
    """Print the description."""
    console = stdout()
    for name, value in _head(view):
        console.print(Text(f"{name + ':':<14}").append(value, STYLES.get(value, "")))
    for title, lines in _sections(view, history):
        if lines:
            console.print(Text(f"{title}:", "bold"))
            for line in lines:
                console.print(Text(f"  {line}"))


def _head(view: ObjectView) -> Iterator[Line]:
    status = view.status
    yield "Object", rows.short_key(view.key)
    yield "UID", view.uid
    yield "Generation", f"{view.generation} (observed {status.observed_generation})"
    yield "Revision", f"{view.revision} by {view.author}" if view.author else view.revision
    yield "Source", f"{view.source} {view.path}:{view.line}"
    yield "Declared", f"{clock_time(view.generation_at)} ({age(view.generation_at)} ago)"
    yield "Sync", status.sync
    yield "Health", status.health
    if view.suspended:
        yield "Suspended", view.suspended
    if view.deleting_since:
        yield "Deleting", f"since {clock_time(view.deleting_since)}"
    if view.prune:
        yield "Prune", f"{view.prune}: the document is gone"
    if view.conflict:
        yield "Conflict", f"{view.conflict} declares it too"
    if status.url:
        yield "URL", status.url
    if status.attempt:
        due = f", next {clock_time(status.next_attempt_at)}" if status.next_attempt_at else ""
        yield "Attempts", f"{status.attempt} failed{due}"


def _sections(
    view: ObjectView, history: Sequence[HistoryEntry]
) -> Iterator[tuple[str, Sequence[str]]]:
    status = view.status
    yield "Faults", view.faults
    yield (
        "Conditions",
        [
            f"{c.type:<12} {c.status:<8} {c.reason:<22} {age(c.last_transition_time):>6}"
            f"  {one_line(c.message)}"
            + ("" if c.observed_generation == view.generation else " (of an older generation)")
            for c in status.conditions
        ],
    )
    yield (
        "Holds",
        [
            f"{e.role:<10} {e.name}  {e.state}  attempt {e.attempt}"
            + (f"  {one_line(e.message)}" if e.message else "")
            for e in status.externals
        ],
    )
    yield (
        "Outputs",
        [f"{name:<12} {a.digest}  {a.size} bytes  {a.name}" for name, a in status.outputs.items()],
    )
    yield "Signature", _signature(status.signature)
    if status.detail:
        yield "Detail", _block(dict(status.detail))
    yield "Spec", _block(view.spec)
    if view.policy:
        yield "Policy", _block(view.policy)
    yield (
        "History",
        [
            f"{clock_time(e.at)}  {e.action:<20} {e.result:<8} {one_line(e.message)}"
            for e in history
        ],
    )


def _signature(signature: Signature | None) -> list[str]:
    if signature is None:
        return []
    return [
        f"{way:<7} {tensor.name}: {tensor.datatype} {list(tensor.shape)}"
        for way, tensors in (("input", signature.inputs), ("output", signature.outputs))
        for tensor in tensors
    ]


def _block(value: object) -> list[str]:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text.splitlines()
