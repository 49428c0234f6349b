"""In which order what is due is looked at: hop 3, in a process and in a shared store alike."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """Lower goes first."""

    NEWS = -1
    """A target has told that something changed there: the pass mostly writes down what is known."""
    EDIT = 0
    """A person or an event asked for it."""
    FOLLOW_UP = 1
    """Something that is under way needs its next pass."""
    RESYNC = 2
    """A periodic look, and everything at a start."""
