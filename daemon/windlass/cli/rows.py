"""Objects, events and history as rows of tables: the columns that ``get`` and others print."""

from __future__ import annotations

from windlass.api.views import (
    DaemonView,
    HistoryEntry,
    LoggedEvent,
    ObjectView,
    OrphanView,
)
from windlass.cli.terminal import age, clock_time
from windlass_schemas import Condition, Key

OBJECT_COLUMNS = ("KIND/NAME", "READY", "SYNC", "HEALTH", "REASON", "AGE")
WIDE_COLUMNS = ("GENERATION", "REVISION", "SOURCE")
EVENT_COLUMNS = ("TIME", "KIND/NAME", "CONDITION", "STATUS", "REASON", "MESSAGE")
DAEMON_COLUMNS = ("NAME", "ALIVE", "HOST", "PID", "VERSION", "HELD", "AGE", "DOES")
ORPHAN_COLUMNS = ("TARGET", "WHAT", "AGE", "DOLLARS/H", "MADE-FOR", "COST")
HISTORY_COLUMNS = ("TIME", "GEN", "REVISION", "AUTHOR", "ACTION", "RESULT", "SECONDS", "MESSAGE")


def short_revision(revision: str) -> str:
    """The first characters of a commit or of a digest, enough to tell it by."""
    head, colon, tail = revision.rpartition(":")
    return f"{head}{colon}{tail[:12]}"


def short_key(key: str) -> str:
    """``Kind/name`` in the default namespace."""
    return Key.parse(key).short


def condition_of(view: ObjectView, type_: str) -> Condition | None:
    """The condition, if it speaks of the current generation."""
    found = view.status.condition(type_)
    return found if found and found.observed_generation == view.generation else None


def telling_condition(view: ObjectView) -> Condition | None:
    """The condition that says most about the object now: Stalled when it holds, else Ready."""
    stalled = condition_of(view, "Stalled")
    if stalled is not None and stalled.status == "True":
        return stalled
    return view.status.condition("Ready")


def message_of(view: ObjectView) -> str:
    """What to know about an object, in one line."""
    condition = telling_condition(view)
    said = [condition.message] if condition and condition.message else []
    if view.faults and not any(view.faults[0] in each for each in said):
        said.append(f"newest document is wrong: {view.faults[0]}")
    if view.conflict:
        said.append(f"also declared by {view.conflict}")
    return "; ".join(said)


def object_columns(wide: bool) -> tuple[str, ...]:
    """The headers of ``get``. The message comes last: it alone may hold spaces."""
    return (*OBJECT_COLUMNS, *(WIDE_COLUMNS if wide else ()), "MESSAGE")


def object_row(view: ObjectView, wide: bool) -> tuple[str, ...]:
    """One object as a row of ``get``."""
    ready = condition_of(view, "Ready")
    telling = telling_condition(view)
    row: tuple[str, ...] = (
        short_key(view.key),
        ready.status if ready else "Unknown",
        view.status.sync,
        view.status.health,
        telling.reason if telling else "-",
        age(view.created_at),
    )
    if wide:
        place = f"{view.path}:{view.line}".replace(" ", "%20")
        row += (str(view.generation), short_revision(view.revision), place)
    return (*row, message_of(view))


def event_row(logged: LoggedEvent) -> tuple[str, ...]:
    """One event as a row."""
    event = logged.event
    data = event.data
    return (
        clock_time(event.time),
        short_key(event.subject),
        data.condition,
        data.to_status,
        data.reason,
        data.message,
    )


def history_row(entry: HistoryEntry) -> tuple[str, ...]:
    """One line of the history as a row."""
    return (
        clock_time(entry.at),
        str(entry.generation),
        short_revision(entry.revision),
        "_".join(entry.author.split()),
        entry.action,
        entry.result,
        f"{entry.duration:.3f}",
        entry.message,
    )


def daemon_row(found: DaemonView) -> tuple[str, ...]:
    """One daemon as a row; last, what only it does."""
    does = [*found.leases, *(f"target:{target}" for target in found.targets)]
    return (
        "_".join(found.name.split()),
        "True" if found.alive else "False",
        found.host,
        str(found.pid),
        found.version,
        str(found.held),
        age(found.started_at),
        " ".join(does) or "-",
    )


def orphan_row(found: OrphanView) -> tuple[str, ...]:
    """Something left behind, as a row."""
    hourly = found.dollars_an_hour
    unknown = "0" if found.free else "?"
    return (
        found.target,
        f"{found.role}/{found.name}",
        age(found.since) if found.since else "-",
        unknown if hourly is None else f"{hourly:g}",
        short_key(found.made_for) if found.made_for else "-",
        "nothing; goes by itself" if found.free else found.cost,
    )
