"""A disk that takes no more, and what else the machine does to the local adapter."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from pathlib import Path

import httpx
import pytest
from pydantic import JsonValue, ValidationError

from rig.local import LocalTarget, start
from windlass_adapters.base import (
    AdapterError,
    AmbiguousError,
    ErrorClass,
    External,
    Found,
    Infers,
    ReadsLogs,
    State,
    TerminalError,
    TransientError,
    WaitingError,
    Wanted,
)
from windlass_adapters.local import LocalAdapter, processes
from windlass_adapters.local.outcome import collect, ended, interrupted, not_started
from windlass_adapters.local.params import DeploymentOptions, LocalParams
from windlass_adapters.local.records import (
    BrokenRecordError,
    claim,
    read_process,
    read_record,
    write_record,
)
from windlass_schemas import Artifact, Reason


def refuse(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has no room from now on."""

    def no_room(*_: object, **__: object) -> None:
        raise refuse(errno.ENOSPC)

    monkeypatch.setattr(os, "fsync", no_room)
    monkeypatch.setattr(tempfile, "mkstemp", no_room)
    monkeypatch.setattr(tempfile, "mkdtemp", no_room)


OBJECTS: dict[str, dict[str, JsonValue]] = {
    "Job": {"command": ["true"]},
    "Model": {"source": {"file": "model.onnx"}},
    "Deployment": {"model": "wine"},
}


