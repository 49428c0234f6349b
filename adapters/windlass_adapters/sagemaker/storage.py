"""Artifacts in S3: hops 5 and 7 for what Deployments, Models and Jobs need there.

A key says whose it is, its digest, size and name, so that a list of keys is all there is to ask.
An object is there when its upload is complete, and not before. A long upload goes on from where S3
says that it stands, call after call: there is nothing to lose in a restart.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from windlass_adapters.base import Owner, WaitingError
from windlass_adapters.sagemaker.answers import Answer, count, moment, parts, tags_of, text
from windlass_adapters.sagemaker.api import Api
from windlass_adapters.sagemaker.errors import AbsentError
from windlass_adapters.sagemaker.names import Identity
from windlass_adapters.sagemaker.packing import sizes
from windlass_schemas import Artifact, Key

PART = 16 << 20
"""Bytes of one part of an upload; anything smaller is sent at once."""
MOST_PARTS = 9000
UPLOAD_SLICE = 25.0
"""Seconds that one call goes on uploading; the next call goes on from there."""
LARGEST_WRAPPING = 1 << 20
"""Bytes by which an archive may be larger than the one file in it."""
FILE = "model.tar.gz"
CODE = "sourcedir.tar.gz"
INPUT = "input"
"""The folder of a run's inputs."""


class Upload(NamedTuple):
    """An upload in parts that is not complete."""

    key: str
    id: str
    since: datetime | None


class Stored(NamedTuple):
    """An object as a list shows it."""

    key: str
    size: int
    since: datetime | None


class Place(NamedTuple):
    """Where an artifact lies: what its key says."""

    key: str
    artifact: Artifact


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[-100:] or "file"


@dataclass(frozen=True)
class Keys:
    """The keys of one bucket and prefix."""

    bucket: str
    prefix: str
    identity: Identity

    def folder(self, owner: Owner) -> str:
        """What every key of an owner begins with."""
        kind, namespace, name = owner.key
        return f"{self.prefix}{kind.lower()}/{namespace}/{name}/{self.identity.token(owner)}/"

    def of(self, owner: Owner, artifact: Artifact, file: str = FILE) -> str:
        """The key of an artifact."""
        digest = artifact.digest.removeprefix("sha256:")
        format_ = artifact.format or "file"
        name = f"{digest}.{artifact.size}.{format_}.{_clean(artifact.name)}"
        return f"{self.folder(owner)}{name}/{file}"

    def owner(self, key: str) -> Owner | None:
        """Whose key it is, where its token proves it: a token made of the object itself."""
        kind, namespace, name, token = (key.removeprefix(self.prefix).split("/") + [""] * 4)[:4]
        kinds = {"model": "Model", "deployment": "Deployment", "job": "Job", "sweep": "Sweep"}
        if not key.startswith(self.prefix) or kind not in kinds:
            return None
        owner = Owner(self.identity.install, "", Key(kinds[kind], namespace, name))
        return owner if token and self.identity.token(owner) == token else None

    def token(self, key: str) -> str:
        """The owner's token that a key says; of what is not made by us, anything."""
        return (key.removeprefix(self.prefix).split("/") + [""] * 4)[3]

    def is_upload(self, key: str) -> bool:
        """Whether it is a program or an input of a run: what a run reads and does not make."""
        below = key.removeprefix(self.prefix).split("/")[5:]
        return below == [CODE] or (below[:1] == [INPUT] and len(below) == 3)

    def url(self, key: str) -> str:
        """As SageMaker names it."""
        return f"s3://{self.bucket}/{key}"

    def read(self, key: str) -> Place | None:
        """What a key says; None for one that is not made by us."""
        folder = key.rpartition("/")[0].rpartition("/")[2]
        found = re.fullmatch(r"([0-9a-f]{64})\.(\d+)\.([a-z]+)\.(.+)", folder)
        if not key.startswith(self.prefix) or found is None:
            return None
        artifact = Artifact(
            digest=f"sha256:{found[1]}",
            size=int(found[2]),
            name=found[4],
            format=found[3],
            url=self.url(key),
        )
        return Place(key, artifact)


