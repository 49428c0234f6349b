"""Commands that need no daemon: validate, plan, schema, doctor, version."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from rig.command_line import windlass
from windlass.cli.specs import show_plan, summary
from windlass.preview import Preview
from windlass_schemas import Key

GOOD = """\
apiVersion: windlass/v1
kind: Job
metadata: {name: train}
spec: {command: ["true"]}
"""


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "good.yaml").write_text(GOOD)
    return folder


async def test_validate_says_when_all_is_well(specs: Path) -> None:
    """Nothing on stdout: there is nothing to jump to."""
    ran = await windlass("validate", str(specs))
    assert (ran.code, ran.out, ran.err) == (0, "", "1 valid document, no faults\n")


async def test_validate_prints_every_fault_where_an_editor_can_jump(specs: Path) -> None:
    """``file:line:column field: message`` with a path that opens from here; exit code 1."""
    (specs / "bad.yaml").write_text(GOOD.replace("spec", "spek") + "---\nkind: Pod\n")
    ran = await windlass("validate", str(specs))
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert len(lines) >= 3
    for line in lines:
        assert re.match(rf"{specs}/bad\.yaml:\d+:\d+ .+", line), line
    assert f"1 valid document, {len(lines)} faults" in ran.err
    found = json.loads((await windlass("validate", str(specs), "--json")).out)
    assert (found["valid"], found["documents"], len(found["faults"])) == (False, 1, len(lines))
    assert found["faults"][0]["line"] >= 1


async def test_plan_of_new_specs_has_changes_and_writes_nothing(
    specs: Path, tmp_path: Path
) -> None:
    """Exit code 2; without specs and without state there is nothing to do."""
    state = tmp_path / "state"
    ran = await windlass("plan", str(specs), "--state", str(state))
    assert ran.code == 2, ran
    assert "> run    Job/train on local" in ran.out
    assert "Plan: 0 to create, 1 to run, 0 to delete." in ran.out
    assert not (state / "windlass.db").exists()
    found = json.loads((await windlass("plan", str(specs), "--state", str(state), "--json")).out)
    assert [(each["key"], each["verb"]) for each in found] == [("Job/default/train", "run")]
    ran = await windlass("plan", "--state", str(state))
    assert (ran.code, ran.out) == (0, "Nothing to do: 0 objects.\n")


async def test_plan_notes_the_faults_that_it_leaves_out(specs: Path, tmp_path: Path) -> None:
    """The rest is planned even so."""
    (specs / "bad.yaml").write_text("kind: Pod\n")
    ran = await windlass("plan", str(specs), "--state", str(tmp_path / "state"))
    assert ran.code == 2
    assert "bad.yaml:1:1" in ran.err
    assert "not in the plan" in ran.err


def test_a_plan_reads_like_a_diff(capsys: pytest.CaptureFixture[str]) -> None:
    """A mark and a verb for each object, its differences below; what stays is left out."""
    found = [
        Preview(Key.parse("Job/train"), "run", "local", (), "edited"),
        Preview(Key.parse("Model/wine"), "update", "local", ("/spec/digest: a -> [b]",)),
        Preview(Key.parse("Deployment/wine"), "wait", "local", (), "Model/wine is not Ready"),
        Preview(Key.parse("Deployment/lab/old"), "delete", "local"),
        Preview(Key.parse("Target/local"), "keep", ""),
        Preview(Key.parse("Job/sad"), "keep", "local", (), "Failed: exit code 1"),
    ]
    show_plan(found)
    assert capsys.readouterr().out.splitlines() == [
        "> run    Job/train on local  (edited)",
        "~ update Model/wine on local",
        "      /spec/digest: a -> [b]",
        ". wait   Deployment/wine on local  (Model/wine is not Ready)",
        "- delete Deployment/lab/old on local",
        "= keep   Job/sad on local  (Failed: exit code 1)",
        "Plan: 0 to create, 1 to run, 1 to update, 1 to delete, 1 to wait.",
    ]
    assert summary(found[4:]) == "Nothing to do: 2 objects, 1 to look at."


async def test_schema_is_printed_or_written(tmp_path: Path) -> None:
    """One kind, all kinds, or files for editors."""
    job = json.loads((await windlass("schema", "jobs")).out)
    assert job["title"] == "Job"
    assert "oneOf" in json.loads((await windlass("schema")).out)
    written = await windlass("schema", "--write", str(tmp_path / "out"))
    assert len(written.out.splitlines()) == 6
    assert json.loads((tmp_path / "out/job.schema.json").read_text()) == job


async def test_doctor_says_for_each_line_what_to_do(tmp_path: Path) -> None:
    """A held port is a failure, with the flag that helps; exit code 1."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        state = str(tmp_path / "state")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WINDLASS_API_PORT", port)
            patch.setenv("WINDLASS_SERVING_PORT", "0")
            ran = await windlass("doctor", "--state", state, "--server", "127.0.0.1:9")
            as_json = await windlass("doctor", "--state", state, "--json")
    lines = {words[1]: words for words in map(str.split, ran.out.splitlines())}
    assert ran.code == 1
    assert lines["api-port"][0] == "fail"
    assert "--api-port" in " ".join(lines["api-port"])
    assert lines["daemon"][0] == "warn"
    for name in ("python", "sqlite", "git", "state-folder", "adapter-local", "serving-port"):
        assert lines[name][0] == "ok", lines[name]
    assert {"level", "name", "message"} == set(json.loads(as_json.out)[0])


@pytest.mark.parametrize("word", ["version", "--version"])
async def test_version_names_the_version(word: str) -> None:
    """One line."""
    ran = await windlass(word)
    assert re.fullmatch(r"windlass \d+\.\d+\.\d+\n", ran.out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("validate", "/no/such"), "there is no /no/such"),
        (("plan", "/no/such"), "there is no /no/such"),
        (("up", "/no/such"), "there is no /no/such"),
        (("up", ".", "--api-port", "99999"), "setting api_port"),
        (("schema", "pod"), "there is no kind 'pod'"),
        (("schema", "--write", "/proc/nowhere"), "cannot write to /proc/nowhere"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("get", "--frob"), "No such option"),
    ],
)
async def test_every_error_is_two_lines(words: tuple[str, ...], said: str) -> None:
    """``error:`` and ``hint:``, exit code 1, also for what is typed wrongly."""
    ran = await windlass(*words)
    assert (ran.code, ran.out) == (1, "")
    error, hint = ran.err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: ")


async def test_the_hint_at_a_command_that_is_none_is_one_that_works() -> None:
    """The list of commands; for a wrong option, the help of its command."""
    assert (await windlass("frobnicate")).err.endswith("hint: windlass --help\n")
    assert (await windlass("get", "--frob")).err.endswith("hint: windlass get --help\n")


async def test_a_wrong_setting_in_the_environment_is_named() -> None:
    """By its variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINDLASS_WORKERS", "many")
        ran = await windlass("up", ".")
    assert ran.code == 1
    assert "WINDLASS_WORKERS" in ran.err
