"""The look at a Model's artifact, inside the ``prepare`` process: get it, check it, read it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.bundle import BundleError, model_file
from windlass_adapters.local.models import DownloadError, ModelBody, ModelOrder, Prepared
from windlass_adapters.local.outcome import FULL
from windlass_adapters.local.processes import die_with_parent
from windlass_adapters.local.storage import load
from windlass_schemas import Artifact, Reason, Signature

SIGNATURE_MODULE = "windlass_adapters.local.signature"
_READ_TIMEOUT = 600.0
"""Seconds that ONNX Runtime may take to load a file."""
_WORDS = 600
"""Characters of its complaint that are passed on."""
_OTHERS = (
    (rb"\x80[\x02-\x05]", "a Python pickle", "skl2onnx for scikit-learn"),
    (rb"PK\x03\x04", "a zip archive, as PyTorch writes", "torch.onnx.export"),
    (rb"\x89HDF", "an HDF5 file, as Keras writes", "tf2onnx"),
    (rb"(?s).{8}\{", "a safetensors file, which holds no graph", "torch.onnx.export"),
)
"""What people train instead: how it begins, what it is, and what makes ONNX of it."""


def inspect_order(path: Path) -> Prepared:
    """Do what the order says. Every fault is a result, so that somebody reads it."""
    try:
        order = load(path, ModelOrder)
        if order is None:
            return Prepared(reason=Reason.INTERRUPTED, message="deleted", attempt_counts=False)
        return _inspect(ArtifactStore(Path(order.store)), order.body)
    except OSError as error:
        full = error.errno in FULL
        return Prepared(
            reason=Reason.STORAGE_FULL if full else Reason.BACKEND_UNAVAILABLE,
            message=f"{error.filename or 'the artifact store'}: {error.strerror or error};"
            + (" make room on that disk" if full else " check the state folder"),
            attempt_counts=False,
        )
    except DownloadError as error:
        return Prepared(reason=error.reason, message=str(error), attempt_counts=not error.passes)


def _inspect(store: ArtifactStore, body: ModelBody) -> Prepared:
    artifact = body.artifact
    if artifact is None and body.files:
        if missing := sorted(n for n, each in body.files.items() if not store.has(each.digest)):
            return Prepared(
                reason=Reason.INVALID_ARTIFACT,
                message=f"{missing[0]} is no longer in the artifact store; commit it again",
            )
        artifact = store.put_together(body.files, "model.tar")
    if artifact is None:
        assert body.url is not None, "a model has an artifact or an address"
        # Here, for an HTTP client takes longer to load than most models.
        from windlass_adapters.local.download import download

        artifact = download(body.url, body.digest, store)
    if body.digest is not None and artifact.digest != body.digest:
        return Prepared(
            reason=Reason.DIGEST_MISMATCH,
            message=f"the artifact is {artifact.digest}, but spec.digest says {body.digest};"
            " mend spec.digest or the source",
        )
    if not store.has(artifact.digest):
        return Prepared(
            reason=Reason.INVALID_ARTIFACT,
            message=f"{artifact.name} ({artifact.digest}) is no longer in the artifact store;"
            " put the file back, or run again the Job that makes it",
        )
    return _read(store, artifact)


def _read(store: ArtifactStore, artifact: Artifact) -> Prepared:
    """Have ONNX Runtime read the file, in a process of its own: it may crash on a hostile one."""
    try:
        model = model_file(store.root, artifact.digest)
    except BundleError as error:
        return _unreadable(artifact, str(error))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", SIGNATURE_MODULE, str(model)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_READ_TIMEOUT,
            check=False,
            preexec_fn=die_with_parent,
        )
    except subprocess.TimeoutExpired:
        return _unreadable(artifact, f"it was not loaded within {_READ_TIMEOUT:.0f} s")
    if done.returncode < 0:
        return _unreadable(artifact, f"ONNX Runtime crashed on it (signal {-done.returncode})")
    if done.returncode:
        if other := _other(model):
            return _unreadable(artifact, f"it is {other[0]}", f"export it as ONNX: {other[1]}")
        said = done.stderr.decode(errors="replace").strip()
        return _unreadable(artifact, said.replace(f"Load model from {model} failed:", "")[-_WORDS:])
    try:
        signature = Signature.model_validate_json(done.stdout)
    except ValidationError:
        return _unreadable(artifact, "its inputs and outputs cannot be told")
    return Prepared(artifact=artifact, signature=signature)


def _other(model: Path) -> tuple[str, str] | None:
    """What else the file is, and what makes ONNX of that."""
    with model.open("rb") as file:
        begins = file.read(16)
    return next(((what, tool) for magic, what, tool in _OTHERS if re.match(magic, begins)), None)


def _unreadable(
    artifact: Artifact,
    why: str,
    todo: str = "give one file in ONNX format, or a folder or tar archive where the weights lie"
    " beside it",
) -> Prepared:
    return Prepared(
        reason=Reason.INVALID_ARTIFACT,
        message=f"{artifact.name} is no ONNX model that can be loaded: {why}; {todo}",
    )
