"""Valid documents of each kind, as a source would read them: hop 1, without a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from windlass.store.base import Document
from windlass_schemas import Artifact, digest_of_resource, parse_resource


def document(kind: str, name: str, spec: Mapping[str, object], **policy: object) -> Document:
    """A valid document of ours; nothing is in the files that it names."""
    return _document(kind, name, spec, {}, policy)


def filed(
    kind: str, name: str, spec: Mapping[str, object], contents: Mapping[str, bytes]
) -> Document:
    """A valid document, where it matters what is in the files that it names."""
    return _document(kind, name, spec, contents, {})


def _document(
    kind: str,
    name: str,
    spec: Mapping[str, object],
    contents: Mapping[str, bytes],
    policy: Mapping[str, object],
) -> Document:
    text: dict[str, object] = {
        "apiVersion": "windlass/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    if policy:
        text["policy"] = policy
    resource = parse_resource(text)
    files = {path: _file(path, contents) for _, path in resource.spec.named_files()}
    digest = digest_of_resource(resource, {path: a.digest for path, a in files.items()})
    return Document(resource, files, digest, f"{name}.yaml", 1)


def _file(path: str, contents: Mapping[str, bytes]) -> Artifact:
    if path not in contents:
        return Artifact(digest="sha256:" + "0" * 64, size=1, name=path)
    data = contents[path]
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return Artifact(digest=digest, size=len(data), name=path.rpartition("/")[2])


def job(
    name: str = "train", *, params: Mapping[str, object] | None = None, **policy: object
) -> Document:
    """A Job with one output, ``model``."""
    spec: dict[str, object] = {"command": ["train"], "outputs": {"model": "model.onnx"}}
    if params is not None:
        spec["params"] = params
    return document("Job", name, spec, **policy)


def model(name: str = "wine", source: str = "train", **policy: object) -> Document:
    """A Model from a Job's output."""
    spec = {"source": {"job": {"name": source, "output": "model"}}}
    return document("Model", name, spec, **policy)


def deployment(name: str = "wine", of: str = "wine", **policy: object) -> Document:
    """A Deployment of a Model."""
    return document("Deployment", name, {"model": of}, **policy)


def kept_file(name: str = "wine", version: int = 1, **policy: object) -> Document:
    """A Model from a file: something that lasts and needs nothing else."""
    return document("Model", name, {"source": {"file": f"v{version}.onnx"}}, **policy)
