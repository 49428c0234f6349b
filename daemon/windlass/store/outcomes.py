"""What a pass writes: status, records, events, history, and what follows. Hops 7 and 8."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from windlass.priority import Priority
from windlass.store.objects import ExternalRecord, Hold
from windlass_schemas import CloudEvent, Key, Status


@dataclass(frozen=True)
class Entry:
    """One line of the history: who caused what, and how it went."""

    at: datetime
    key: Key
    uid: str
    generation: int
    revision: str
    author: str
    action: str
    """Past tense: ``Declared``, ``Created``, ``Updated``, ``Deleted``, ``Suspended``..."""
    result: str
    """``ok`` or the reason of the error."""
    message: str
    duration: float = 0.0
    """Seconds."""


@dataclass(frozen=True)
class Next:
    """What follows a pass. A store that daemons share keeps it; else a daemon has it."""

    after: float | None = None
    """Seconds until the object is due again; None for never by itself."""
    priority: Priority = Priority.RESYNC
    news: bool = False
    """Whether what stands on the object is due now."""
    wake: tuple[Key, ...] = ()
    """Others that are due now."""
    freed: str = ""
    """The source that can have the key now."""
    home: str | None = None
    """The daemon that alone can go on with it; None leaves that as it is."""


@dataclass(frozen=True)
class Outcome:
    """What a pass writes at its end, all or nothing."""

    status: Status
    externals: tuple[ExternalRecord, ...] = ()
    """New or changed records; records that are not named stay as they are."""
    hold: Hold | None = None
    events: tuple[CloudEvent, ...] = ()
    history: tuple[Entry, ...] = ()
    finalized: bool = False
    """The object is gone: its desired row goes too."""
    next: Next = Next()
