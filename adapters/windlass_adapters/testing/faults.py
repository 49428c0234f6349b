"""What goes wrong between an adapter and its backend: refusals, lost requests, lost replies."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from windlass_adapters.base import AmbiguousError, TerminalError, TransientError, WaitingError


@dataclass(kw_only=True)
class Faults:
    """Armed by a test, met by the next calls. Part of a backend."""

    calls: Counter[str] = field(default_factory=Counter)
    """How often each operation was asked for, by its name."""
    faults: dict[str, deque[Exception]] = field(default_factory=dict)
    """Exceptions to raise instead of answering, by operation."""
    lost_replies: Counter[str] = field(default_factory=Counter)
    """How many of the next calls have their effect and no reply, by operation."""

    def fail(self, operation: str, *errors: Exception) -> None:
        """Let the next calls of an operation raise these, before any effect."""
        self.faults.setdefault(operation, deque()).extend(errors)

    def lose_request(self, operation: str, count: int = 1) -> None:
        """Let the next calls never arrive; the caller cannot tell."""
        self.fail(operation, *[AmbiguousError(f"no reply to {operation}")] * count)

    def lose_reply(self, operation: str, count: int = 1) -> None:
        """Let the next calls have their effect, and the caller not hear of it."""
        self.lost_replies[operation] += count

    def call(self, operation: str) -> None:
        """Count a call, and raise the fault that is armed for it."""
        self.calls[operation] += 1
        armed = self.faults.get(operation)
        if armed:
            raise armed.popleft()

    def reply(self, operation: str) -> None:
        """Lose the reply, if that is armed."""
        if self.lost_replies[operation] > 0:
            self.lost_replies[operation] -= 1
            raise AmbiguousError(f"no reply to {operation}")


def throttled() -> Exception:
    """The backend wants fewer calls."""
    return TransientError("throttled: too many calls; asked again later")


def out_of_quota() -> Exception:
    """There is no room for more just now."""
    return WaitingError("the quota is used up; asked again")


def denied() -> Exception:
    """Who we say we are is not believed, or may not do this."""
    return TerminalError("access denied; renew the target's credentials")
