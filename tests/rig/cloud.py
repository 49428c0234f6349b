"""A whole kernel on an AWS account of the double's, with one time for both."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from unittest.mock import patch

import aioboto3
from pydantic import JsonValue

from rig.sagemaker.account import Resource
from rig.sagemaker.double import SageMakerDouble
from windlass.metrics import Metrics
from windlass.reading import Reading
from windlass.reconciler import Reconciler
from windlass.registry import Registry
from windlass.store.base import Document, Object
from windlass.store.sqlite import DATABASE, SqliteStore
from windlass.targets import OpenTarget, Targets
from windlass_adapters.base import Adapter, Found, Owner
from windlass_adapters.sagemaker import SageMakerAdapter
from windlass_adapters.sagemaker.params import SageMakerParams
from windlass_adapters.sagemaker.session import Clients
from windlass_adapters.testing.adapter import MemoryAdapter
from windlass_adapters.testing.backend import MemoryBackend
from windlass_adapters.testing.schedules import silence
from windlass_adapters.testing.world import KitStore, World
from windlass_schemas import digest_of_resource, parse_resource

ROLE = "arn:aws:iam::123456789012:role/windlass-execution"
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/serving:1"


@dataclass
class Cloud(World):
    """The kernel, an account, and their time."""

    aws: SageMakerDouble = field(default_factory=SageMakerDouble)
    params: dict[str, JsonValue] = field(default_factory=dict)
    wire: bool = True
    """Whether calls go over HTTP, by the real clients; otherwise the account is asked in place."""
    lives: int = 0

    @classmethod
    async def start(
        cls, folder: Path, aws: SageMakerDouble, *, wire: bool = True, **params: JsonValue
    ) -> Cloud:
        """Open a kernel on an account; ``params`` are more of the Target's."""
        backend = MemoryBackend()
        memory = MemoryAdapter.for_backend(backend)
        world = cls(folder, memory, backend, aws=aws, params=params, wire=wire)
        world.now = aws.clock()
        aws.clock.follow(lambda: world.now)
        for name in ("key", "secret"):
            value = aws.credentials.access_key if name == "key" else aws.credentials.secret_key
            (folder / name).write_text(value)
        await world._open()
        return world

    def target_params(self) -> dict[str, JsonValue]:
        """What the Target says."""
        wire: dict[str, JsonValue] = {
            "endpointUrl": self.aws.url,
            "credentials": {
                "accessKeyId": f"file:{self.folder}/key",
                "secretAccessKey": f"file:{self.folder}/secret",
            },
        }
        return params_for(self.aws) | wire | self.params

    async def _open(self) -> None:
        self.store = await SqliteStore.open(self.folder / DATABASE)
        self.targets = self._make_targets()
        self.reconciler = Reconciler(
            self.store,
            self.targets,
            Metrics().reconcile,
            lambda: self.now,
            lambda low, high: high,
        )
        self.due = {object_.key: self.now for object_ in await self.store.list()}
        self.lives += 1

    def _make_targets(self) -> Targets:
        registry = Registry({"local": self.adapter, "sagemaker": adapter_of(self)})
        calls = Metrics().reconcile.backend_calls
        folder = self.folder / "targets"
        return Targets(self.store, registry, self.artifacts, folder, {}, calls)

    async def second_daemon(self) -> Targets:
        """Another daemon at the same store. It knows the account as it is at this moment."""
        second = self._make_targets()
        self._former.append(second)
        reading = Reading(self.store)
        for object_ in await self.store.list():
            if object_.key.kind == "Target":
                continue
            target = await second.of(object_, reading)
            externals = [record.external for record in object_.externals]
            await target.observe(owner_of(self, object_), externals)
        return second

    def hand_over(self, to: Targets) -> Targets:
        """From now on that daemon works. The one that did is there still; it is returned."""
        before = self.targets
        self._former = [before, *(each for each in self._former if each is not to)]
        self.targets = self.reconciler._targets = self.reconciler.situations._targets = to
        return before

    async def kill(self) -> Cloud:
        """The daemon dies; its connections with it."""
        await self.targets.close()
        await super().kill()
        return self

    def document(
        self,
        kind: str,
        name: str,
        spec: Mapping[str, JsonValue],
        files: Mapping[str, bytes] | None = None,
        **policy: JsonValue,
    ) -> Document:
        """A document with the files that it names, kept as a source would."""
        text: dict[str, JsonValue] = {
            "apiVersion": "windlass/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": dict(spec),
        }
        if policy:
            text["policy"] = dict(policy)
        resource = parse_resource(text)
        kept = {
            path: self.artifacts.put(data, Path(path).name) for path, data in (files or {}).items()
        }
        digest = digest_of_resource(resource, {path: a.digest for path, a in kept.items()})
        return Document(resource, kept, digest, f"{name}.yaml", 1)

    def target(self, **params: JsonValue) -> Document:
        """The Target ``cloud``."""
        spec: dict[str, JsonValue] = {
            "adapter": "sagemaker",
            "params": self.target_params() | params,
        }
        return self.document("Target", "cloud", spec)

    def model(self, name: str = "wine", content: bytes = b"weights", **spec: JsonValue) -> Document:
        """A Model from a file beside its document."""
        given: dict[str, JsonValue] = {"source": {"file": "model.onnx"}, "target": "cloud"}
        return self.document("Model", name, given | spec, {"model.onnx": content})

    def deployment(
        self, name: str = "wine", options: Mapping[str, JsonValue] | None = None, **spec: JsonValue
    ) -> Document:
        """A Deployment of the Model ``wine``."""
        given: dict[str, JsonValue] = {"model": "wine", "target": "cloud"}
        given["options"] = dict(options or {})
        return self.document("Deployment", name, given | spec)

    def held(self, kind: str) -> list[Resource]:
        """What the account holds of a kind: ``endpoint``, ``endpoint-config``, ``model``."""
        return self.aws.account.all(kind)

    def names(self, kind: str) -> list[str]:
        """Its names."""
        return sorted(found.name for found in self.held(kind))

    def calls(self) -> Counter[str]:
        """What was called so far, by operation."""
        return Counter(call.operation for call in self.aws.calls.log if not call.foreign)

    async def target_of(self, object_: Object) -> OpenTarget:
        """An object's target, opened."""
        return await self.targets.of(object_, Reading(self.store))

    async def found(self, text: str, role: str) -> Found:
        """What the adapter says now of an external of an object."""
        object_ = await self.get(text)
        record = next(r for r in object_.externals if r.wanted.role == role)
        target = await self.target_of(object_)
        seen = (await target.observe(owner_of(self, object_), [record.external]))[record.external]
        assert isinstance(seen, Found), seen
        return seen


