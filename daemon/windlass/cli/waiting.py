"""Commands that wait: ``wait`` and ``sync --wait``. Level, not edge: they look until it is so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from rich.status import Status as Spinner

from windlass.api.views import ObjectView, SourceList
from windlass.cli import rows
from windlass.cli.client import Client, NotFoundError
from windlass.cli.failure import ExitCode, Failure
from windlass.cli.naming import key_of
from windlass.cli.terminal import note, say, stderr
from windlass_schemas import Key, format_duration, parse_duration

LOOK = 0.25
"""Seconds between two looks."""
UNDECLARED = 5.0
"""Seconds that an object may be missing before ``wait`` says so, unless a revision is awaited."""
CONDITIONS = ("Ready", "Succeeded", "Stalled", "Reconciling")


class Progress:
    """Says what is waited for: a spinner on a terminal, one line a change anywhere else."""

    def __init__(self, spinner: Spinner | None) -> None:
        self._spinner = spinner
        self._said = ""
        self._started = time.monotonic()

    @classmethod
    @contextmanager
    def shown(cls) -> Iterator[Progress]:
        """Show progress on stderr while inside."""
        console = stderr()
        if console.is_terminal:
            with console.status("") as spinner:
                yield cls(spinner)
        else:
            yield cls(None)

    def say(self, text: str) -> None:
        """What is the case now."""
        if self._spinner is not None:
            self._spinner.update(f"{text} ({time.monotonic() - self._started:.0f}s)")
        elif text != self._said:
            note(text)
        self._said = text

    @property
    def last(self) -> str:
        """What was said last."""
        return self._said


@dataclass(frozen=True)
class Goal:
    """What is waited for."""

    key: Key
    condition: str
    """``Ready``, ``Succeeded``, ``Stalled``, ``Reconciling`` or ``Deleted``."""
    revision: str = ""
    """A revision that the object's source must have reached first."""


def duration_of(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Failure(f"{text!r} is no duration", "write for example 90s, 15m or 1h30m") from error


def wait(client: Client, name: str, condition: str, timeout: str, revision: str) -> None:
    """``windlass wait``. Raises Failure when it is Stalled or the time is over."""
    known = {each.lower(): each for each in (*CONDITIONS, "Deleted")}
    if condition.lower() not in known:
        raise Failure(f"there is no condition {condition!r}", f"say {', '.join(known.values())}")
    goal = Goal(key_of(name), known[condition.lower()], revision)
    client.get("/api/v1/sources", SourceList)  # a daemon must be there when the wait begins
    with Progress.shown() as progress:
        view = _until(client, goal, duration_of(timeout), progress)
    url = f" at {view.status.url}" if view and view.status.url else ""
    said = "deleted" if goal.condition == "Deleted" else goal.condition
    say(f"{goal.key.short} is {said}{url}")


def _until(client: Client, goal: Goal, timeout: timedelta, progress: Progress) -> ObjectView | None:
    """Look until the goal is reached; the object as it then is (None: deleted)."""
    deadline = time.monotonic() + timeout.total_seconds()
    missing_since: float | None = None
    while True:
        try:
            view = client.object(goal.key)
            missing_since = None
            if _reached_revision(client, goal, view, progress):
                if goal.revision:  # what was read before the revision was there says nothing of it
                    view = client.object(goal.key)
                if _done(goal, view, progress):
                    return view
        except NotFoundError:
            if goal.condition == "Deleted":
                return None
            missing_since = missing_since or time.monotonic()
            _check_missing(client, goal, missing_since)
            progress.say(f"{goal.key.short} is not declared yet")
        except Failure as failure:
            if failure.code is not ExitCode.NO_DAEMON:
                raise
            progress.say(f"no daemon answers at {client.server}; waiting for it to come back")
        if time.monotonic() >= deadline:
            raise Failure(
                f"{goal.key.short} is not {goal.condition} after {format_duration(timeout)};"
                f" last: {progress.last or 'nothing'}",
                f"windlass describe {goal.key.short}",
                ExitCode.TIMEOUT,
            )
        time.sleep(LOOK)


def _check_missing(client: Client, goal: Goal, since: float) -> None:
    """An object that no source declares will not come by waiting. Raises Failure."""
    if goal.revision or time.monotonic() - since < UNDECLARED:
        return
    found = client.get("/api/v1/sources", SourceList).sources
    if found and all(source.revision and not source.error for source in found):
        faults = sum(len(source.faults) for source in found)
        raise Failure(
            f"no source declares {goal.key.short}",
            "see what there is: windlass get; to wait for a commit that brings it: --revision"
            + (f" (sources have {faults} faults: windlass validate PATH)" if faults else ""),
        )


def _reached_revision(client: Client, goal: Goal, view: ObjectView, progress: Progress) -> bool:
    if not goal.revision or view.revision.startswith(goal.revision):
        return True
    sources = client.get("/api/v1/sources", SourceList).sources
    here = next((s.revision for s in sources if s.id == view.source), "")
    if here.startswith(goal.revision):
        return True
    progress.say(f"{view.source} is at {rows.short_revision(here)}, not yet at {goal.revision}")
    return False


def _done(goal: Goal, view: ObjectView, progress: Progress) -> bool:
    """Whether the goal is reached at the current generation. Raises Failure when it cannot be."""
    if view.pending:
        progress.say(f"{goal.key.short} is being looked at")
        return False
    if goal.condition != "Deleted" and view.status.is_true(goal.condition, view.generation):
        return True
    stalled = view.status.condition("Stalled")
    if goal.condition != "Stalled" and view.status.is_true("Stalled", view.generation):
        assert stalled is not None
        raise Failure(
            f"{goal.key.short} is Stalled: {stalled.reason}: {stalled.message}",
            f"windlass describe {goal.key.short}",
        )
    if view.suspended:
        progress.say(f"{goal.key.short} is suspended: {view.suspended}")
        return False
    ready = view.status.condition("Ready")
    said = f"{ready.reason}: {ready.message}" if ready else "no pass yet"
    progress.say(f"{goal.key.short} {said}")
    return False


def wait_for_sync(client: Client, key: Key, token: str, timeout: str) -> None:
    """Until a pass has answered the sync, and nothing more is due at once. Raises Failure."""
    limit = duration_of(timeout)
    deadline = time.monotonic() + limit.total_seconds()
    with Progress.shown() as progress:
        while True:
            view = client.object(key)
            if view.status.handled_sync == token and not view.pending:
                break
            progress.say(f"{key.short} is being looked at")
            if time.monotonic() >= deadline:
                raise Failure(
                    f"no pass has answered the sync of {key.short} in {format_duration(limit)}",
                    f"windlass describe {key.short}",
                    ExitCode.TIMEOUT,
                )
            time.sleep(LOOK)
    condition = rows.telling_condition(view)
    if condition is None:
        say(f"{key.short} was looked at")
        return
    say(f"{key.short} {condition.type}={condition.status} {condition.reason}: {condition.message}")
    if condition.type == "Stalled":
        raise Failure(f"{key.short} is Stalled", f"windlass describe {key.short}")
