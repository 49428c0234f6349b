"""A scenario of real processes: a daemon that stalled starts a run that its successor has started.

What starts a run decides nothing; the run's own claim does. So this is told to the real runner.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rig.local import LocalTarget, settled, start, until
from rig.scenarios import Scenario
from windlass_adapters.local.processes import marked
from windlass_adapters.local.starting import Starter
from windlass_adapters.testing.oracles import EndState
from windlass_adapters.testing.world import World

SCRIPT = "open('../started', 'a').write('x')"


async def _nothing(_world: World, _disturbed: bool) -> None:
    return None


def runners(folder: Path) -> list[str]:
    """Those that were started for a folder and have not ended, by their pid."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder).encode() in (place / "cmdline").read_bytes():
                found.append(place.name)
    return found


@dataclass(frozen=True)
class SecondStart(Scenario):
    """One run, started twice."""

    async def reference(self) -> EndState:
        """A run that was started once has started once."""
        return EndState((), (), ())

    async def examine(self, reference: EndState) -> None:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # two may still write
            target = LocalTarget(Path(name))
            async with target.adapter() as adapter:
                desired = target.script(SCRIPT)
                found = await start(adapter, desired)
                folder = target.state / "runs" / found.external.name
                second = Starter(target.root / "second")
                await asyncio.to_thread(second.start, folder, {"environment": {}, "secrets": []})
                await asyncio.to_thread(second.close)
                await settled(adapter, desired.owner, found.external)
                await until(
                    lambda: not runners(folder) and not marked(folder),
                    "the end of everything that was started",
                )
            started = len((folder / "started").read_text())
            assert started == 1, f"(b) one run was started {started} times"


SECOND_START = SecondStart("a run is started twice", _nothing)
