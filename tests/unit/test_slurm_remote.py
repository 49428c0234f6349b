"""What the program on the login node does with its files: logs, and what it cleans up."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import pytest

from windlass_adapters.slurm.remote.logs import log_piece
from windlass_adapters.slurm.remote.looking import settle, sweep, sweep_programs
from windlass_adapters.slurm.remote.site import Answer, Site


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of a run that goes on."""
    (tmp_path / "log").mkdir()
    return tmp_path / "log" / "stdout"


def piece(log: Path, offset: int, before: bytes = b"") -> Answer:
    """A piece of it, for somebody who has read ``before`` last."""
    return log_piece(str(log.parents[1]), [""], "stdout", offset, before)


def said(told: Answer) -> bytes:
    """What it holds."""
    return base64.b64decode(str(told["data"]))


def test_a_log_that_was_cut_and_has_grown_past_the_old_place_begins_again(log: Path) -> None:
    """Its size does not tell; what stands before the place does."""
    log.write_bytes(b"epoch 1\nepoch 2\n")
    first = piece(log, 0)
    assert (said(first), first["next"]) == (b"epoch 1\nepoch 2\n", 16)
    log.write_bytes(b"begun anew, and more than before\n")
    assert piece(log, 16, b"epoch 2\n") == {"data": "", "next": 0, "cut": True}
    assert said(piece(log, 0)) == b"begun anew, and more than before\n"


def test_a_log_of_the_same_length_with_another_text_begins_again(log: Path) -> None:
    """Nothing new would come otherwise, until it is longer."""
    log.write_bytes(b"epoch 1\n")
    assert piece(log, 8, b"epoch 1\n") == {"data": "", "next": 8}
    log.write_bytes(b"other 1\n")
    assert piece(log, 8, b"epoch 1\n")["cut"] is True


def test_a_log_that_goes_on_goes_on(log: Path) -> None:
    """Also for a daemon that has begun anew and remembers nothing."""
    log.write_bytes(b"epoch 1\nepoch 2\n")
    assert said(piece(log, 8, b"epoch 1\n")) == said(piece(log, 8)) == b"epoch 2\n"
    assert said(piece(log, 0, b"")) == b"epoch 1\nepoch 2\n"


def test_programs_of_versions_that_nobody_uses_are_removed_in_time(tmp_path: Path) -> None:
    """Another daemon's is younger: it says now and then that it uses it."""
    old = time.time() - 1000
    for name in ("bin/remote-old", "bin/remote-new", "bin/remote-other", "trash"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("batch-old.sh", "batch-new.sh"):
        (tmp_path / "bin" / name).write_text("true")
    for path in (tmp_path / "bin").iterdir():
        if path.name != "remote-other":
            os.utime(path, (old, old))
    site = Site({"root": str(tmp_path), "nonce": "n", "install": "i", "bin": None})
    sweep_programs(site, ["remote-new", "batch-new.sh"], 500)
    left = sorted(path.name for path in (tmp_path / "bin").iterdir())
    assert left == ["batch-new.sh", "remote-new", "remote-other"]
    assert all(path.stat().st_mtime > old + 500 for path in (tmp_path / "bin").iterdir())


def test_runs_that_ended_long_ago_go_and_what_they_were_submitted_by_goes_after_the_last(
    tmp_path: Path,
) -> None:
    """A run that is not known to have ended stays, however old it is."""
    first, second = (tmp_path / "jobs" / "owner0owner0" / f"token{n:08}" for n in (1, 2))
    together = tmp_path / "maps" / "wl-both"
    for folder in (first, second, together, tmp_path / "trash"):
        folder.mkdir(parents=True)
    (together / "map").write_text(f"{first}\n{second}\n")
    site = Site({"root": str(tmp_path), "nonce": "n", "install": "i"})

    def age() -> None:
        for path in (*tmp_path.glob("jobs/*/*/fetched"), *tmp_path.glob("maps/*")):
            os.utime(path, (time.time() - 1000,) * 2)

    settle(str(first))
    sweep(site, 500)
    assert first.exists()
    age()
    sweep(site, 500)
    assert (first.exists(), second.exists(), together.exists()) == (False, True, True)
    settle(str(second))
    age()
    sweep(site, 500)
    assert (second.exists(), together.exists()) == (False, False)
    assert list((tmp_path / "trash").iterdir()) == []
