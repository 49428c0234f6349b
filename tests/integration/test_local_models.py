"""A Model on this machine: real files, real ONNX Runtime, a real HTTP server on the loopback."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar

import onnx
import pytest
from onnx import TensorProto, helper
from pydantic import JsonValue

from rig.local import LocalTarget, create_of, gone, lives, look, settled, start, until
from windlass_adapters.base import (
    Absent,
    Desired,
    External,
    Found,
    State,
    TerminalError,
    Unknown,
    Update,
)
from windlass_adapters.local import LocalAdapter, processes
from windlass_schemas import MODEL_ARTIFACT, Reason, Signature, Tensor


def model_bytes(factor: float = 2.0) -> bytes:
    """A small model: one input of any number of rows, multiplied."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "k"], ["y"])],
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor("k", TensorProto.FLOAT, [1], [factor])],
    )
    opsets = [helper.make_opsetid("", 17)]
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return made


SIGNATURE = Signature(
    inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 3)),),
    outputs=(Tensor(name="y", datatype="FP32", shape=(-1, 3)),),
)


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
async def target(tmp_path: Path) -> LocalTarget:
    return LocalTarget(tmp_path)


@pytest.fixture
async def adapter(target: LocalTarget) -> AsyncIterator[LocalAdapter]:
    async with target.adapter() as adapter:
        yield adapter


def from_file(target: LocalTarget, data: bytes, **spec: JsonValue) -> Desired:
    """A Model whose artifact lies beside the document."""
    source: dict[str, JsonValue] = {"source": {"file": "model.onnx"}, **spec}
    return target.desired("Model", "wine", source, files={"model.onnx": data})


def from_url(target: LocalTarget, url: str, digest: str) -> Desired:
    return target.desired("Model", "wine", {"source": {"url": url}, "digest": digest})


async def settle(adapter: LocalAdapter, desired: Desired) -> Found:
    found = await start(adapter, desired)
    return await settled(adapter, desired.owner, found.external)


def update_of(adapter: LocalAdapter, desired: Desired) -> Update:
    wanted = create_of(adapter, desired).wanted
    return Update(External(wanted.role, wanted.name, wanted.name), wanted)


async def change(adapter: LocalAdapter, desired: Desired) -> Found:
    found = await adapter.apply(desired.owner, update_of(adapter, desired))
    return await settled(adapter, desired.owner, found.external)


