"""What the program on the login node does with its files: logs, and what it cleans up."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass_adapters.slurm.remote.blobs import blob_path, have, put_blob
from windlass_adapters.slurm.remote.files import A_DAY
from windlass_adapters.slurm.remote.logs import log_piece
from windlass_adapters.slurm.remote.looking import settle
from windlass_adapters.slurm.remote.site import Answer, Site
from windlass_adapters.slurm.remote.staging import stage
from windlass_adapters.slurm.remote.sweeping import sweep, sweep_contents, sweep_programs


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
    sweep(site, [], 500)
    assert first.exists()
    age()
    sweep(site, [], 500)
    assert (first.exists(), second.exists(), together.exists()) == (False, True, True)
    settle(str(second))
    age()
    sweep(site, [], 500)
    assert (second.exists(), together.exists()) == (False, False)
    assert list((tmp_path / "trash").iterdir()) == []


def digest_of(data: bytes) -> str:
    """As files over there are called."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_a_file_that_no_run_was_made_of_for_long_goes(tmp_path: Path) -> None:
    """One that a run's folder has by another name stays, and one that was asked for lately."""
    site = Site({"root": str(tmp_path), "nonce": "n", "install": "i"})
    idle, held, asked, fresh = (digest_of(data) for data in (b"1", b"2", b"3", b"4"))
    for data in (b"1", b"2", b"3", b"4"):
        put_blob(site, digest_of(data), data)
    folder = tmp_path / "jobs" / "owner0owner0" / "token000001"
    run = {"token": folder.name, "files": [["image.sif", held, 0o444, "link"]], "texts": {}}
    assert stage(site, str(folder), {**run, "array": [], "previous": [], "order": {}}) is None
    for digest in (idle, held, asked):
        os.utime(blob_path(site, digest), (time.time() - 1000,) * 2)
    sweep_contents(site, 5000)
    assert have(site, {"digests": [idle, held, asked, fresh]}, io.BytesIO()) == {"missing": []}

    for digest in (idle, held, asked):
        os.utime(blob_path(site, digest), (time.time() - 2 * A_DAY,) * 2)
    assert have(site, {"digests": [asked]}, io.BytesIO()) == {"missing": []}
    sweep_contents(site, A_DAY)
    assert have(site, {"digests": [idle, held, asked, fresh]}, io.BytesIO()) == {"missing": [idle]}
    shutil.rmtree(folder)
    os.utime(blob_path(site, held), (time.time() - 2 * A_DAY,) * 2)
    sweep_contents(site, A_DAY)
    assert have(site, {"digests": [held, asked]}, io.BytesIO()) == {"missing": [held]}


def test_uploads_and_pulls_that_nobody_goes_on_with_go(tmp_path: Path) -> None:
    """And the name of an image, once its file has gone."""
    site = Site({"root": str(tmp_path), "nonce": "n", "install": "i"})
    for name in ("cas/.part-5", "images/part.7.1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half of a fil")
    for name in ("trash", "images/part.7.1.cache", "images/00.lock"):
        (tmp_path / name).mkdir()
    (tmp_path / "images" / "gone").symlink_to("../cas/sha256/00/00")
    (tmp_path / "images" / "there").symlink_to("../trash")
    sweep_contents(site, 500)
    left = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert left == ["00.lock", "part.7.1", "part.7.1.cache", "there"]
    for path in (*(tmp_path / "images").iterdir(), tmp_path / "cas" / ".part-5"):
        os.utime(path, (time.time() - 1000,) * 2, follow_symlinks=False)
    sweep_contents(site, 500)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["there"]
    assert list((tmp_path / "cas").iterdir()) == []


class SweptOnceLookedAt(list[list[object]]):
    """The files of a run; between the look at them and their use somebody removes one."""

    def __init__(self, files: list[list[object]], removed: str) -> None:
        super().__init__(files)
        self._removed = Path(removed)
        self._looks = 0

    def __iter__(self) -> Iterator[list[object]]:
        self._looks += 1
        if self._looks == 2:
            self._removed.unlink()
        return super().__iter__()


def test_a_file_that_is_swept_while_a_run_is_laid_out_is_asked_for_again(tmp_path: Path) -> None:
    """Nothing of the folder stays: the next attempt finds it as it was."""
    site = Site({"root": str(tmp_path), "nonce": "n", "install": "i"})
    digest = digest_of(b"1")
    put_blob(site, digest, b"1")
    folder = tmp_path / "jobs" / "owner0owner0" / "token000001"
    files = SweptOnceLookedAt([["in/x", digest, 0o600, "copy"]], blob_path(site, digest))
    run = {"token": folder.name, "files": files, "texts": {}}
    answer = stage(site, str(folder), {**run, "array": [], "previous": [], "order": {}})
    assert answer == {"missing": [digest]}
    assert list(folder.parent.iterdir()) == []
