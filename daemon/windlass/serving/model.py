"""One loaded ONNX model: what a Deployment's version runs on (the far end of hop 7).

Blocking; called from threads only. Loading and running release the interpreter lock for most of
their time, so that requests go on meanwhile.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from windlass.serving.tensors import DATATYPES, Array, Signature, TensorSpec

_ONNX_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    **{f"tensor({name.lower()})": name for name in DATATYPES if "INT" in name},
}
_FATAL_ONLY = 4
_SOURCE_FILE = re.compile(r"/onnxruntime_src/\S+ ")


class ModelError(Exception):
    """The file cannot be served. The message says why and what to do."""


class RunError(Exception):
    """The model refused this input. The message has the runtime's words."""


class OnnxModel:
    """A session that has answered its probe."""

    def __init__(self, session: onnxruntime.InferenceSession, signature: Signature) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self.signature = signature

    @classmethod
    def load(cls, path: Path, threads: int) -> OnnxModel:
        """Read the file and run it once on zeros. Raises ModelError."""
        _check_file(path)
        try:
            session = onnxruntime.InferenceSession(
                str(path), _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exceptions share no base
            raise ModelError(
                f"{path} is no ONNX model that can be loaded: {_plain(error)}"
            ) from error
        model = cls(session, _signature(session))
        model._probe()
        return model

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """One inference. Raises RunError, which after a good probe means that the input is wrong:
        sizes that do not go together, or an index out of range.
        """
        if self._session is None:
            raise AssertionError("a closed model was asked to run")
        try:
            results: list[Array] = self._session.run(list(outputs), dict(inputs))
        except Exception as error:  # the runtime's exceptions share no base
            raise RunError(f"it cannot run on this input: {_plain(error)}") from error
        return results

    def close(self) -> None:
        """Give the memory back. Nothing may run any more."""
        self._session = None
        trim_memory()

    def _probe(self) -> None:
        inputs = {spec.name: _zeros(spec) for spec in self.signature.inputs}
        outputs = [spec.name for spec in self.signature.outputs]
        try:
            results = self.run(inputs, outputs)
        except RunError as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            raise ModelError(
                f"the model loads, but fails a probe with zeros ({shapes}): {error};"
                " if 1 is no possible size of a dynamic axis, export the model with a fixed one"
            ) from error
        for spec, result in zip(self.signature.outputs, results, strict=True):
            if not isinstance(result, np.ndarray):
                raise ModelError(f"output {spec.name} is no tensor; export the model without it")


def trim_memory() -> None:
    """Return freed memory to the system; glibc alone would keep most of a dropped model."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise ModelError(f"{path} is missing; build or fetch the artifact again")
    if not path.is_file():
        raise ModelError(f"{path} is not a file; name the .onnx file itself")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} has no bytes; build or fetch the artifact again")


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads take the cores from the other models of this process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Errors come as exceptions; the runtime's own lines would break the JSON log.
    options.log_severity_level = _FATAL_ONLY
    return options


def _signature(session: onnxruntime.InferenceSession) -> Signature:
    return Signature(
        inputs=tuple(_spec(argument, "input") for argument in session.get_inputs()),
        outputs=tuple(_spec(argument, "output") for argument in session.get_outputs()),
    )


def _spec(argument: onnxruntime.NodeArg, side: str) -> TensorSpec:
    datatype = _ONNX_TYPES.get(argument.type)
    if datatype is None:
        advice = (
            "export a scikit-learn classifier with zipmap=False"
            if argument.type.startswith("seq(map(")
            else "export the model with plain tensors"
        )
        raise ModelError(
            f"{side} {argument.name} is {argument.type}, which the Open Inference Protocol cannot"
            f" carry; {advice}"
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
    return TensorSpec(argument.name, datatype, shape, any_rank=not shape)


def _zeros(spec: TensorSpec) -> Array:
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    if spec.datatype == "BYTES":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, dtype=DATATYPES[spec.datatype].dtype)


def _plain(error: BaseException) -> str:
    """The runtime's words, on one line, without its prefix."""
    text = _SOURCE_FILE.sub("", " ".join(str(error).split()))
    parts = text.split(" : ", 3)
    return (parts[-1] if text.startswith("[ONNXRuntimeError]") else text)[:1000]
