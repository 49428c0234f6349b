"""The example in the page on writing adapters passes the kit, just as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from windlass_adapters.testing.contract import AdapterContract, Rig

PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "writing.md"


class TestTheExample(AdapterContract):
    """Runs all Python of the page, and then the rig that it has defined."""

    def make(self, folder: Path) -> Rig:
        code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
        defined: dict[str, object] = {"__name__": "example"}
        exec(compile(code, str(PAGE), "exec"), defined)
        rig = defined["NotesRig"]
        assert isinstance(rig, type)
        made: Rig = rig(folder)
        return made
