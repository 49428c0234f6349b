"""``windlass down``: what serves ends on purpose, and not beside a daemon."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rig.command_line import windlass
from rig.serving import Serving, until


def serving_folder(state: Path) -> Path:
    return state / "targets/default/local/serving"


async def down(state: Path) -> tuple[int, str]:
    done = await windlass("down", "--state", str(state))
    return done.code, done.out + done.err


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_it_ends_what_serves_and_says_so(tmp_path: Path, processes: str) -> None:
    with Serving(serving_folder(tmp_path), 0, "--processes", processes) as serving:
        pid = serving.process.pid
        code, said = await down(tmp_path)
        assert (code, said.strip()) == (0, f"default/local: process {pid} has ended")
        assert serving.process.wait(10) == 0
    assert await down(tmp_path) == (0, "nothing serves\n")


async def test_it_finds_processes_whose_supervisor_was_killed(tmp_path: Path) -> None:
    with Serving(serving_folder(tmp_path), 0, "--processes", "2") as serving:
        (worker,) = (serving.state / "workers").glob("*")
        pid = json.loads((worker / "serving.json").read_text())["pid"]
        serving.kill()
        code, said = await down(tmp_path)
        assert (code, said.strip()) == (0, f"default/local: process {pid} has ended")


async def test_beside_a_daemon_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text(json.dumps({"pid": os.getpid(), "api": "http://x"}))
    with Serving(serving_folder(tmp_path)) as serving:
        code, said = await down(tmp_path)
        assert code == 1
        assert f"the daemon (process {os.getpid()}) runs" in said
        assert serving.process.poll() is None
        (tmp_path / "daemon.json").write_text(json.dumps({"pid": 2**22 - 1, "api": "http://x"}))
        assert (await down(tmp_path))[0] == 0
        until(lambda: serving.process.poll() == 0, "it ends")
