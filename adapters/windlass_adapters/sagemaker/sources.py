"""Artifacts that lie in S3 already: another's object, or the output of a training job.

Nothing is copied and nothing of it is ours to delete. What it is, is its version there: a new one
is a new artifact, and whoever uses it follows.
"""

from __future__ import annotations

import base64
import binascii

from windlass_adapters.base import (
    Absent,
    External,
    Found,
    Observation,
    Owner,
    State,
    TerminalError,
    Wanted,
)
from windlass_adapters.sagemaker.answers import Answer, count, text
from windlass_adapters.sagemaker.deployments import name_digest
from windlass_adapters.sagemaker.errors import AbsentError
from windlass_adapters.sagemaker.immutables import Backend
from windlass_adapters.sagemaker.inventory import LIST_AGE
from windlass_adapters.sagemaker.storage import split
from windlass_schemas import MODEL_ARTIFACT, Artifact, Reason, digest_of

SOURCE_ROLE = "source"


class Sources:
    """Objects that Models take from S3 as they are. The external's name is ``format url digest``.

    So that its look needs nothing but its name; the digest is the declared one, or ``-``.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._seen: dict[str, tuple[float, Answer]] = {}
        self._let_go: set[tuple[str, str]] = set()

    async def look(self, owner: Owner, external: External) -> Observation:
        if (owner.uid, external.name) in self._let_go:
            return Absent()
        url = external.name.split()[1]
        held = self._seen.get(url)
        if held is None or self._backend.api.now() - held[0] > LIST_AGE:
            try:
                answer = await self._backend.storage.version(*split(url))
            except AbsentError:
                self._seen.pop(url, None)
                return _missing(owner, external, url)
            held = self._seen[url] = (self._backend.api.now(), answer)
        return _found(owner, external, held[1])

    async def create(self, owner: Owner, wanted: Wanted) -> Found:
        self._let_go.discard((owner.uid, wanted.name))
        seen = await self.look(owner, External(SOURCE_ROLE, wanted.name, wanted.name))
        assert isinstance(seen, Found)
        return seen

    async def update(self, owner: Owner, external: External, wanted: Wanted) -> Found:
        return await self.create(owner, wanted)

    async def delete(self, owner: Owner, external: External) -> None:
        self._let_go.add((owner.uid, external.name))


def wanted_source(url: str, format_: str, digest: str | None) -> Wanted:
    """An object that must be there."""
    name = f"{format_} {url} {digest or '-'}"
    return Wanted(SOURCE_ROLE, name, name_digest(name), {"url": url})


def _missing(owner: Owner, external: External, url: str) -> Found:
    message = f"there is no object {url}; put it there, or mend spec.source"
    return Found(
        external,
        owner.uid,
        State.DEGRADED,
        name_digest(external.name),
        reason=Reason.INVALID_ARTIFACT,
        message=message,
    )


def _found(owner: Owner, external: External, answer: Answer) -> Found:
    format_, url, declared = external.name.split()
    digest = name_digest(external.name)
    held = text(answer, "ChecksumSHA256")
    if declared != "-" and _hex(held) != declared:
        said = _hex(held) or "no sha256 (upload it with a SHA256 checksum)"
        message = f"{url} has {said} and spec.digest says {declared}"
        return Found(
            external,
            owner.uid,
            State.DEGRADED,
            digest,
            reason=Reason.DIGEST_MISMATCH,
            message=message,
        )
    version = {"url": url, "etag": text(answer, "ETag"), "version": text(answer, "VersionId")}
    artifact = Artifact(
        digest=declared if declared != "-" else digest_of(dict(version)),
        size=count(answer, "ContentLength") or 0,
        name=url.rpartition("/")[2],
        format=format_,
        url=url,
    )
    return Found(external, owner.uid, State.LIVE, digest, outputs={MODEL_ARTIFACT: artifact})


def _hex(checksum: str) -> str:
    """A sha256 as S3 gives it, as we write it; empty for one of parts."""
    try:
        raw = base64.b64decode(checksum, validate=True)
    except binascii.Error:
        return ""
    return f"sha256:{raw.hex()}" if len(raw) == 32 else ""


def check_url(url: str, format_: str, field: str) -> None:
    """SageMaker takes archives only."""
    if not url.endswith((".tar.gz", ".tgz")):
        raise TerminalError(
            f"{field}: {url} is no .tar.gz, and SageMaker takes no other {format_} artifact",
            reason=Reason.INVALID_SPEC,
        )
