"""What the loader makes of whole folders: documents, faults and their wording."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from specs_text import Keeper, job, model
from windlass.sources.base import SourceUnavailableError
from windlass.sources.foldertree import FolderTree
from windlass.sources.loader import Loaded, Loader, Lookup
from windlass.sources.namedfiles import hash_only
from windlass_adapters.artifacts import ArtifactStore
from windlass_schemas import Job, Key, Resource


def load(root: Path, keeper: Keeper | None = None) -> Loaded:
    return Loader(keeper or Keeper()).load(FolderTree(root))


def faults(root: Path) -> list[str]:
    return [str(fault) for fault in load(root).faults]


def names(loaded: Loaded) -> list[str]:
    return [document.resource.metadata.name for document in loaded.documents]


HEAD = "apiVersion: windlass/v1\nkind: Job\nmetadata:\n  name: a\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + "spec:\n  command: [x]\n  time_limit: 90s\n",
            "a.yaml:7:3 spec.time_limit: is written timeLimit; write timeLimit",
        ),
        (
            HEAD + "spec:\n  command: [x]\n  retrys: 3\n",
            "a.yaml:7:3 spec.retrys: is no known field; write retries, or one of: entrypoint,"
            " command, model, files, python, image, array, params, bestOf, env, inputs, outputs,"
            " target, options, timeLimit, retries, history, onChange",
        ),
        (
            HEAD + "spec: {command: [x]}\npolicy: {zzz: 1}\n",
            "a.yaml:6:10 policy.zzz: is no known field; remove it, or write one of: onDelete,"
            " prune, adopt, selfHeal, dependsOn, ignore, deadlines, suspend",
        ),
        (
            HEAD + "spec: {command: [x], inputs: {d: {fil: x}}}\n",
            "a.yaml:5:35 spec.inputs.d.fil: is no known field; write file, or one of:"
            " file, job, model",
        ),
        (
            HEAD + "spec:\n  command: [x]\n  timeLimit: 90\n",
            "a.yaml:7:14 spec.timeLimit: a duration is a number with a unit;"
            " write for example 90s, 15m or 1h30m",
        ),
        (
            HEAD + "spec:\n  command: [x]\n  retries: 500\n",
            "a.yaml:7:12 spec.retries: is 500; write a number of at most 100",
        ),
        (
            HEAD + "spec:\n  command: [x]\n  retries: many\n",
            "a.yaml:7:12 spec.retries: must be a whole number; write for example 3, without quotes",
        ),
        (
            HEAD + "spec:\n  command: ls -l\n",
            "a.yaml:6:12 spec.command: must be a list; write [a, b], or lines that start with '- '",
        ),
        (
            HEAD + "spec:\n  command: [1]\n",
            "a.yaml:6:13 spec.command[0]: must be text; put it in quotes",
        ),
        (
            HEAD + "spec:\n  command: [x]\n  onChange: replac\n",
            'a.yaml:7:13 spec.onChange: "replac" is not possible here;'
            " write finish-then-run, replace or refuse (perhaps replace)",
        ),
        (
            HEAD + "spec:\n  command: [x]\n  env: {WINDLASS_X: y}\n",
            "a.yaml:7:9 spec.env.WINDLASS_X: names that start with WINDLASS_ are set by"
            " Windlass itself",
        ),
        (
            HEAD + "spec:\n  command: [x]\n  params: {a: }\n",
            "a.yaml:7:15 spec.params.a: is empty; write a value, or remove the line",
        ),
        (
            HEAD + "spec:\n  command: [x]\n  params: {a: [1]}\n",
            "a.yaml:7:15 spec.params.a: cannot be a mapping or a list;"
            " write a number, true, false, or text",
        ),
        (
            HEAD + "spec:\n  command: [x]\n  timeLimit: 99999999999999999999d\n",
            "a.yaml:7:14 spec.timeLimit: this duration is longer than any clock counts; write less",
        ),
        (
            HEAD + 'spec:\n  command: ["a\\0b"]\n',
            'a.yaml:6:13 spec.command[0]: the character "\\0"; remove it',
        ),
        (
            HEAD + "spec: {command: [x]}\npolicy: {dependsOn: [{ref: Swoop/x}]}\n",
            'a.yaml:6:28 policy.dependsOn[0].ref: "Swoop/x" names no kind;'
            " write one of Target, Model, Deployment, Job, Sweep before the /",
        ),
        (
            HEAD + "spec: {}\n",
            "a.yaml:5:7 spec: needs exactly one of entrypoint, command and model",
        ),
        (
            HEAD,
            "a.yaml:1:1 spec: is missing; add it",
        ),
        (
            "apiVersion: windlass/v1\nkind: Job\nmetadata: {}\nspec: {command: [x]}\n",
            "a.yaml:3:1 metadata.name: is missing; add it"
            " (Lower-case letters, digits and '-', at most 63 characters)",
        ),
        (
            "apiVersion: windlass/v1\nkind: Job\nmetadata: {name: A_b}\nspec: {command: [x]}\n",
            'a.yaml:3:18 metadata.name: "A_b" is no name; write lower-case letters, digits and'
            " '-', at most 63 characters, with a letter or digit at both ends",
        ),
        (
            "apiVersion: apps/v1\nkind: Job\nmetadata: {name: a}\nspec: {command: [x]}\n",
            'a.yaml:1:13 apiVersion: "apps/v1" is not known; write windlass/v1,'
            " or list the file in .windlassignore",
        ),
        (
            "apiVersion: windlass/v1\nkind: Jbo\n",
            'a.yaml:2:7 kind: "Jbo" is no kind;'
            " write one of: Target, Model, Deployment, Job, Sweep",
        ),
        (
            "apiVersion: windlass/v1\nkind: [Job]\n",
            "a.yaml:2:7 kind: what stands here is no kind;"
            " write one of: Target, Model, Deployment, Job, Sweep",
        ),
        (
            "x: 1\n",
            "a.yaml:1:1 has neither apiVersion nor kind; write apiVersion: windlass/v1 and a kind,"
            " or list the file in .windlassignore if it is no spec",
        ),
        (
            "- x\n",
            "a.yaml:1:1 a document is a mapping; write apiVersion: windlass/v1 first",
        ),
    ],
)
def test_a_wrong_spec_is_told_with_its_place_and_what_to_write(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert faults(tmp_path) == [said]


def test_a_document_with_very_many_faults_is_told_in_bounded_time(tmp_path: Path) -> None:
    fields = "".join(f"  field{i}: 1\n" for i in range(50_000))
    (tmp_path / "a.yaml").write_text(HEAD + "spec:\n" + fields)
    begin = time.process_time()
    found = faults(tmp_path)
    assert time.process_time() - begin < 10
    assert len(found) == 101
    assert "more faults; mend the ones above first" in "".join(found)


def test_all_faults_of_all_files_are_told_at_once_and_the_good_documents_are_taken(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.yaml").write_text(
        job("a", "command: [x]\n  retries: no\n  time_limit: 1h")
        + "---\n"
        + job("good")
        + "---\nkind: Job\nmetadata: {name: open}\nspec: {command: ['x}\n---\n"
        + job("fine")
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b.yml").write_text("kind: Nope\napiVersion: windlass/v1\n")
    loaded = load(tmp_path)
    assert names(loaded) == ["good", "fine"]
    assert [(f.path, f.line, f.field, f.key) for f in loaded.faults] == [
        ("a.yaml", 7, "spec.retries", Key("Job", "default", "a")),
        ("a.yaml", 8, "spec.time_limit", Key("Job", "default", "a")),
        ("a.yaml", 19, "spec.command", Key("Job", "default", "open")),
        ("sub/b.yml", 1, "kind", None),
    ]


def test_a_document_without_a_name_that_breaks_early_is_still_told_apart_by_its_lines(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.yaml").write_text("x: 'open\n" + job("a"))
    assert [fault.key for fault in load(tmp_path).faults] == [Key("Job", "default", "a")]


def test_an_edited_entrypoint_changes_the_digest_and_a_label_does_not(tmp_path: Path) -> None:
    spec = tmp_path / "a.yaml"
    spec.write_text(job("a", "entrypoint: train.py"))
    (tmp_path / "train.py").write_text("1")
    first = load(tmp_path).documents[0].digest
    spec.write_text(spec.read_text().replace("name: a", "name: a\n  labels: {x: y}"))
    assert load(tmp_path).documents[0].digest == first
    (tmp_path / "train.py").write_text("2")
    assert load(tmp_path).documents[0].digest != first


def test_named_files_lie_beside_the_document_and_a_folder_means_all_files_below_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "x/lib/deep").mkdir(parents=True)
    (tmp_path / "x/lib/__pycache__").mkdir()
    for name in ("train.py", "lib/a.py", "lib/deep/b.py", "lib/__pycache__/a.pyc", "d.csv"):
        (tmp_path / "x" / name).write_text(name)
    text = "entrypoint: train.py\n  files: [lib]\n  inputs: {d: {file: d.csv}}"
    (tmp_path / "x/a.yaml").write_text(job("a", text))
    keeper = Keeper()
    (document,) = load(tmp_path, keeper).documents
    assert sorted(document.files) == ["d.csv", "lib/a.py", "lib/deep/b.py", "train.py"]
    assert {name: f.name for name, f in document.files.items()}["lib/deep/b.py"] == "b.py"
    assert sorted(keeper.kept) == ["a.py", "b.py", "d.csv", "train.py"]


def test_a_yaml_file_that_a_spec_names_is_data_and_no_spec(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(job("a", "command: [x]\n  files: [config.yaml]"))
    (tmp_path / "config.yaml").write_text("depth: 3\n")
    loaded = load(tmp_path)
    assert loaded.faults == ()
    assert names(loaded) == ["a"]


def test_links_fifos_sockets_and_missing_files_are_refused_at_the_field(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        (tmp_path / "empty").mkdir()
        files = "[link, folder/passwd, pipe, socket, nope, empty, a.yaml/x]"
        (tmp_path / "a.yaml").write_text(job("a", f"command: [x]\n  files: {files}"))
        assert faults(tmp_path) == [
            "a.yaml:7:11 spec.files[0]: link is a symlink and is not read; use a copy",
            "a.yaml:7:17 spec.files[1]: folder/passwd leads to folder, which is a symlink"
            " and is not read; use a copy",
            "a.yaml:7:32 spec.files[2]: pipe is a FIFO, socket or device and is not read;"
            " use a copy",
            "a.yaml:7:38 spec.files[3]: socket is a FIFO, socket or device and is not read;"
            " use a copy",
            "a.yaml:7:46 spec.files[4]: nope does not exist at this revision;"
            " add the file or mend the path",
            "a.yaml:7:52 spec.files[5]: empty is an empty folder;"
            " put a file into it or name another one",
            "a.yaml:7:59 spec.files[6]: a.yaml/x does not exist: a.yaml is a file; mend the path",
        ]


def test_a_link_inside_a_named_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/out").symlink_to("/etc")
    (tmp_path / "a.yaml").write_text(job("a", "command: [x]\n  files: [lib]"))
    assert faults(tmp_path) == [
        "a.yaml:7:11 spec.files[0]: lib leads to lib/out, which is a symlink and is not read;"
        " use a copy"
    ]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", ".", "a\\b"])
def test_a_path_that_leaves_the_source_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "a.yaml").write_text(job("a", f"command: [x]\n  files: ['{path}']"))
    (fault,) = load(tmp_path).faults
    assert (fault.line, fault.column, fault.field) == (7, 11, "spec.files[0]")


def test_spec_files_that_are_links_or_fifos_are_told_and_never_opened(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(job("good"))
    (tmp_path / "link.yaml").symlink_to("good.yaml")
    os.mkfifo(tmp_path / "pipe.yml")
    (tmp_path / "folder").symlink_to("/etc")
    loaded = load(tmp_path)
    assert names(loaded) == ["good"]
    assert [str(fault) for fault in loaded.faults] == [
        "link.yaml:1:1 is a symlink and is not read;"
        " put a regular file here, or list it in .windlassignore",
        "pipe.yml:1:1 is a FIFO, socket or device and is not read;"
        " put a regular file here, or list it in .windlassignore",
    ]
    assert loaded.notes == ("folder is a symlink; no specs are read from behind it",)


def test_a_folder_that_leads_back_into_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(job("a"))
    (tmp_path / "loop").symlink_to(".")
    assert names(load(tmp_path)) == ["a"]


def test_very_deep_folders_are_a_fault_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(job("a"))
    deep = os.open(tmp_path, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    loaded = load(tmp_path)
    assert names(loaded) == ["a"]
    assert "lies more than 64 folders deep" in loaded.faults[0].message


def test_windlassignore_hidden_files_and_hidden_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("a", "drafts/b", "drafts/keep/c", ".hidden/d", "x/.e", "x/f.tmp", ".windlass/g"):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(job(path.stem.strip(".").replace(".", "-")))
    (tmp_path / ".windlassignore").write_text("# drafts\n/drafts/*\n!/drafts/keep\n*.tmp.yaml\n")
    assert names(load(tmp_path)) == ["a", "c"]


def test_a_pattern_that_cannot_be_read_is_a_fault_and_nothing_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(job("a"))
    (tmp_path / ".windlassignore").write_text("!\n")
    loaded = load(tmp_path)
    assert names(loaded) == []
    assert loaded.faults[0].path == ".windlassignore"


def test_a_key_declared_twice_is_told_in_both_places_and_neither_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(job("same") + "---\n" + job("other"))
    (tmp_path / "b.yaml").write_text("\n" + job("same"))
    loaded = load(tmp_path)
    assert names(loaded) == ["other"]
    assert [str(fault) for fault in loaded.faults] == [
        "a.yaml:4:9 metadata.name: Job/same is declared in b.yaml:1 too; keep one of them",
        "b.yaml:5:9 metadata.name: Job/same is declared in a.yaml:1 too; keep one of them",
    ]
    assert {fault.key for fault in loaded.faults} == {Key("Job", "default", "same")}


def test_a_dependency_cycle_is_told_on_every_member_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        job("a", "command: [x]\n  inputs: {m: {model: b}}")
        + "---\n"
        + model("b", "source: {job: {name: a, output: o}}")
        + "---\n"
        + job("self", policy="dependsOn: [{ref: Job/self}]")
        + "---\n"
        + job("free", policy="dependsOn: [{ref: Job/a}]")
    )
    loaded = load(tmp_path)
    assert names(loaded) == ["free"]
    assert [str(fault) for fault in loaded.faults] == [
        "a.yaml:7:23 spec.inputs.m.model: needs itself in a circle:"
        " Job/a -> Model/b -> Job/a; remove one of the links",
        "a.yaml:14:17 spec.source.job: needs itself in a circle:"
        " Model/b -> Job/a -> Model/b; remove one of the links",
        "a.yaml:23:21 policy.dependsOn[0].ref: needs itself in a circle:"
        " Job/self -> Job/self; remove one of the links",
    ]


def test_a_check_sees_the_other_resources_and_its_findings_are_faults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(job("a", "command: [x]\n  options: {gpu: 1}"))

    def check(resource: Resource, lookup: Lookup) -> Iterable[tuple[str, str]]:
        assert lookup(Key("Job", "default", "a")) is resource
        assert lookup(Key("Job", "default", "b")) is None
        if isinstance(resource, Job) and "gpu" in resource.spec.options:
            yield "spec.options.gpu", "is not known here; remove it"

    loaded = Loader(Keeper(), check).load(FolderTree(tmp_path))
    assert [str(fault) for fault in loaded.faults] == [
        "a.yaml:7:18 spec.options.gpu: is not known here; remove it"
    ]
    assert loaded.documents == ()


def test_a_git_lfs_pointer_is_not_taken_for_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "a.yaml").write_text(model("m", "source: {file: m.onnx}"))
    (said,) = faults(tmp_path)
    assert said.startswith("a.yaml:6:18 spec.source.file: m.onnx is a Git LFS pointer and not")


def test_an_unreadable_store_makes_the_source_unavailable_and_no_fault(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("x")
    (tmp_path / "a.yaml").write_text(job("a", "entrypoint: train.py"))

    def full(_stream: object, _name: str) -> object:
        raise OSError(28, "No space left on device")

    with pytest.raises(SourceUnavailableError, match="make room in the state folder"):
        Loader(full).load(FolderTree(tmp_path))  # type: ignore[arg-type]  # it never returns


def test_looking_without_keeping_gives_the_digests_of_keeping(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("x" * 3_000_000)
    (tmp_path / "a.yaml").write_text(job("a", "entrypoint: train.py"))
    store = ArtifactStore(tmp_path / ".windlass")
    kept = Loader(store.put_stream).load(FolderTree(tmp_path))
    looked = Loader(hash_only).load(FolderTree(tmp_path))
    assert kept == looked
    assert store.has(kept.documents[0].files["train.py"].digest)


def _age(root: Path) -> None:
    """Wait until the files are old enough for their times to be believed."""
    deadline = time.monotonic() + 5
    loader = Loader(Keeper())
    while not loader.survey(FolderTree(root)).settled:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_load_parses_and_keeps_nothing_again(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i}.yaml").write_text(job(f"j{i}", "entrypoint: train.py"))
    (tmp_path / "train.py").write_text("x")
    keeper = Keeper()
    loader = Loader(keeper)
    _age(tmp_path)
    first = loader.load(FolderTree(tmp_path))
    assert (loader.parses, keeper.kept) == (20, ["train.py"])
    second = loader.load(FolderTree(tmp_path))
    assert (loader.parses, keeper.kept) == (20, ["train.py"])
    assert [a is b for a, b in zip(first.documents, second.documents, strict=True)] == [True] * 20
    (tmp_path / "3.yaml").write_text(job("j3", "entrypoint: train.py\n  retries: 1"))
    third = loader.load(FolderTree(tmp_path))
    assert (loader.parses, keeper.kept) == (21, ["train.py"])
    changed = [a is not b for a, b in zip(first.documents, third.documents, strict=True)]
    assert changed.count(True) == 1


def test_an_edit_of_the_same_size_at_the_same_moment_is_never_missed(tmp_path: Path) -> None:
    spec, script = tmp_path / "a.yaml", tmp_path / "train.py"
    spec.write_text(job("a", "entrypoint: train.py\n  retries: 1"))
    script.write_text("1")
    loader = Loader(Keeper())
    seen = {loader.load(FolderTree(tmp_path)).documents[0].digest}
    for i in range(2, 10):
        with spec.open("r+") as file:
            file.write(job("a", f"entrypoint: train.py\n  retries: {i}"))
        seen.add(loader.load(FolderTree(tmp_path)).documents[0].digest)
        with script.open("r+") as file:
            file.write(str(i))
        seen.add(loader.load(FolderTree(tmp_path)).documents[0].digest)
    assert len(seen) == 17
