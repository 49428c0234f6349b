"""The Open Inference Protocol v2 over gRPC, as tritonclient speaks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import onnx_models
from rig.serving import Serving

RIG = Path(onnx_models.__file__).parent
PROTO = "windlass/serving/grpc_v2/inference.proto"
DAEMON = RIG.parents[1] / "daemon"
FIELDS = """
import json, sys
from {module} import {name} as pb
def walk(message, found):
    for field in message.fields:
        found[field.full_name] = [field.number, field.type, field.is_repeated]
    for inner in message.nested_types:
        walk(inner, found)
found = {{}}
for message in pb.DESCRIPTOR.message_types_by_name.values():
    walk(message, found)
for service in pb.DESCRIPTOR.services_by_name.values():
    for method in service.methods:
        found[method.full_name] = [method.input_type.full_name, method.output_type.full_name]
sys.stdout.write(json.dumps(found))
"""


def python(*arguments: str) -> dict[str, object]:
    """Run Python in a process of its own; its JSON."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What tritonclient got."""
    folder = tmp_path_factory.mktemp("grpc")
    with Serving(folder / "state", 0, "--grpc-port", "0") as serving:
        for datatype in ("BOOL", "BYTES", *onnx_models.ONNX_TYPES):
            name = datatype.lower()
            serving.deploy(name, onnx_models.identity(folder / f"{name}.onnx", datatype))
        place = f"127.0.0.1:{serving.announcement['grpc_port']}"
        yield python(str(RIG / "triton_grpc_calls.py"), place)


def test_the_generated_messages_are_those_of_the_proto_file(tmp_path: Path) -> None:
    """After a change of the file: make proto."""
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}"]
    subprocess.run([*command, PROTO], cwd=DAEMON, check=True, timeout=60)
    made = PROTO.replace(".proto", "_pb2.py")
    assert (tmp_path / made).read_text() == (DAEMON / made).read_text()


def test_every_name_and_number_is_the_public_protocols() -> None:
    ours = python("-c", FIELDS.format(module="windlass.serving.grpc_v2", name="inference_pb2"))
    theirs = python("-c", FIELDS.format(module="tritonclient.grpc", name="service_pb2"))
    assert len(ours) > 100
    assert {name: theirs.get(name) for name in ours} == ours


class TestTritonclient:
    def test_it_finds_the_server_and_the_models_ready(self, calls: dict[str, object]) -> None:
        assert [calls[name] for name in ("live", "ready", "model ready")] == [True] * 3
        assert calls["unknown ready"] is False

    def test_it_reads_metadata_statistics_and_index(self, calls: dict[str, object]) -> None:
        assert isinstance(calls["server"], dict)
        assert "statistics" in calls["server"]["extensions"]
        assert isinstance(calls["model"], dict)
        assert calls["model"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "2"]}]
        assert isinstance(calls["statistics"], dict)
        assert calls["statistics"]["model_stats"][0]["name"] == "fp32"
        assert isinstance(calls["index"], list)
        assert "fp32" in calls["index"]

    def test_the_specs_say_what_is_unloaded(self, calls: dict[str, object]) -> None:
        assert calls["unload"] == "StatusCode.PERMISSION_DENIED"

    def test_every_datatype_comes_back(self, calls: dict[str, object]) -> None:
        assert calls["echo"] == calls["expected"]

    def test_typed_contents_are_answered_with_typed_contents(
        self, calls: dict[str, object]
    ) -> None:
        assert calls["typed"] == {
            "BOOL": ["True", "False"],
            "INT8": ["1", "2"],
            "UINT64": ["1", "2"],
            "FP32": ["1.0", "2.0"],
            "FP64": ["1.0", "2.0"],
            "BYTES": [str("é".encode()), "b''"],
        }

    def test_a_stream_goes_on_after_a_refusal(self, calls: dict[str, object]) -> None:
        assert isinstance(calls["stream"], list)
        assert isinstance(calls["expected"], dict)
        first, second, third = calls["stream"]
        assert first == third == calls["expected"]["FP32"]
        assert second[0] == "error"
        assert 'no model "none" is served here' in second[1]

    def test_requests_at_once_are_each_answered(self, calls: dict[str, object]) -> None:
        assert calls["at once"] == 8

    def test_its_errors_carry_the_status_and_the_words(self, calls: dict[str, object]) -> None:
        assert calls["wrong shape"] == [
            "StatusCode.INVALID_ARGUMENT",
            'model fp32: input "x": shape [1, 3] has 3 on axis 1, not 2;'
            ' the model takes "x" FP32 [-1, 2]',
        ]
        assert isinstance(calls["unknown model"], list)
        assert calls["unknown model"][0] == "StatusCode.NOT_FOUND"


def test_a_grpc_port_in_use_is_said_with_the_setting(tmp_path: Path) -> None:
    with Serving(tmp_path / "one", 0, "--grpc-port", "0") as first:
        port = first.announcement["grpc_port"]
        command = [sys.executable, "-m", "windlass.serving", "--state", str(tmp_path / "two")]
        done = subprocess.run(
            [*command, "--port", "0", "--grpc-port", str(port)],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 98
        error = json.loads((tmp_path / "two" / "error.json").read_text())
        assert error["reason"] == "PortInUse"
        assert "params.grpcPort of the Target" in error["message"]
        assert b"Traceback" not in done.stderr
