"""The four classes of what a backend may say instead of yes: hops 5 and 7.

An adapter sorts whatever its client library raises into one of them; the kernel decides.

    AdapterError
    +-- TransientError    passes by itself: retried with backoff
    +-- WaitingError      busy, quota, capacity: asked again, no attempt counted
    +-- TerminalError     no retry helps until an input changes: the object is Stalled
    +-- AmbiguousError    the effect may have happened: looked up before anything else
"""

from __future__ import annotations

from datetime import timedelta

from windlass_schemas import Reason


class AdapterError(Exception):
    """A backend said no, or said nothing. The message is for people: what, and what to do."""

    reason: Reason = Reason.BACKEND_UNAVAILABLE
    retry_after: timedelta | None = None
    """When a WaitingError is worth another question, where a poll interval is too soon."""

    def __init__(self, message: str, *, reason: Reason | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class TransientError(AdapterError):
    """Passes by itself: retried with backoff."""


class WaitingError(AdapterError):
    """Busy, out of quota or capacity: asked again, no attempt counted."""

    reason = Reason.WAITING


class TerminalError(AdapterError):
    """No retry helps until the spec or another input changes."""

    reason = Reason.BACKEND_REFUSED


class AmbiguousError(AdapterError):
    """The effect may have happened: look it up by owner before anything else."""


ErrorClass = type[TransientError] | type[WaitingError] | type[TerminalError] | type[AmbiguousError]
