"""What of a Job decides its result, and which Jobs this machine cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.local import LocalTarget
from windlass_adapters.base import TerminalError, WaitingError, Wanted
from windlass_schemas import Artifact, Reason

BASE: dict[str, JsonValue] = {
    "entrypoint": "main.py",
    "params": {"n": 1},
    "env": {"A": "env:A"},
    "outputs": {"model": "model.onnx"},
    "inputs": {"data": {"job": {"name": "first", "output": "data"}}},
}
UPSTREAM = Artifact(digest="sha256:" + "1" * 64, size=1, name="data.csv")


def wanted(tmp_path: Path, spec: dict[str, JsonValue], text: str = "pass", **more: str) -> Wanted:
    target = LocalTarget(tmp_path, {k: v for k, v in more.items() if k != "digest"})
    given = UPSTREAM.model_copy(update={"digest": more.get("digest", UPSTREAM.digest)})
    desired = target.desired(
        "Job",
        "train",
        spec,
        files={"main.py": text, "more/x.py": ""},
        inputs={"Job/default/first:data": given},
    )
    (found,) = target.adapter().normalise(desired)
    return found


def test_the_name_says_object_uid_and_content(tmp_path: Path) -> None:
    """So that an external can be told apart by reading its folder's name."""
    found = wanted(tmp_path, BASE)
    assert found.name == f"default.train-01234567-{found.digest[7:15]}"
    assert found.completes


@pytest.mark.parametrize(
    "change",
    [
        {"timeLimit": "5m"},
        {"retries": 3},
        {"onChange": "replace"},
    ],
)
def test_limits_and_retries_do_not_make_another_run(
    tmp_path: Path, change: dict[str, JsonValue]
) -> None:
    """Editing how long a Job may take retrains nothing."""
    assert wanted(tmp_path, BASE | change).digest == wanted(tmp_path, BASE).digest


@pytest.mark.parametrize(
    "change",
    [
        {"params": {"n": 2}},
        {"params": {"n": 1.0}},
        {"params": {"n": True}},
        {"env": {"A": "env:B"}},
        {"outputs": {"model": "other.onnx"}},
        {"python": "/usr/bin/python3"},
        {"files": ["more"]},
    ],
)
def test_whatever_decides_the_result_makes_another_run(
    tmp_path: Path, change: dict[str, JsonValue]
) -> None:
    """Including a param that only changes its type."""
    assert wanted(tmp_path, BASE | change).digest != wanted(tmp_path, BASE).digest


def test_script_input_and_the_targets_python_make_another_run(tmp_path: Path) -> None:
    """The content behind a path counts, not the path alone."""
    digests = {
        wanted(tmp_path, BASE).digest,
        wanted(tmp_path, BASE, "print()").digest,
        wanted(tmp_path, BASE, digest="sha256:" + "2" * 64).digest,
        wanted(tmp_path, BASE, python="/usr/bin/python3").digest,
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"entrypoint": "missing.py"}, "missing.py is not beside the document"),
        ({"entrypoint": "more"}, "more is a folder"),
        ({"inputs": {"d": {"file": "more"}}}, "spec.inputs.d.file: more is not a file"),
        ({"outputs": {"model": "main.py"}}, "main.py is also given to the program"),
        ({"params": {"a-b": 1, "a_b": 2}}, "would share the variable WINDLASS_PARAM_A_B"),
        ({"params": {"a": "x\0y"}}, "a NUL character cannot reach a program"),
    ],
)
def test_a_job_that_cannot_run_here_is_refused_with_the_field(
    tmp_path: Path, change: dict[str, JsonValue], said: str
) -> None:
    """Before anything starts."""
    with pytest.raises(TerminalError, match=said) as caught:
        wanted(tmp_path, BASE | change)
    assert caught.value.reason is Reason.INVALID_SPEC


def test_an_input_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """The kernel resolves references first; should one be missing, no attempt is lost."""
    target = LocalTarget(tmp_path)
    desired = target.desired("Job", "train", BASE, files={"main.py": ""})
    with pytest.raises(WaitingError, match="Job/first has no data yet"):
        target.adapter().normalise(desired)
