"""The conformance kit: proof that a thing declared once exists once, for any adapter.

- ``backend``, ``adapter``: a backend in memory with real ``faults``, in three personalities.
- ``documents``, ``world``: the real reconciler and the real SQLite store around an adapter.
- ``oracles``: the five questions that are asked after everything.
- ``schedules``, ``stories``, ``owners``: crash at every await, and two owners interleaved.
- ``contract``: ``AdapterContract``, to subclass in about five lines.

Only ``backend`` and ``adapter`` are imported here, so that a look at the fake costs no kernel.
"""

import sys

from windlass_adapters.testing.adapter import MemoryAdapter
from windlass_adapters.testing.backend import MemoryBackend
from windlass_adapters.testing.held import Held
from windlass_adapters.testing.personality import (
    DETERMINISTIC,
    PERSONALITIES,
    SERVER_CHOSEN,
    SLURM_LIKE,
    Personality,
)

if "pytest" in sys.modules:  # then a failed check says what it has found, as in one's own tests
    import pytest

    pytest.register_assert_rewrite(f"{__name__}.contract")

__all__ = [
    "DETERMINISTIC",
    "PERSONALITIES",
    "SERVER_CHOSEN",
    "SLURM_LIKE",
    "Held",
    "MemoryAdapter",
    "MemoryBackend",
    "Personality",
]