class Storage:
    """Reads and writes one bucket."""

    def __init__(self, api: Api, keys: Keys) -> None:
        self._api = api
        self.keys = keys

    async def _s3(self, operation: str, **arguments: object) -> Answer:
        bucket = self.keys.bucket
        return await self._api.call("s3", operation, Bucket=bucket, **arguments)

    async def has(self, key: str) -> bool:
        """Whether the object is there, and so complete."""
        try:
            await self._s3("HeadObject", Key=key)
        except AbsentError:
            return False
        return True

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """All keys below a prefix."""
        async for stored in self.stored(prefix):
            yield stored.key

    async def stored(self, prefix: str) -> AsyncIterator[Stored]:
        """All objects below a prefix."""
        token: dict[str, object] = {}
        while True:
            answer = await self._s3("ListObjectsV2", Prefix=prefix, **token)
            for item in parts(answer, "Contents"):
                size, since = count(item, "Size") or 0, moment(item, "LastModified")
                yield Stored(text(item, "Key"), size, since)
            if not answer.get("IsTruncated"):
                return
            token = {"ContinuationToken": text(answer, "NextContinuationToken")}

    async def tags(self, key: str) -> dict[str, str]:
        """The tags of an object. Raises AbsentError."""
        return tags_of(await self._s3("GetObjectTagging", Key=key), "TagSet")

    async def version(self, bucket: str, key: str) -> Answer:
        """What identifies somebody else's object: VersionId, ETag, ContentLength."""
        return await self._api.call("s3", "HeadObject", Bucket=bucket, Key=key)

    async def holds(self, bucket: str, key: str) -> bool:
        """Whether an object is there; for a key that ends with a slash, anything below it."""
        try:
            if key.endswith("/"):
                listed = await self._api.call(
                    "s3", "ListObjectsV2", Bucket=bucket, Prefix=key, MaxKeys=1
                )
                return any(parts(listed, "Contents"))
            await self.version(bucket, key)
        except AbsentError:
            return False
        return True

    async def delete(self, key: str) -> None:
        """Remove an object and any unfinished upload of it. Absent is success."""
        await self._s3("DeleteObject", Key=key)
        await self.abort_all(key)

    async def delete_folder(self, prefix: str) -> None:
        """Remove everything below a prefix, unfinished uploads too."""
        async for key in self.names(prefix):
            await self._s3("DeleteObject", Key=key)
        for upload in await self.uploads(prefix):
            await self.abort(upload)

    async def is_unfinished(self, key: str) -> bool:
        """Whether an upload was begun and is not complete: S3 charges for its parts."""
        place = self.keys.read(key)
        if place is not None and place.artifact.size + LARGEST_WRAPPING <= PART:
            return False  # such a one is sent at once
        return bool(await self._uploads_of(key))

    async def abort(self, upload: Upload) -> None:
        """Let go of the parts of an unfinished upload. Absent is success."""
        with suppress(AbsentError):
            await self._s3("AbortMultipartUpload", Key=upload.key, UploadId=upload.id)

    async def abort_all(self, key: str) -> None:
        """Let go of all that is unfinished of an object."""
        for upload in await self._uploads_of(key):
            await self.abort(upload)

    async def uploads(self, prefix: str) -> list[Upload]:
        """All unfinished uploads below a prefix, the oldest of each key first."""
        found: list[Upload] = []
        marker: dict[str, object] = {}
        while True:
            answer = await self._s3("ListMultipartUploads", Prefix=prefix, **marker)
            found += [
                Upload(text(u, "Key"), text(u, "UploadId"), moment(u, "Initiated"))
                for u in parts(answer, "Uploads")
            ]
            if not answer.get("IsTruncated"):
                return found
            marker = {
                "KeyMarker": text(answer, "NextKeyMarker"),
                "UploadIdMarker": text(answer, "NextUploadIdMarker"),
            }

    async def put(self, key: str, data: bytes, tags: Mapping[str, str]) -> None:
        """Send a small object at once; S3 checks its sha256."""
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        body = io.BytesIO(data)
        await self._s3(
            "PutObject", Key=key, Body=body, ChecksumSHA256=checksum, Tagging=urlencode(tags)
        )

    async def upload(self, key: str, file: Path, tags: Mapping[str, str]) -> None:
        """Bring a file there. Raises WaitingError while there is more to send: call again."""
        total = (await asyncio.to_thread(file.stat)).st_size
        if total <= PART:
            await self.put(key, await asyncio.to_thread(file.read_bytes), tags)
            return
        uploads = await self._uploads_of(key)
        upload = uploads[0].id if uploads else await self._begin(key, tags)
        sent = await self._sent(key, upload)
        until = asyncio.get_running_loop().time() + UPLOAD_SLICE
        for number, (offset, length) in enumerate(sizes(total, PART, MOST_PARTS), start=1):
            if number in sent:
                continue
            if asyncio.get_running_loop().time() > until:
                done = sum(size for _, _, size in sent.values()) >> 20
                raise WaitingError(f"uploading {file.name}: {done} of {total >> 20} MiB sent")
            data = await asyncio.to_thread(_slice, file, offset, length)
            sent[number] = await self._send(key, upload, number, data)
        await self._s3(
            "CompleteMultipartUpload",
            Key=key,
            UploadId=upload,
            MultipartUpload={
                "Parts": [
                    {"PartNumber": number, "ETag": etag, "ChecksumSHA256": checksum}
                    for number, (etag, checksum, _) in sorted(sent.items())
                ]
            },
        )
        for other in uploads[1:]:  # a second one was begun when the first one's reply was lost
            await self.abort(other)

    async def _begin(self, key: str, tags: Mapping[str, str]) -> str:
        answer = await self._s3(
            "CreateMultipartUpload", Key=key, ChecksumAlgorithm="SHA256", Tagging=urlencode(tags)
        )
        return text(answer, "UploadId")

    async def _send(self, key: str, upload: str, number: int, data: bytes) -> tuple[str, str, int]:
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        answer = await self._s3(
            "UploadPart",
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=io.BytesIO(data),
            ChecksumSHA256=checksum,
        )
        return text(answer, "ETag"), checksum, len(data)

    async def _uploads_of(self, key: str) -> list[Upload]:
        return [upload for upload in await self.uploads(key) if upload.key == key]

    async def _sent(self, key: str, upload: str) -> dict[int, tuple[str, str, int]]:
        """Parts that S3 holds already, by number: etag, checksum, size."""
        found: dict[int, tuple[str, str, int]] = {}
        marker: dict[str, object] = {}
        while True:
            answer = await self._s3("ListParts", Key=key, UploadId=upload, **marker)
            for item in parts(answer, "Parts"):
                number, size = count(item, "PartNumber"), count(item, "Size")
                found[number or 0] = (text(item, "ETag"), text(item, "ChecksumSHA256"), size or 0)
            if not answer.get("IsTruncated"):
                return found
            marker = {"PartNumberMarker": answer["NextPartNumberMarker"]}


def _slice(file: Path, offset: int, length: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def split(url: str) -> tuple[str, str]:
    """Bucket and key of an ``s3://`` address."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key