async def test_a_model_beside_the_document_becomes_live_with_its_signature(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Inputs and outputs in the protocol's words; a dynamic axis is -1."""
    desired = from_file(target, model_bytes())
    wanted = create_of(adapter, desired).wanted
    found = await settle(adapter, desired)
    assert (found.state, found.digest) == (State.LIVE, wanted.digest), found.message
    assert found.external == External("artifact", "default.wine", "default.wine")
    assert found.signature == SIGNATURE
    assert found.outputs[MODEL_ARTIFACT] == desired.files["model.onnx"]
    assert list(await adapter.find(desired.owner)) == [found]
    assert await start(adapter, desired) == found


async def test_a_model_takes_the_output_of_a_job(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """By the slot of the reference."""
    data = model_bytes()
    desired = target.desired(
        "Model",
        "wine",
        {"source": {"job": {"name": "train", "output": "model"}}, "digest": sha256(data)},
        inputs={"Job/default/train:model": target.store.put(data, "model.onnx")},
    )
    assert (await settle(adapter, desired)).state is State.LIVE


async def test_every_type_of_the_protocol_has_its_word(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Read from the file, for all tensor types that ONNX Runtime passes through."""
    words = {
        TensorProto.BOOL: "BOOL",
        TensorProto.UINT8: "UINT8",
        TensorProto.UINT16: "UINT16",
        TensorProto.UINT32: "UINT32",
        TensorProto.UINT64: "UINT64",
        TensorProto.INT8: "INT8",
        TensorProto.INT16: "INT16",
        TensorProto.INT32: "INT32",
        TensorProto.INT64: "INT64",
        TensorProto.FLOAT16: "FP16",
        TensorProto.FLOAT: "FP32",
        TensorProto.DOUBLE: "FP64",
        TensorProto.STRING: "BYTES",
    }
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"x{t}"], [f"y{t}"]) for t in words],
        "types",
        [info(f"x{t}", t, [1]) for t in words],
        [info(f"y{t}", t, [1]) for t in words],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    found = await settle(adapter, from_file(target, model.SerializeToString()))
    assert found.signature is not None, found.message
    assert [t.datatype for t in found.signature.inputs] == list(words.values())


async def test_a_digest_that_does_not_match_shows_both(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """So that one can tell which of the two is wrong."""
    data, declared = model_bytes(), "sha256:" + "a" * 64
    found = await settle(adapter, from_file(target, data, digest=declared))
    assert (found.state, found.reason) == (State.FAILED, Reason.DIGEST_MISMATCH)
    assert sha256(data) in found.message
    assert declared in found.message
    assert (found.digest, found.outputs) == (None, {})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"this is not a model", id="text"),
        pytest.param(model_bytes()[:-20], id="truncated"),
        pytest.param(os.urandom(4096), id="noise"),
    ],
)
async def test_what_is_not_onnx_is_an_invalid_artifact(
    target: LocalTarget, adapter: LocalAdapter, data: bytes
) -> None:
    """And the message says what to give instead."""
    found = await settle(adapter, from_file(target, data))
    assert (found.state, found.reason) == (State.FAILED, Reason.INVALID_ARTIFACT)
    assert "model.onnx is no ONNX model that can be loaded" in found.message
    assert "Traceback" not in found.message
    assert str(target.root) not in found.message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pickle.dumps({"a": 1}), "it is a Python pickle; export it as ONNX: skl2onnx"),
        (b"PK\x03\x04" + bytes(30), "it is a zip archive, as PyTorch writes"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "it is an HDF5 file, as Keras writes"),
        (b"\x40" + bytes(7) + b'{"w":{}}' + bytes(60), "it is a safetensors file"),
    ],
)
async def test_what_people_train_instead_is_called_by_its_name(
    target: LocalTarget, adapter: LocalAdapter, data: bytes, said: str
) -> None:
    found = await settle(adapter, from_file(target, data))
    assert found.reason is Reason.INVALID_ARTIFACT
    assert said in found.message


async def test_weights_outside_the_file_are_refused(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """A lone file's digest is the model's identity, and could not cover a second file."""
    model = onnx.load_from_string(model_bytes())
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/hostname")
    found = await settle(adapter, from_file(target, model.SerializeToString()))
    assert found.reason is Reason.INVALID_ARTIFACT
    assert "or a folder or tar archive where the weights lie beside it" in found.message


async def test_an_artifact_that_left_the_store_says_what_to_do(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """At first a failure; after it was good, an absence that the next create mends."""
    desired = from_file(target, model_bytes())
    path = target.store.path(desired.files["model.onnx"].digest)
    data = path.read_bytes()
    path.unlink()
    found = await settle(adapter, desired)
    assert (found.state, found.reason) == (State.FAILED, Reason.INVALID_ARTIFACT)
    assert "put the file back, or run again the Job" in found.message
    target.store.put(data, "model.onnx")
    assert (await change(adapter, desired)).state is State.LIVE
    path.unlink()
    assert await look(adapter, desired.owner, found.external) == Absent()
    target.store.put(data, "model.onnx")
    assert (await settle(adapter, desired)).state is State.LIVE


def claimant(attempt: Path) -> int:
    """The pid in the claim of a look."""
    pid: int = json.loads((attempt / "claim.json").read_text())["pid"]
    return pid


async def test_a_new_version_takes_over_once_it_is_good_and_a_bad_one_never_does(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """The old artifact stays in force meanwhile, and after a failure."""
    first = await settle(adapter, from_file(target, model_bytes(2.0)))
    newer = from_file(target, model_bytes(3.0))
    sent = await adapter.apply(newer.owner, update_of(adapter, newer))
    wanted = create_of(adapter, newer).wanted
    assert (sent.state, sent.digest) == (State.PROGRESSING, first.digest)
    assert sent.pending_digest == wanted.digest
    assert sent.outputs == first.outputs
    second = await settled(adapter, newer.owner, sent.external)
    assert (second.state, second.digest) == (State.LIVE, wanted.digest)

    bad = from_file(target, b"broken")
    third = await change(adapter, bad)
    assert (third.state, third.digest) == (State.LIVE, second.digest)
    assert third.failed_digest == create_of(adapter, bad).wanted.digest
    assert third.reason is Reason.INVALID_ARTIFACT
    assert third.outputs == second.outputs
    assert third.signature == SIGNATURE


async def test_going_back_to_an_earlier_version_needs_no_second_look(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Its signature is known: it is live in the very reply."""
    old, new = from_file(target, model_bytes(2.0)), from_file(target, model_bytes(3.0))
    first = await settle(adapter, old)
    await change(adapter, new)
    back = await adapter.apply(old.owner, update_of(adapter, old))
    assert (back.state, back.digest) == (State.LIVE, first.digest)
    assert back.outputs == first.outputs


async def test_a_look_that_was_killed_is_taken_again_by_the_next_create(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Nothing is known and nothing under way: absent, not failed."""
    desired = from_file(target, model_bytes())
    found = await settle(adapter, desired)
    (result,) = (target.state / "models" / "default.wine").glob("*/result.json")
    await until(lambda: not lives(claimant(result.parent)), "the end of the process")
    result.unlink()
    assert await look(adapter, desired.owner, found.external) == Absent()
    assert (await settle(adapter, desired)).state is State.LIVE


async def test_a_deleted_model_leaves_its_artifact_for_others(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Files in the store have no owner. Another owner's delete is refused."""
    desired = from_file(target, model_bytes())
    found = await settle(adapter, desired)
    other = desired.owner._replace(uid="other")
    with pytest.raises(TerminalError, match="belongs to another object"):
        await adapter.delete(other, found.external)
    with pytest.raises(TerminalError, match="belongs to another object"):
        await adapter.apply(other, create_of(adapter, desired))
    assert await adapter.find(other) == []
    await gone(adapter, desired.owner, found.external)
    assert list((target.state / "models").iterdir()) == []
    assert target.store.has(desired.files["model.onnx"].digest)
    await adapter.delete(desired.owner, found.external)


async def test_a_model_record_that_cannot_be_read_is_unknown(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Neither absent nor live."""
    desired = from_file(target, model_bytes())
    found = await settle(adapter, desired)
    (target.state / "models" / "default.wine" / "model.json").write_text("[]")
    assert isinstance(await look(adapter, desired.owner, found.external), Unknown)


class Files(http.server.BaseHTTPRequestHandler):
    """Serves ``/model.onnx``, redirects, refuses, fails and dawdles, by path."""

    asked: ClassVar[list[str]] = []
    go_on: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        place = self.path.partition("?")[0]
        if place.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", place.removeprefix("/to/"))
            self.end_headers()
        elif place == "/model.onnx":
            self._answer(200, model_bytes())
        elif place == "/slow":
            self.go_on.wait(20)
        elif place == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
        else:
            self._answer(500 if place == "/broken" else 404, b"no")

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Files.asked.clear()
    Files.go_on.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


async def test_a_model_is_downloaded_once_and_checked(
    target: LocalTarget, adapter: LocalAdapter, server: str
) -> None:
    """With the right digest it is live; a second Model with that digest asks nobody."""
    desired = from_url(target, f"{server}/model.onnx?token=x", sha256(model_bytes()))
    found = await settle(adapter, desired)
    assert found.state is State.LIVE, found.message
    assert found.outputs[MODEL_ARTIFACT].name == "model.onnx"
    assert found.signature == SIGNATURE
    await gone(adapter, desired.owner, found.external)
    assert (await settle(adapter, desired)).state is State.LIVE
    assert Files.asked == ["/model.onnx?token=x"]


@pytest.mark.parametrize(
    ("path", "reason", "counts", "said"),
    [
        ("/model.onnx", Reason.DIGEST_MISMATCH, True, "but spec.digest says sha256:bbbb"),
        ("/nothing?key=secret", Reason.BACKEND_REFUSED, True, "answered 404 Not Found"),
        ("/broken", Reason.BACKEND_UNAVAILABLE, False, "answered 500"),
        ("/short", Reason.BACKEND_UNAVAILABLE, False, "does not answer"),
        ("/to/http://example.test/x", Reason.BACKEND_REFUSED, True, "use an https:// address"),
    ],
)
async def test_a_download_that_fails_says_why_and_whether_another_try_may_help(
    target: LocalTarget,
    adapter: LocalAdapter,
    server: str,
    path: str,
    reason: Reason,
    counts: bool,
    said: str,
) -> None:
    """What a URL carries in its query is never repeated."""
    found = await settle(adapter, from_url(target, server + path, "sha256:" + "b" * 64))
    assert (found.state, found.reason) == (State.FAILED, reason)
    assert found.attempt_counts is counts
    assert said in found.message
    assert "secret" not in found.message


async def test_deleting_a_model_ends_its_download(
    target: LocalTarget, adapter: LocalAdapter, server: str
) -> None:
    """Meanwhile it is progressing, for as long as the other side takes."""
    desired = from_url(target, f"{server}/slow", "sha256:" + "b" * 64)
    found = await start(adapter, desired)
    await until(lambda: "/slow" in Files.asked, "the request")
    seen = await look(adapter, desired.owner, found.external)
    assert isinstance(seen, Found)
    assert seen.state is State.PROGRESSING
    (attempt,) = (target.state / "models" / "default.wine").glob("*/")
    pid = claimant(attempt)
    await gone(adapter, desired.owner, found.external)
    await until(lambda: not lives(pid), "the end of the download")
    Files.go_on.set()


async def test_a_download_that_nobody_answers_may_be_tried_again(
    target: LocalTarget, adapter: LocalAdapter, server: str
) -> None:
    """An update with the same digest takes another look; a create returns what is held."""
    path = target.root / "port"
    data = model_bytes()
    closed = from_url(target, "http://127.0.0.1:1/model.onnx", sha256(data))
    found = await settle(adapter, closed)
    assert (found.state, found.reason) == (State.FAILED, Reason.BACKEND_UNAVAILABLE)
    assert await start(adapter, closed) == found
    target.store.put(data, path.name)
    assert (await change(adapter, closed)).state is State.LIVE


def test_plain_http_is_refused_except_from_this_machine(target_folder: Path) -> None:
    """What is not encrypted can be changed on its way."""
    target = LocalTarget(target_folder)
    desired = from_url(target, "http://example.test/model.onnx", "sha256:" + "b" * 64)
    with pytest.raises(TerminalError, match="use an https:// address") as caught:
        target.adapter().normalise(desired)
    assert caught.value.reason is Reason.INVALID_SPEC


@pytest.fixture
def target_folder(tmp_path: Path) -> Path:
    return tmp_path


async def test_the_prepare_process_outlives_whoever_started_it(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """It is nobody's child and leaves its result where the next daemon looks."""
    desired = from_file(target, model_bytes())
    found = await start(adapter, desired)
    (attempt,) = (target.state / "models" / "default.wine").glob("*/")
    pid = claimant(attempt)
    assert os.getsid(pid) == pid  # leads a session of its own
    assert pid not in processes.descendants(os.getpid())
    await until((attempt / "result.json").exists, "the result")
    async with target.adapter() as another:
        assert (await settled(another, desired.owner, found.external)).state is State.LIVE
