"""The kit's World and documents, under the names that the tests use."""

from __future__ import annotations

from collections.abc import Mapping

from windlass_adapters.testing.documents import deployment, document, job, model
from windlass_adapters.testing.world import SOURCE, World

__all__ = ["SOURCE", "World", "deployment", "document", "effects", "job", "model"]


def effects(world: World) -> Mapping[str, int]:
    """How often each effect happened, whatever the name."""
    found: dict[str, int] = {}
    for (effect, _), count in world.backend.effects.items():
        found[effect] = found.get(effect, 0) + count
    return found