def params_for(aws: SageMakerDouble) -> dict[str, JsonValue]:
    """What a Target says of an account that is asked in place."""
    return {
        "region": aws.region,
        "account": aws.account.number,
        "role": ROLE,
        "bucket": bucket_of(aws),
        "images": dict.fromkeys(("job", "onnx", "pytorch", "sklearn", "tensorflow"), IMAGE),
        "limits": {"*": 1e6, "s3:*": 1e6},
    }


def bucket_of(aws: SageMakerDouble) -> str:
    """The account's bucket: bucket names are everybody's."""
    return f"windlass-{aws.account.number}"


def owner_of(world: World, object_: Object) -> Owner:
    """An object's owner, as the kernel says it."""
    return world.reconciler.situations.owner(object_)


def adapter_of(world: Cloud) -> type[Adapter]:
    """The adapter in the world's time."""

    class InTime(SageMakerAdapter):
        def clients(self, params: SageMakerParams) -> Clients:
            return super().clients(params) if world.wire else world.aws.in_process()

        def seconds(self) -> float:
            return world.now.timestamp()

        def now(self) -> datetime:
            return world.now

    return InTime


def archive(files: Mapping[str, bytes] | Sequence[str]) -> bytes:
    """A ``.tar.gz``."""
    contents = files if isinstance(files, Mapping) else dict.fromkeys(files, b"x")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as made:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Only:
    """A store that has lost some objects."""

    def __init__(self, store: KitStore, objects: Sequence[Object]) -> None:
        self.install = store.install
        self._objects = objects

    async def list(self) -> Sequence[Object]:
        """What it has still."""
        return self._objects


_one_session = cache(aioboto3.Session)
"""To read AWS's service models takes a second: all clients of a test process share one session."""


@asynccontextmanager
async def cloud_in(
    folder: Path,
    account: SageMakerDouble | None = None,
    *,
    wire: bool = True,
    **params: JsonValue,
) -> AsyncIterator[Cloud]:
    """A kernel on an account that holds nothing but a bucket.

    Without ``wire`` there is no HTTP between the two: for thousands of lives, not for the clients.
    """
    async with account or SageMakerDouble() as aws:
        stack = ExitStack()
        stack.enter_context(patch.object(aioboto3, "Session", _one_session))
        aws.others.make_bucket(bucket_of(aws), aws.region)
        world = await Cloud.start(folder, aws, wire=wire, **params)
        aws.calls.clear()
        if not wire:
            stack.enter_context(silence())
        try:
            yield world
        finally:
            await world.close()
            stack.close()


@asynccontextmanager
async def cloud_again(cloud: Cloud, folder: Path) -> AsyncIterator[Cloud]:
    """Another daemon on the same account, with an empty state folder."""
    folder.mkdir()
    world = await Cloud.start(folder, cloud.aws, wire=cloud.wire, **cloud.params)
    try:
        yield world
    finally:
        await world.close()
