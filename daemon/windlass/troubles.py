"""What keeps this daemon from its work just now, for people who ask how it is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Troubles:
    """Told by whoever meets them; each is taken back by whoever sees that it is over."""

    store: str = ""
    """Why the store did not take the last write; empty when it did."""
    sources: dict[str, str] = field(default_factory=dict)
    """By source id: why it cannot be read."""