@pytest.mark.parametrize("kind", OBJECTS)
async def test_a_full_disk_is_waited_for_and_leaves_nothing_half_made(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """For each kind: the reason, the folder, and what to do."""
    target = LocalTarget(tmp_path)
    inputs = {"Model/default/wine:artifact": target.store.put(b"x", "model.onnx")}
    files = {"model.onnx": b"x"} if kind == "Model" else {}
    desired = target.desired(kind, "wine", OBJECTS[kind], files=files, inputs=inputs)
    request.getfixturevalue("full_disk")
    async with target.adapter() as adapter:
        with pytest.raises(WaitingError, match="No space left on device; make room") as caught:
            await start(adapter, desired)
        assert caught.value.reason is Reason.STORAGE_FULL
        assert str(target.state) in str(caught.value)
        assert await adapter.find(desired.owner) == []
    assert [path.name for path in target.state.rglob("*") if path.is_file()] == []


def test_a_full_disk_while_outputs_are_kept_costs_no_attempt(
    tmp_path: Path, full_disk: None
) -> None:
    """The program did its part."""
    (tmp_path / "out").write_text("made")
    outcome = collect(tmp_path, {"out": "out"}, tmp_path / "store")
    assert (outcome.reason, outcome.attempt_counts) == (Reason.STORAGE_FULL.value, False)
    assert "make room" in outcome.message
    assert list((tmp_path / "store" / "incoming").iterdir()) == []


def test_every_reason_of_a_run_is_of_the_catalogue(tmp_path: Path) -> None:
    """The runner writes them as plain text, for it loads no catalogue."""
    log = tmp_path / "stderr.log"
    log.touch()
    outcomes = [interrupted(""), not_started("x", refuse(errno.ENOENT))]
    outcomes += [ended(status, log, []) for status in (1, 255, -9, -11, -64)]
    outcomes.append(collect(tmp_path, {"out": "out"}, tmp_path))
    assert {Reason(outcome.reason) for outcome in outcomes} == {
        Reason.INTERRUPTED,
        Reason.FAILED,
        Reason.OUTPUT_MISSING,
    }


@pytest.mark.parametrize(
    ("exception", "class_"),
    [
        (TransientError("x"), TransientError),
        (WaitingError("x"), WaitingError),
        (TerminalError("x"), TerminalError),
        (AmbiguousError("x"), AmbiguousError),
        (refuse(errno.ENOSPC), WaitingError),
        (refuse(errno.EROFS), WaitingError),
        (refuse(errno.EIO), TransientError),
        (TimeoutError(), AmbiguousError),
        (httpx.ConnectError("x"), TransientError),
        (BrokenRecordError("x"), TransientError),
        (KeyError("x"), TerminalError),
    ],
)
def test_each_exception_has_its_class(
    tmp_path: Path, exception: Exception, class_: ErrorClass
) -> None:
    """What waits, what is retried, what is looked up, and what needs a person."""
    assert LocalTarget(tmp_path).adapter().classify(exception) is class_


def test_only_another_digest_is_a_difference(tmp_path: Path) -> None:
    """What is on its way already is none."""
    adapter = LocalTarget(tmp_path).adapter()
    external = External("server", "wine", "wine")
    wanted = Wanted("server", "wine", "sha256:new", {})
    old = Found(external, "u", State.LIVE, digest="sha256:old")
    (change,) = adapter.diff(wanted, old)
    assert (change.held, change.wanted) == ("sha256:old", "sha256:new")
    on_its_way = Found(external, "u", State.PROGRESSING, pending_digest="sha256:new")
    assert adapter.diff(wanted, on_its_way) == ()
    assert adapter.diff(wanted, Found(external, "u", State.LIVE, digest="sha256:new")) == ()


def test_the_adapter_reads_logs_and_infers(tmp_path: Path) -> None:
    """The two further contracts, as the daemon asks for them."""
    adapter = LocalTarget(tmp_path).adapter()
    assert isinstance(adapter, LocalAdapter)
    assert isinstance(adapter, ReadsLogs)
    assert isinstance(adapter, Infers)
    assert issubclass(AdapterError, Exception)
    assert set(LocalAdapter.options_models) == {"Job", "Model", "Deployment"}


@pytest.mark.parametrize("threads", [0, 65, "many"])
def test_options_and_params_are_checked(threads: JsonValue) -> None:
    """Out of range, and words that nobody reads."""
    with pytest.raises(ValidationError):
        DeploymentOptions.model_validate({"threads": threads})
    with pytest.raises(ValidationError):
        LocalParams.model_validate({"prot": 1})
    assert LocalParams().port == 8701


def test_a_process_is_known_by_start_time_and_boot_and_not_by_pid() -> None:
    """A number alone proves nothing."""
    me = processes.this_process()
    assert processes.is_alive(me)
    assert not processes.is_alive(me._replace(start_ticks=me.start_ticks + 1))
    assert not processes.is_alive(me._replace(boot_id="another"))
    assert not processes.send(me._replace(boot_id="another"), signal.SIGKILL)


def test_a_claim_is_taken_once_and_a_record_is_whole_or_broken(tmp_path: Path) -> None:
    """Two readers never see two halves."""
    path = tmp_path / "claim.json"
    assert claim(path)
    assert not claim(path)
    assert read_process(path) == processes.this_process()
    assert [entry.name for entry in tmp_path.iterdir()] == ["claim.json"]
    write_record(path, {"a": "äß漢"})
    assert read_record(path) == {"a": "äß漢"}
    with pytest.raises(BrokenRecordError, match="names no process"):
        read_process(path)
    path.write_text("{")
    with pytest.raises(BrokenRecordError, match="cannot be read"):
        read_record(path)
    assert read_record(tmp_path / "none") is None


async def test_names_that_leave_the_state_folder_are_refused(tmp_path: Path) -> None:
    """An external's name comes from a store that somebody may have edited."""
    target = LocalTarget(tmp_path)
    desired = target.desired("Job", "x", {"command": ["true"]})
    async with target.adapter() as adapter:
        for role in ("run", "artifact"):
            for name in ("../x", "..", ".staging-1", "", "a/b"):
                with pytest.raises(TerminalError, match="is no name of a"):
                    await adapter.delete(desired.owner, External(role, name, name))


def test_a_missing_artifact_of_a_deployment_names_the_model(tmp_path: Path) -> None:
    """Artifacts reach the adapter by slot."""
    target = LocalTarget(tmp_path)
    artifact = Artifact(digest="sha256:" + "1" * 64, size=1, name="m")
    desired = target.desired("Deployment", "wine", {"model": "wine"}, inputs={"other": artifact})
    with pytest.raises(WaitingError, match="Model/wine has no artifact yet"):
        target.adapter().normalise(desired)
