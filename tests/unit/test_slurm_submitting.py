"""Submissions on the login node: several at once, and none that must wait in vain."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from windlass_adapters.slurm.remote.site import Answer, Done, Request, Site
from windlass_adapters.slurm.remote.submitting import submit

TAG = "o" * 16
TOKENS = [f"{n:026d}" for n in range(10)]


def request(root: Path, abreast: int) -> Request:
    """Ten runs without files."""
    for name in ("bin", "cas", "jobs", "trash"):
        (root / name).mkdir(exist_ok=True)
    runs: list[Request] = [
        {
            "tag": TAG,
            "token": token,
            "order": {"uid": "u", "name": "n", "digest": "d"},
            "files": [],
            "texts": {"words": "w"},
            "args": [],
            "array": None,
            "limit": None,
            "previous": [],
            "group": "",
        }
        for token in TOKENS
    ]
    return {
        "root": str(root),
        "nonce": "n",
        "install": "i",
        "runs": runs,
        "blobs": [],
        "batch": "b.sh",
        "max_array": 1001,
        "abreast": abreast,
    }


def answers(
    asked: Request, sbatch: Callable[[str], Done], monkeypatch: pytest.MonkeyPatch
) -> Answer:
    """What each run is told, with a stand-in for sbatch that gets the run's folder."""

    def run(_self: Site, argv: list[str], _timeout: float, **_more: str) -> Done:
        return sbatch(argv[-1]) if argv[0] == "sbatch" else Done(0, b"", "")

    monkeypatch.setattr(Site, "run", run)
    found: Answer = submit(Site(asked), asked, io.BytesIO())["runs"]
    return found


def test_so_many_wait_for_the_controller_at_once_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each says that it is being submitted before its sbatch, and under which id after it."""
    lock, together = threading.Lock(), threading.Barrier(2, timeout=10)
    held = most = 0

    def sbatch(folder: str) -> Done:
        nonlocal held, most
        assert (Path(folder) / "submitting").exists()
        with lock:
            held += 1
            most = max(most, held)
        together.wait()
        with lock:
            held -= 1
        return Done(0, b"%d\n" % (100 + int(Path(folder).name)), "")

    told = answers(request(tmp_path, 2), sbatch, monkeypatch)
    assert most == 2
    assert told == {token: {"id": str(100 + int(token))} for token in TOKENS}
    for token in TOKENS:
        folder = tmp_path / "jobs" / TAG / token
        assert (folder / "jobid").read_text().split()[0] == told[token]["id"]
        assert not (folder / "submit.lock").is_symlink()


@pytest.mark.parametrize("said", ["Unable to contact slurm controller", "Socket timed out"])
def test_a_controller_that_is_away_is_waited_for_once(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have not begun do not begin: there is nothing of them to be looked for."""
    asked: list[str] = []

    def sbatch(folder: str) -> Done:
        asked.append(folder)
        return Done(1, b"", f"sbatch: error: {said}")

    told = answers(request(tmp_path, 1), sbatch, monkeypatch)
    assert len(asked) == 1
    others = [token for token in TOKENS if token != Path(asked[0]).name]
    for token in others:
        assert "Unable to contact slurm controller" in told[token]["error"]
        assert not (tmp_path / "jobs" / TAG / token / "submitting").exists()
        assert not (tmp_path / "jobs" / TAG / token / "submit.lock").is_symlink()


def test_a_run_that_somebody_else_submits_just_now_is_left_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is theirs, and stays."""
    asked = request(tmp_path, 4)

    def refused(_folder: str) -> Done:
        return Done(1, b"", "sbatch: error: Batch job submission failed: Invalid account")

    answers(asked, refused, monkeypatch)
    lock = tmp_path / "jobs" / TAG / TOKENS[0] / "submit.lock"
    lock.symlink_to("login2.17")

    def taken(folder: str) -> Done:
        assert Path(folder).name != TOKENS[0]
        return Done(0, b"7\n", "")

    told = answers(asked, taken, monkeypatch)
    assert told[TOKENS[0]] == {"unclear": "another submission of it is under way"}
    assert all(told[token] == {"id": "7"} for token in TOKENS[1:])
    assert lock.is_symlink()
