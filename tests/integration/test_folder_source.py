"""The source of saved files, with real folders: edits, half-saved files, roots that come and go."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest

from following import following, names
from specs_text import Keeper, job
from windlass.sources import folder as folder_module
from windlass.sources import watch as watch_module
from windlass.sources.base import Source, SourceUnavailableError
from windlass.sources.folder import FolderSource
from windlass.sources.opening import open_source


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    return tmp_path / "specs"


async def opened(path: Path, keeper: Keeper | None = None) -> Source:
    return await open_source(path, worktree=True, keep=keeper or Keeper())


async def test_a_saved_file_is_seen_within_a_second_and_equal_sets_have_equal_revisions(
    root: Path,
) -> None:
    (root / "a.yaml").write_text(job("a"))
    source = await opened(root)
    assert isinstance(source, FolderSource)
    assert source.id == f"folder:{root}"
    async with following(source) as seen:
        first = await seen.snapshot()
        assert first.revision.startswith("worktree:")
        assert len(first.revision) == len("worktree:") + 12
        begin = time.monotonic()
        (root / "b.yaml").write_text(job("b"))
        second = await seen.snapshot()
        assert time.monotonic() - begin < 1
        assert names(second) == ["a", "b"]
        (root / "b.yaml").unlink()
        third = await seen.snapshot()
        assert third.revision == first.revision


async def test_an_edited_script_is_a_new_revision_and_a_touched_one_is_none(root: Path) -> None:
    (root / "a.yaml").write_text(job("a", "entrypoint: train.py"))
    (root / "train.py").write_text("1")
    async with following(await opened(root)) as seen:
        first = await seen.snapshot()
        os.utime(root / "train.py")
        (root / "notes.txt").write_text("not a spec")
        (root / "train.py").write_text("2")
        second = await seen.snapshot()
        assert first.documents[0].digest != second.documents[0].digest
        assert seen.queue.empty()


async def test_a_file_that_is_being_saved_is_left_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "CALM", 0.3)
    (root / "a.yaml").write_text(job("a"))
    text = job("b") + "---\n" + job("c")
    async with following(await opened(root)) as seen:
        await seen.snapshot()
        with (root / "b.yaml").open("w") as file:
            for character in text:
                file.write(character)
                file.flush()
                await asyncio.sleep(0.01)
        found = await seen.snapshot()
        assert (names(found), found.faults) == (["a", "b", "c"], ())


async def test_a_file_that_is_cut_short_while_it_is_saved_removes_nothing(root: Path) -> None:
    text = job("a") + "---\n" + job("b")
    (root / "a.yaml").write_text(text)
    async with following(await opened(root)) as seen:
        await seen.snapshot()
        (root / "a.yaml").write_text(job("a"))
        await asyncio.sleep(0.4)  # an editor that is slower than two scans
        (root / "a.yaml").write_text(text + "---\n" + job("c"))
        assert names(await seen.snapshot()) == ["a", "b", "c"]


async def test_a_removed_root_is_unavailable_and_a_new_one_is_followed(root: Path) -> None:
    (root / "a.yaml").write_text(job("a"))
    async with following(await opened(root)) as seen:
        await seen.snapshot()
        shutil.rmtree(root)
        assert await seen.failure() == (
            f"{root} does not exist; put the folder back and Windlass goes on."
            " Nothing is removed meanwhile"
        )
        await asyncio.to_thread(root.mkdir)
        (root / "a.yaml").write_text(job("a"))
        assert names(await seen.snapshot()) == ["a"]
        (root / "b.yaml").write_text(job("b"))
        assert names(await seen.snapshot(1)) == ["a", "b"]


async def test_without_notifications_the_folder_is_polled_and_a_note_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> object:
        raise OSError("OS file watch limit reached.")

    monkeypatch.setattr(watch_module, "RustNotify", refuse)
    monkeypatch.setattr(folder_module, "POLL", 0.1)
    (root / "a.yaml").write_text(job("a"))
    source = await opened(root)
    async with following(source) as seen:
        await seen.snapshot()
        async with asyncio.timeout(5):
            while not source.notes():  # notes have no event
                await asyncio.sleep(0.01)
        assert "OS file watch limit reached" in source.notes()[0]
        assert "raise fs.inotify.max_user_watches" in source.notes()[0]
        (root / "b.yaml").write_text(job("b"))
        assert names(await seen.snapshot()) == ["a", "b"]


async def test_a_lost_notification_costs_time_and_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    class Deaf(watch_module.Watch):
        def _start(self) -> None:
            """Watches nothing, and says nothing of it."""

    monkeypatch.setattr(folder_module, "Watch", Deaf)
    monkeypatch.setattr(folder_module, "RESCAN", 0.2)
    (root / "a.yaml").write_text(job("a"))
    async with following(await opened(root)) as seen:
        await seen.snapshot()
        (root / "b.yaml").write_text(job("b"))
        assert names(await seen.snapshot()) == ["a", "b"]


async def test_new_folders_and_files_that_lie_in_ignored_ones_are_watched(root: Path) -> None:
    (root / ".windlassignore").write_text("data/\n")
    (root / "data").mkdir()
    (root / "data/x.csv").write_text("1")
    (root / "a.yaml").write_text(job("a", "command: [x]\n  files: [data/x.csv]"))
    async with following(await opened(root)) as seen:
        await seen.snapshot()
        (root / "data/x.csv").write_text("2")
        await seen.snapshot(5)
        (root / "new/deep").mkdir(parents=True)
        (root / "new/deep/b.yaml").write_text(job("b"))
        assert names(await seen.snapshot(5)) == ["a", "b"]
        (root / "new/deep/b.yaml").write_text(job("c"))
        assert names(await seen.snapshot(5)) == ["a", "c"]


async def test_a_root_that_is_exchanged_at_once_is_followed(root: Path, tmp_path: Path) -> None:
    (root / "a.yaml").write_text(job("a"))
    async with following(await opened(root)) as seen:
        await seen.snapshot()
        for name in ("b", "c"):
            shutil.copytree(root, tmp_path / name)
            (tmp_path / name / "a.yaml").write_text(job(name))
            await asyncio.to_thread(root.rename, tmp_path / f"old-{name}")
            await asyncio.to_thread((tmp_path / name).rename, root)
            assert names(await seen.recovery()) == [name]


async def test_a_new_windlassignore_takes_effect(root: Path) -> None:
    (root / "a.yaml").write_text(job("a"))
    (root / "b.yaml").write_text(job("b"))
    async with following(await opened(root)) as seen:
        await seen.snapshot()
        (root / ".windlassignore").write_text("b.yaml\n")
        assert names(await seen.snapshot()) == ["a"]


async def test_a_file_swapped_for_a_link_or_a_fifo_is_never_followed(root: Path) -> None:
    (root / "a.yaml").write_text(job("a", "entrypoint: train.py"))
    (root / "train.py").write_text("1")
    secret = root.parent / "secret"
    secret.write_text("secret")
    keeper = Keeper()
    async with following(await opened(root, keeper)) as seen:
        assert names(await seen.snapshot()) == ["a"]
        (root / "train.py").unlink()
        (root / "train.py").symlink_to(secret)
        found = await seen.snapshot()
        assert "train.py is a symlink" in str(found.faults[0])
        (root / "train.py").unlink()
        os.mkfifo(root / "train.py")
        found = await seen.snapshot()
        assert "train.py is a FIFO" in str(found.faults[0])


async def test_a_single_yaml_file_is_a_source_of_its_saved_text(root: Path) -> None:
    (root / "a.yaml").write_text(job("a", "entrypoint: train.py"))
    (root / "b.yaml").write_text(job("b"))
    (root / "train.py").write_text("1")
    source = await opened(root / "a.yaml")
    assert source.id == f"folder:{root}/a.yaml"
    assert names(await source.read()) == ["a"]


async def test_a_path_that_is_no_folder_is_told_what_to_give(root: Path) -> None:
    (root / "x.txt").write_text("")
    with pytest.raises(SourceUnavailableError, match=r"nope does not exist; give the folder"):
        await opened(root / "nope")
    with pytest.raises(SourceUnavailableError, match=r"x\.txt is neither a folder nor a \.yaml"):
        await opened(root / "x.txt")


async def test_following_ends_at_once_when_it_is_cancelled(root: Path) -> None:
    (root / "a.yaml").write_text(job("a"))
    async with following(await opened(root)) as seen:
        await seen.snapshot()
        begin = time.monotonic()
    assert time.monotonic() - begin < 1
