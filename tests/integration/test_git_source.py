"""The git source with real repositories: what it follows, what it refuses, how fast it sees."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from following import following, names
from gitrepo import AUTHOR, GitRepo, git_environment
from specs_text import Keeper, job, model
from windlass.sources import git as git_module
from windlass.sources.base import Source, SourceUnavailableError
from windlass.sources.git import GitSource
from windlass.sources.gitcommand import explain_git
from windlass.sources.loader import Loader
from windlass.sources.opening import open_source
from windlass.sources.repository import find_repository


@pytest.fixture(autouse=True)
def _isolated_git(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM"):
        monkeypatch.setenv(name, git_environment()[name])


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    return GitRepo(tmp_path / "repo")


async def opened(path: Path, keeper: Keeper | None = None) -> Source:
    return await open_source(path, worktree=False, keep=keeper or Keeper())


async def note(source: Source, text: str, *, there: bool = True) -> None:
    """Wait until a note contains the text, or none does."""
    async with asyncio.timeout(20):
        while any(text in line for line in source.notes()) != there:
            await asyncio.sleep(0.05)


async def test_a_commit_is_seen_whole_within_a_second(repo: GitRepo) -> None:
    repo.write("a.yaml", job("a"))
    first = repo.commit()
    source = await opened(repo.path)
    assert isinstance(source, GitSource)
    assert source.id == f"folder:{repo.path}"
    async with following(source) as seen:
        found = await seen.snapshot()
        assert (found.source, found.revision, found.author) == (source.id, first, AUTHOR)
        for i in range(5):
            repo.write(f"b{i}.yaml", job(f"b{i}"))
            commit = repo.commit()
            begin = time.monotonic()
            found = await seen.snapshot()
            assert time.monotonic() - begin < 1
            assert found.revision == commit
            assert len(found.documents) == i + 2


async def test_specs_and_their_files_come_from_the_commit_and_not_from_the_work_tree(
    repo: GitRepo,
) -> None:
    repo.write("a.yaml", job("a", "entrypoint: train.py"))
    repo.write("train.py", "committed")
    repo.commit()
    source = await opened(repo.path)
    before = await source.read()
    repo.write("train.py", "saved only")
    repo.write("b.yaml", job("b"))
    after = await source.read()
    assert after.documents == before.documents
    (changes,) = source.notes()
    assert changes == (
        "uncommitted changes that are not applied: train.py, b.yaml;"
        " commit them, or start with --worktree"
    )


async def test_an_edited_entrypoint_changes_the_digest_and_a_revert_brings_it_back(
    repo: GitRepo,
) -> None:
    repo.write("a.yaml", job("a", "entrypoint: train.py"))
    repo.write("train.py", "1")
    repo.commit()
    async with following(await opened(repo.path)) as seen:
        first = await seen.snapshot()
        repo.write("train.py", "2")
        repo.commit()
        second = await seen.snapshot()
        repo.git("revert", "--no-edit", "HEAD")
        third = await seen.snapshot()
    digests = [found.documents[0].digest for found in (first, second, third)]
    assert digests[0] != digests[1]
    assert digests[0] == digests[2]


async def test_branch_switches_amended_commits_detached_heads_and_packed_refs_are_followed(
    repo: GitRepo,
) -> None:
    repo.write("a.yaml", job("a"))
    first = repo.commit()
    async with following(await opened(repo.path)) as seen:
        assert names(await seen.snapshot()) == ["a"]
        repo.git("switch", "-q", "-c", "feature/deep/name")
        repo.write("b.yaml", job("b"))
        repo.commit()
        assert names(await seen.snapshot()) == ["a", "b"]
        repo.write("b.yaml", job("c"))
        repo.git("commit", "-q", "-a", "--amend", "-m", "amended")
        assert names(await seen.snapshot()) == ["a", "c"]
        repo.git("pack-refs", "--all", "--prune")
        repo.write("d.yaml", job("d"))
        repo.commit()
        assert names(await seen.snapshot()) == ["a", "c", "d"]
        repo.git("checkout", "-q", "--detach", first)
        assert (await seen.snapshot()).revision == first
        repo.write("e.yaml", job("e"))
        repo.commit()
        assert names(await seen.snapshot()) == ["a", "e"]
        repo.git("switch", "-q", "main")
        assert names(await seen.snapshot()) == ["a"]


async def test_a_linked_work_tree_follows_its_own_head(repo: GitRepo, tmp_path: Path) -> None:
    repo.write("a.yaml", job("a"))
    repo.commit()
    repo.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    side = GitRepo.__new__(GitRepo)
    side.path = tmp_path / "side"
    async with following(await opened(side.path)) as seen:
        assert names(await seen.snapshot()) == ["a"]
        repo.write("main.yaml", job("only-on-main"))
        repo.commit()
        side.write("b.yaml", job("b"))
        side.commit()
        assert names(await seen.snapshot()) == ["a", "b"]


async def test_a_sub_folder_is_a_source_of_its_own(repo: GitRepo) -> None:
    repo.write("outside.yaml", job("outside"))
    repo.write("specs/deep/a.yaml", job("a", "entrypoint: x/train.py"))
    repo.write("specs/deep/x/train.py", "1")
    repo.commit()
    source = await opened(repo.path / "specs")
    found = await source.read()
    assert source.id == f"folder:{repo.path}/specs"
    assert [(d.path, d.line) for d in found.documents] == [("deep/a.yaml", 1)]
    assert list(found.documents[0].files) == ["x/train.py"]
    repo.write("outside.yaml", "changed")
    repo.write("specs/deep/a.yaml", "changed")
    await source.read()
    assert source.notes()[0].startswith("uncommitted changes that are not applied: deep/a.yaml;")


async def test_odd_file_names_are_read_unless_nobody_could_type_them(repo: GitRepo) -> None:
    readable = ["sp ace.yaml", "ümläut.yaml", 'quo"te.yaml', "-dash.yml", "(a)*?[b].yaml"]
    for i, name in enumerate([*readable, "ta\tb.yaml", "n\nl.yml", "b\udcffd.yaml"]):
        repo.write(name, job(f"j{i}", "entrypoint: ü x.py"))
    repo.write("ü x.py", "1")
    repo.commit()
    found = await (await opened(repo.path)).read()
    assert sorted(document.path for document in found.documents) == sorted(readable)
    said = "a file whose name holds bytes that nobody can read or type; rename the file"
    assert [str(fault) for fault in found.faults] == [
        f"b?d.yaml:1:1 {said}",
        f"n?l.yml:1:1 {said}",
        f"ta?b.yaml:1:1 {said}",
    ]


async def test_a_named_folder_with_a_name_that_is_not_utf8_is_refused(repo: GitRepo) -> None:
    repo.write("lib/b\udcff.py", "1")
    repo.write("a.yaml", job("a", "command: [x]\n  files: [lib]"))
    repo.commit()
    found = await (await opened(repo.path)).read()
    assert [str(fault) for fault in found.faults] == [
        "a.yaml:7:11 spec.files[0]: lib leads to lib/b?.py, whose name holds bytes that nobody"
        " can read or type; rename the file"
    ]


async def test_a_repository_without_a_commit_says_so_and_starts_at_the_first_one(
    repo: GitRepo,
) -> None:
    repo.write("a.yaml", job("a"))
    async with following(await opened(repo.path)) as seen:
        assert await seen.failure() == (
            f"{repo.path} has no commit yet; run git add and git commit, or start with --worktree"
        )
        repo.commit()
        assert names(await seen.snapshot()) == ["a"]


async def test_a_folder_that_is_not_in_the_commit_makes_the_source_unavailable(
    repo: GitRepo,
) -> None:
    repo.write("specs/a.yaml", job("a"))
    repo.commit()
    async with following(await opened(repo.path / "specs")) as seen:
        assert names(await seen.snapshot()) == ["a"]
        repo.git("rm", "-q", "-r", "specs")
        repo.commit()
        assert "specs is no folder at commit" in await seen.failure()
        repo.git("revert", "--no-edit", "HEAD")
        assert names(await seen.snapshot()) == ["a"]


async def test_a_removed_repository_is_unavailable_and_goes_on_when_it_is_back(
    repo: GitRepo, tmp_path: Path
) -> None:
    repo.write("a.yaml", job("a"))
    repo.commit()
    async with following(await opened(repo.path)) as seen:
        await seen.snapshot()
        shutil.copytree(repo.path, tmp_path / "copy")
        shutil.rmtree(repo.path)
        assert "Nothing is removed meanwhile" in await seen.failure()
        (tmp_path / "copy").rename(repo.path)
        assert names(await seen.snapshot()) == ["a"]


async def test_links_submodules_and_lfs_pointers_in_a_commit_are_refused(
    repo: GitRepo, tmp_path: Path
) -> None:
    other = GitRepo(tmp_path / "other")
    other.write("x.py", "1")
    inner = other.commit()
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{inner},lib")
    (repo.path / "link.yaml").symlink_to("/etc/passwd")
    (repo.path / "up").symlink_to("..")
    repo.write("m.onnx", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    repo.write("a.yaml", job("a", "command: [x]\n  files: [lib/x.py, up/other/x.py]"))
    repo.write("m.yaml", model("m", "source: {file: m.onnx}"))
    repo.git("add", "a.yaml", "m.yaml", "m.onnx", "link.yaml", "up")
    repo.git("commit", "-q", "-m", "odd")
    source = await opened(repo.path)
    found = await source.read()
    assert found.documents == ()
    assert [str(fault) for fault in found.faults] == [
        "a.yaml:7:11 spec.files[0]: lib/x.py leads to lib, which is a submodule and is not read;"
        " commit the files themselves",
        "a.yaml:7:21 spec.files[1]: up/other/x.py leads to up, which is a symlink"
        " and is not read; use a copy",
        "link.yaml:1:1 is a symlink and is not read;"
        " put a regular file here, or list it in .windlassignore",
        "m.yaml:6:18 spec.source.file: m.onnx is a Git LFS pointer and not the file itself;"
        " commit the file without LFS, or run git lfs pull and start with --worktree",
    ]
    assert "lib is a submodule; no specs are read from behind it" in source.notes()


async def test_no_hook_filter_or_monitor_of_the_repository_runs(
    repo: GitRepo, tmp_path: Path
) -> None:
    witness = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {witness}\ncat\n")
    program.chmod(0o755)
    repo.write("a.yaml", job("a"))
    repo.commit()
    repo.write(".gitattributes", "* filter=evil diff=evil\n")
    for name in (
        "filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv",
        "core.fsmonitor", "core.pager", "core.sshCommand", "diff.external",
    ):  # fmt: skip
        repo.git("config", name, str(program))
    repo.git("config", "filter.evil.required", "true")
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        (repo.path / ".git/hooks").mkdir(exist_ok=True)
        shutil.copy(program, repo.path / ".git/hooks" / hook)
    repo.write("a.yaml", job("b"))
    witness.unlink(missing_ok=True)
    source = await opened(repo.path)
    assert names(await source.read()) == ["a"]
    assert "a.yaml" in source.notes()[0]
    assert not witness.exists()


async def test_a_git_environment_of_somebody_else_is_not_followed(
    repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.write("a.yaml", job("a"))
    repo.commit()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert names(await (await opened(repo.path)).read()) == ["a"]


async def test_a_machine_without_git_is_told_what_to_install(
    repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceUnavailableError, match="git is not installed; install git, or start"):
        await opened(repo.path)


async def test_uncommitted_changes_are_noted_while_following_and_the_note_goes_with_the_commit(
    repo: GitRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_module, "NOTES_PAUSE", 0.1)
    repo.write("a.yaml", job("a"))
    repo.commit()
    source = await opened(repo.path)
    async with following(source) as seen:
        await seen.snapshot()
        await note(source, "uncommitted", there=False)
        for i in range(7):
            repo.write(f"n{i}.yaml", job(f"n{i}"))
        await note(source, "n0.yaml, n1.yaml, n2.yaml, n3.yaml, n4.yaml and 2 more")
        assert seen.queue.empty()
        repo.commit()
        assert len((await seen.snapshot()).documents) == 8
        await note(source, "uncommitted", there=False)


async def test_one_changed_line_among_two_thousand_documents_parses_one_file(
    repo: GitRepo,
) -> None:
    for i in range(2000):
        repo.write(f"f{i % 20}/j{i}.yaml", job(f"j{i}", "entrypoint: train.py"))
    for i in range(20):
        repo.write(f"f{i}/train.py", "1")
    repo.commit()
    keeper = Keeper()
    loader = Loader(keeper)
    async with following(GitSource(await find_repository(repo.path), loader)) as seen:
        first = await seen.snapshot(60)
        assert (loader.parses, len(keeper.kept)) == (2000, 1)
        repo.write("f7/j7.yaml", job("j7", "entrypoint: train.py\n  retries: 1"))
        repo.commit()
        second = await seen.snapshot()
        assert (loader.parses, len(keeper.kept)) == (2001, 1)
    changed = [a for a, b in zip(first.documents, second.documents, strict=True) if a is not b]
    assert [document.path for document in changed] == ["f7/j7.yaml"]


async def test_many_commits_in_a_row_end_at_the_last_one(repo: GitRepo) -> None:
    repo.write("a.yaml", job("a"))
    repo.commit()
    async with following(await opened(repo.path)) as seen:
        await seen.snapshot()
        for i in range(15):
            repo.write("a.yaml", job(f"a{i}"))
            repo.commit()
        last = repo.git("rev-parse", "HEAD")
        async with asyncio.timeout(10):
            while (await seen.snapshot()).revision != last:
                pass


async def test_a_missing_object_makes_the_source_unavailable_or_a_fault_and_never_a_deletion(
    repo: GitRepo,
) -> None:
    repo.write("a.yaml", job("a"))
    repo.write("b.yaml", job("b"))
    repo.commit()
    blob = repo.git("rev-parse", "HEAD:a.yaml")
    path = repo.path / ".git/objects" / blob[:2] / blob[2:]
    path.unlink()
    found = await (await opened(repo.path)).read()
    assert names(found) == ["b"]
    assert [str(fault) for fault in found.faults] == [
        "a.yaml:1:1 is not in git's object store (a partial clone?); run git fetch --refetch"
    ]
    path.write_bytes(b"garbage")
    try:
        found = await (await opened(repo.path)).read()
    except SourceUnavailableError as error:
        assert "git fsck" in str(error)  # noqa: PT017
    else:
        assert found.faults


def test_a_repository_of_another_user_is_told_how_to_be_trusted(repo: GitRepo) -> None:
    refused = subprocess.run(
        ["git", "-C", str(repo.path), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        env={**git_environment(), "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1", "LC_ALL": "C"},
    )
    assert str(explain_git(repo.path, "rev-parse", refused.stderr)) == (
        f"git does not trust {repo.path}, which another user owns; run git config --global"
        f" --add safe.directory {repo.path} as the user of the daemon"
    )


async def test_a_folder_inside_the_git_directory_is_refused(repo: GitRepo) -> None:
    with pytest.raises(SourceUnavailableError, match="lies inside a git directory"):
        await opened(repo.path / ".git" / "refs")


async def test_reads_at_the_same_time_give_the_same_set(repo: GitRepo) -> None:
    for i in range(50):
        repo.write(f"a{i}.yaml", job(f"a{i}"))
    repo.commit()
    source = await opened(repo.path)
    found = await asyncio.gather(*(source.read() for _ in range(4)))
    assert [len(snapshot.documents) for snapshot in found] == [50] * 4
    assert all(snapshot.documents == found[0].documents for snapshot in found)


async def test_following_ends_at_once_when_it_is_cancelled(repo: GitRepo) -> None:
    repo.write("a.yaml", job("a"))
    repo.commit()
    async with following(await opened(repo.path)) as seen:
        await seen.snapshot()
        begin = time.monotonic()
    assert time.monotonic() - begin < 1


async def test_a_worktree_source_reads_saved_files_inside_a_repository(repo: GitRepo) -> None:
    repo.write("a.yaml", job("a"))
    source = await open_source(repo.path, worktree=True, keep=Keeper())
    assert names(await source.read()) == ["a"]
    assert source.id == f"folder:{repo.path}"
