"""A Model as this machine must check it: the local adapter's share of ``normalise`` (hop 7). Pure.

Also the two records that go to the ``prepare`` process and come back.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Literal
from urllib.parse import urlsplit

from pydantic import JsonValue

from windlass_adapters.base import Desired, TerminalError, WaitingError, Wanted
from windlass_schemas import (
    Artifact,
    Frozen,
    Model,
    Reason,
    Signature,
    digest_of,
    references_of,
)

ARTIFACT_ROLE = "artifact"


class ModelBody(Frozen):
    """``Wanted.body`` of a model: an artifact that is in the store, or an address to get it."""

    artifact: Artifact | None
    files: Mapping[str, Artifact] = {}
    """Several files that make one artifact, by name: packed together when it is looked into."""
    url: str | None
    digest: str | None
    """As declared."""
    format: str


class ModelOrder(Frozen):
    """``order.json``: what a prepare process must do."""

    store: str
    body: ModelBody


class Prepared(Frozen):
    """``result.json``: what it found. ``reason`` is empty when all is well."""

    reason: Reason | Literal[""] = ""
    message: str = ""
    attempt_counts: bool = True
    """False when another try may go better with nothing changed."""
    artifact: Artifact | None = None
    signature: Signature | None = None


class DownloadError(Exception):
    """The file could not be had."""

    def __init__(self, message: str, reason: Reason, *, passes: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.passes = passes
        """Whether another try may go better with nothing changed."""


def wanted_model(desired: Desired, model: Model) -> Wanted:
    """The one artifact of a Model. Raises TerminalError, and WaitingError for a missing input."""
    for field, fault in model_faults(model):
        raise TerminalError(f"{field}: {fault}", reason=Reason.INVALID_SPEC)
    spec = model.spec
    artifact: Artifact | None = None
    files: dict[str, Artifact] = {}
    if spec.source.file is not None:
        artifact = desired.files.get(spec.source.file)
        folder = spec.source.file.rstrip("/") + "/"
        files = {
            path.removeprefix(folder): each
            for path, each in desired.files.items()
            if path.startswith(folder)
        }
        if artifact is None and not files:
            raise TerminalError(
                f"spec.source.file: {spec.source.file} is no file or folder beside the document;"
                " add it or mend the path",
                reason=Reason.INVALID_SPEC,
            )
    elif spec.source.url is not None:
        check_address(spec.source.url, "spec.source.url")
    else:
        artifact = _from_job(desired, model)
    body = ModelBody(
        artifact=artifact,
        files=files,
        url=spec.source.url,
        digest=spec.digest,
        format=spec.format,
    )
    identity: dict[str, JsonValue] = {
        "artifact": artifact.digest if artifact else None,
        "url": body.url,
        "digest": body.digest,
        "format": body.format,
    }
    if files:
        identity["files"] = {name: each.digest for name, each in sorted(files.items())}
    key = desired.owner.key
    return Wanted(
        role=ARTIFACT_ROLE,
        name=f"{key.namespace}.{key.name}",
        digest=digest_of(identity),
        body=body.model_dump(mode="json"),
    )


def model_faults(model: Model) -> Iterator[tuple[str, str]]:
    """What of a Model this machine cannot keep, whatever its artifact is."""
    if model.spec.format != "onnx":
        yield "spec.format", f"this machine serves onnx only, not {model.spec.format}"
    if model.spec.source.s3 is not None:
        yield "spec.source.s3", "this machine has no way to S3; use a sagemaker Target, or an url"


def check_address(url: str, field: str) -> None:
    """Refuse what may be changed on its way: plain HTTP, but from this machine itself."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        return
    raise TerminalError(
        f"{field}: {parts.scheme}://{parts.hostname} is refused; use an https:// address",
        reason=Reason.INVALID_SPEC,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _from_job(desired: Desired, model: Model) -> Artifact:
    for reference in references_of(model):
        if reference.output is not None:
            if found := desired.inputs.get(reference.slot):
                if found.url is not None:
                    raise TerminalError(
                        f"{reference.field}: this output lies at {found.url} and not on this"
                        " machine; give the Model the Target of the Job",
                        reason=Reason.INVALID_SPEC,
                    )
                return found
            raise WaitingError(
                f"{reference.field}: {reference.key.short} has no output {reference.output} yet",
                reason=Reason.DEPENDENCY_NOT_READY,
            )
    raise TerminalError("spec.source names no artifact", reason=Reason.INVALID_SPEC)
