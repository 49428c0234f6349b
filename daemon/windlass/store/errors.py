"""What a store says when it cannot do what it is asked for."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot do it. The message says what to do."""


class LeaseLostError(StoreError):
    """Another daemon has taken the object over; nothing was written."""


class AwayError(StoreError):
    """The store cannot be reached, or broke off: what was asked for may have happened or not."""


class ExternalTakenError(StoreError):
    """Another object of ours holds that external; nothing was written."""
