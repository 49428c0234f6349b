"""One loaded ONNX model: what a Deployment's version runs on (the far end of hop 7).

Blocking; called from threads only. Loading and running release the interpreter lock for most of
their time, so that requests go on meanwhile.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from windlass.serving.orders import CPU, Options
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
_TRIM_AFTER = 16 << 20
"""Bytes of dropped models after which memory goes back to the system. Small models that follow each
other use the same again; to return it each time would cost them more than to load."""
_LOCATION = b"\n\x08location\x12"
"""Before the name of a file with weights, whose length is the next byte."""
_SOURCE_FILE = re.compile(r"/onnxruntime_src/\S+ ")


class ModelError(Exception):
    """The file cannot be served. The message says why and what to do."""


class RunError(Exception):
    """The model refused this input. The message has the runtime's words."""


class OnnxModel:
    """A session that has answered its probe."""

    _dropped = 0
    """Bytes of all models that were closed since memory went back to the system."""

    def __init__(self, session: onnxruntime.InferenceSession, signature: Signature) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._names = [spec.name for spec in signature.inputs]
        self.signature = signature
        self.outputs = tuple(spec.name for spec in signature.outputs)
        self.steady = all(-1 not in spec.shape[1:] and spec.shape for spec in signature.inputs)
        """Whether all that a request can choose is the number of rows."""
        self.clock: Callable[[], float] = time.perf_counter
        """Measures a run: with one thread that thread's own time, which waiting does not count."""
        self.batches = False
        """Whether rows can run together without a change of their results: tried at the load."""
        self.size = 0
        """Bytes of the file, which is about what it takes of the memory."""
        self.curve: list[tuple[int, float]] = []
        """(rows, seconds) of the runs of that trial."""

    @classmethod
    def load(cls, path: Path, wanted: Options) -> OnnxModel:
        """Read the file and run it once on zeros. Raises ModelError.

        By its path: weights that lie beside it are mapped, and never in the memory twice.
        """
        threads, providers = wanted.threads, wanted.providers
        _check_file(path)
        _check_providers(providers)
        try:
            session = onnxruntime.InferenceSession(
                str(path), _options(wanted), providers=list(providers)
            )
        except Exception as error:  # the runtime's exceptions share no base
            raise ModelError(
                f"{path} is no ONNX model that can be loaded: {_plain(error)}"
            ) from error
        model = cls(session, _signature(session))
        if threads == 1 and providers[0] == CPU:
            model.clock = time.thread_time
        model.size = _size(path)
        model._probe()
        if wanted.batching.max_rows > 1:
            trial = Trial(model)
            model.batches = trial.rows_are_independent()
            model.curve = trial.curve
        return model

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """One inference; inputs in the model's order. Raises RunError, which after a good probe
        means that the input is wrong: sizes that do not go together, or an index out of range.
        """
        if self._session is None:
            raise AssertionError("a closed model was asked to run")
        try:
            results: list[Array] = self._session.run(
                outputs, dict(zip(self._names, inputs, strict=True))
            )
        except Exception as error:  # the runtime's exceptions share no base
            raise RunError(f"it cannot run on this input: {_plain(error)}") from error
        return results

    def close(self) -> None:
        """Give the memory back. Nothing may run any more."""
        self._session = None
        # Versions before this one may be in circles, which nothing else would look at for long.
        gc.collect()
        OnnxModel._dropped += self.size
        if OnnxModel._dropped >= _TRIM_AFTER:
            trim_memory()

    def _probe(self) -> None:
        inputs = [_zeros(spec) for spec in self.signature.inputs]
        try:
            results = self.run(inputs, self.outputs)
        except RunError as error:
            shapes = ", ".join(
                f"{name} {list(array.shape)}"
                for name, array in zip(self._names, inputs, strict=True)
            )
            raise ModelError(
                f"the model loads, but fails a probe with zeros ({shapes}): {error};"
                " if 1 is no possible size of a dynamic axis, export the model with a fixed one"
            ) from error
        for spec, result in zip(self.signature.outputs, results, strict=True):
            if not isinstance(result, np.ndarray):
                raise ModelError(f"output {spec.name} is no tensor; export the model without it")


class Trial:
    """Whether rows of a model can run together: random rows alone, and as one batch."""

    ROWS = 4
    LONGEST = 2.0
    """Seconds of a single run above which nothing is tried, and nothing batched."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._random = np.random.default_rng(7)
        self.curve: list[tuple[int, float]] = []

    def rows_are_independent(self) -> bool:
        """Whether each row of the batch has the result of the row alone, within float tolerance."""
        signature = self._model.signature
        specs = (*signature.inputs, *signature.outputs)
        if not all(spec.shape and spec.shape[0] == -1 for spec in specs):
            return False
        if not signature.inputs:
            return False
        rows = [[self._row(spec) for spec in signature.inputs] for _ in range(self.ROWS)]
        batch = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        try:
            alone = [self._timed(1, row) for row in rows]
            if self.curve[-1][1] > self.LONGEST:
                return False
            together = self._timed(self.ROWS, batch)
            self._timed(self.ROWS, batch)
        except RunError:
            return False  # these values are none for it; nothing is known, so nothing is batched
        del self.curve[0]  # the first run is not like the others
        return all(
            all(part.ndim and part.shape[0] == 1 for part in parts)
            and _same(result, np.concatenate(parts))
            for result, *parts in zip(together, *alone, strict=True)
        )

    def _timed(self, rows: int, inputs: Sequence[Array]) -> list[Array]:
        started = self._model.clock()
        results = self._model.run(inputs, self._model.outputs)
        self.curve.append((rows, self._model.clock() - started))
        return results

    def _row(self, spec: TensorSpec) -> Array:
        shape = (1, *(1 if size == -1 else size for size in spec.shape[1:]))
        if spec.datatype == "BYTES":
            return self._random.choice(np.array(["", "a"], dtype=object), shape)
        if spec.datatype.startswith("FP"):
            return self._random.normal(size=shape).astype(DATATYPES[spec.datatype].dtype)
        return self._random.integers(0, 2, shape).astype(DATATYPES[spec.datatype].dtype)


def _same(together: Array, alone: Array) -> bool:
    if together.shape != alone.shape:
        return False
    if together.dtype.kind != "f":
        return bool((together == alone).all())
    wide, single = together.astype(np.float64), alone.astype(np.float64)
    scale = float(np.max(np.abs(single[np.isfinite(single)]), initial=1.0))
    return bool(np.allclose(wide, single, rtol=1e-3, atol=1e-4 * scale, equal_nan=True))


def trim_memory() -> None:
    """Return freed memory to the system; glibc alone would keep most of a dropped model."""
    OnnxModel._dropped = 0
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


def _check_providers(wanted: Sequence[str]) -> None:
    there = onnxruntime.get_available_providers()
    if missing := [name for name in wanted if name not in there]:
        raise ModelError(
            f"{', '.join(missing)} is not available in this ONNX Runtime, which has"
            f" {', '.join(there)}; install the build that has it, or mend spec.options.providers"
        )


def _size(path: Path) -> int:
    """Bytes of the model, with the weights that lie in files beside it."""
    total = path.stat().st_size
    if not total:
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        names = set()
        at = content.find(_LOCATION)
        while at != -1:
            start = at + len(_LOCATION) + 1
            names.add(content[start : start + content[start - 1]].decode(errors="replace"))
            at = content.find(_LOCATION, start)
    beside = [path.parent / name for name in names]
    return total + sum(each.stat().st_size for each in beside if each.is_file())


def _options(wanted: Options) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = wanted.threads
    if not wanted.prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
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
