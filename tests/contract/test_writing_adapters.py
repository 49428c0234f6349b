"""The example in the page on writing adapters passes the kit, just as it stands there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from windlass_adapters.base import Found, Owner
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


async def test_a_check_that_fails_says_what_it_has_found(tmp_path: Path) -> None:
    class Forgetful(TestTheExample):
        def make(self, folder: Path) -> Rig:
            rig = super().make(folder)

            async def find(owner: Owner) -> Sequence[Found]:
                return []

            rig.adapter.find = find  # type: ignore[method-assign]
            return rig

    with pytest.raises(AssertionError, match=r"\[\] == \[\('note', 'default\.wine'\)\]"):
        check = Forgetful()
        await check.test_what_was_made_is_found_by_its_owner_though_the_reply_was_lost(tmp_path)
