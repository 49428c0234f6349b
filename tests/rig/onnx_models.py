"""Small ONNX models, made on the spot, for tests that need a real one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Dims = Sequence[int | str | None] | None

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "BYTES": TensorProto.STRING,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}


def identity(path: Path, datatype: str = "FP32", shape: Dims = (None, 2)) -> Path:
    """A model that gives back its one input ``x`` as ``y``."""
    kind = ONNX_TYPES[datatype]
    return _save(
        path,
        [helper.make_node("Identity", ["x"], ["y"])],
        inputs=[helper.make_tensor_value_info("x", kind, shape)],
        outputs=[helper.make_tensor_value_info("y", kind, shape)],
    )


def constant(path: Path, value: float, width: int = 2) -> Path:
    """A model that answers ``value`` for each number of ``x``, twice: as ``a`` and as ``b``."""
    constants = [
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.array(value, np.float32), "value"),
    ]
    return _save(
        path,
        [
            helper.make_node("Mul", ["x", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "value"], ["a"]),
            helper.make_node("Identity", ["a"], ["b"]),
        ],
        inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
        outputs=[
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width]) for name in "ab"
        ],
        constants=constants,
    )


def addition(path: Path) -> Path:
    """A model of two inputs, ``left`` and ``right``, whose sizes must go together."""
    return _save(
        path,
        [helper.make_node("Add", ["left", "right"], ["sum"])],
        inputs=[
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None])
            for name in ("left", "right")
        ],
        outputs=[helper.make_tensor_value_info("sum", TensorProto.FLOAT, [None])],
    )


def division(path: Path) -> Path:
    """A model that divides one by ``x``: not finite at zero."""
    return _save(
        path,
        [helper.make_node("Div", ["one", "x"], ["y"]), helper.make_node("Sqrt", ["x"], ["root"])],
        inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        outputs=[
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("y", "root")
        ],
        constants=[numpy_helper.from_array(np.array([1], np.float32), "one")],
    )


def loop(path: Path) -> Path:
    """A model that works as long as ``rounds`` says: some 10 ns a round, then gives it back."""
    condition = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["total", "one"], ["total_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            condition,
            helper.make_tensor_value_info("total", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("total_out", TensorProto.INT64, [1]),
        ],
    )
    return _save(
        path,
        [helper.make_node("Loop", ["rounds", "yes", "zero"], ["done"], body=body)],
        inputs=[helper.make_tensor_value_info("rounds", TensorProto.INT64, [1])],
        outputs=[helper.make_tensor_value_info("done", TensorProto.INT64, [1])],
        constants=[
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.array([0], np.int64), "zero"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
        ],
    )


def stall(path: Path) -> Path:
    """A model that gives back ``x``, after as many rounds of work as its largest number says.

    Its rows can run together.
    """
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["total", "one"], ["total_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("total_out", TensorProto.FLOAT, [1]),
        ],
    )
    return _save(
        path,
        [
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Cast", ["largest"], ["rounds"], to=TensorProto.INT64),
            helper.make_node("Loop", ["rounds", "yes", "zero"], ["done"], body=body),
            helper.make_node("Mul", ["done", "zero"], ["nothing"]),
            helper.make_node("Add", ["x", "nothing"], ["y"]),
        ],
        inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        constants=[
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.array([0], np.float32), "zero"),
            numpy_helper.from_array(np.array([1], np.float32), "one"),
        ],
    )


def table(path: Path) -> Path:
    """A model of four rows that are looked up by ``i``: another index than 0 to 3 is refused."""
    return _save(
        path,
        [helper.make_node("Gather", ["rows", "i"], ["y"])],
        inputs=[helper.make_tensor_value_info("i", TensorProto.INT64, [None])],
        outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        constants=[numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "rows")],
    )


def centred(path: Path) -> Path:
    """A model whose rows depend on each other: each less the mean of all."""
    return _save(
        path,
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0]),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
    )


def perceptron(path: Path, sizes: Sequence[int] = (784, 256, 10), seed: int = 0) -> Path:
    """Dense layers with ReLU between them, random weights."""
    random = np.random.default_rng(seed)
    nodes, constants, last = [], [], "x"
    for at, (rows, columns) in enumerate(pairwise(sizes)):
        scale = 1 / np.sqrt(rows)
        weights = random.normal(scale=scale, size=(rows, columns)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"w{at}"))
        constants.append(
            numpy_helper.from_array(random.normal(size=columns).astype(np.float32), f"b{at}")
        )
        ends = at == len(sizes) - 2
        nodes.append(
            helper.make_node("Gemm", [last, f"w{at}", f"b{at}"], ["y" if ends else f"h{at}"])
        )
        if not ends:
            nodes.append(helper.make_node("Relu", [f"h{at}"], [f"r{at}"]))
            last = f"r{at}"
    return _save(
        path,
        nodes,
        inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, sizes[0]])],
        outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, sizes[-1]])],
        constants=constants,
    )


def fussy(path: Path) -> Path:
    """A model that loads, but cannot run with one row: it needs the size 6 on a dynamic axis."""
    return _save(
        path,
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        constants=[numpy_helper.from_array(np.array([2, 3], np.int64), "shape")],
    )


def big(path: Path, megabytes: int, value: float = 0.0) -> Path:
    """A model with that much weight, which takes a while to load."""
    rows = megabytes * (1 << 20) // 4 // 1024
    return _save(
        path,
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, rows])],
        outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1024])],
        constants=[numpy_helper.from_array(np.full((rows, 1024), value, np.float32), "weight")],
    )


def zipmap(path: Path) -> Path:
    """What skl2onnx makes of a classifier by default: an output that is a sequence of maps."""
    scores = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    entry = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    output = helper.make_value_info("p", helper.make_sequence_type_proto(entry))
    node = helper.make_node("ZipMap", ["x"], ["p"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    return _save(path, [node], inputs=[scores], outputs=[output])


def _save(
    path: Path,
    nodes: Sequence[NodeProto],
    *,
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: Sequence[TensorProto] = (),
) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializer=constants)
    model: ModelProto = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    path.write_bytes(model.SerializeToString())
    return path
