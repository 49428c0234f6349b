"""Artifacts, models and endpoint configs: hops 5 and 7 for what never changes under its name.

To be there and to be ours is all that there is to say of one; its name has the hash of the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue

from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import (
    Absent,
    External,
    Found,
    Observation,
    Owner,
    State,
    TerminalError,
    TransientError,
    Wanted,
)
from windlass_adapters.sagemaker import packing
from windlass_adapters.sagemaker.answers import Answer, part, text
from windlass_adapters.sagemaker.api import Api
from windlass_adapters.sagemaker.deployments import (
    ARTIFACT_ROLE,
    CONFIG_ROLE,
    MODEL_ROLE,
    name_digest,
)
from windlass_adapters.sagemaker.errors import AbsentError, BusyError, ExistsError
from windlass_adapters.sagemaker.inventory import Inventory, Section, Tagged
from windlass_adapters.sagemaker.names import Identity, conflict, tag_list
from windlass_adapters.sagemaker.rates import Rates
from windlass_adapters.sagemaker.storage import Storage
from windlass_schemas import MODEL_ARTIFACT, Artifact, Reason


@dataclass(frozen=True)
class Backend:
    """What every part of the adapter works with."""

    api: Api
    storage: Storage
    inventory: Inventory
    identity: Identity
    artifacts: ArtifactStore
    scratch: Path
    """A folder of our own for archives on their way."""
    region: str
    rates: Rates
    clock: Callable[[], datetime]

    async def tags(self, arn: str) -> dict[str, str]:
        """The tags of a resource."""
        found: dict[str, str] = {}
        async for tag in self.api.pages("sagemaker", "ListTags", "Tags", ResourceArn=arn):
            found[text(tag, "Key")] = text(tag, "Value")
        return found

    async def add_tags(self, arn: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        await self.api.sagemaker("AddTags", ResourceArn=arn, Tags=tag_list(tags))


def settled(backend: Backend, owner: Owner, external: External, tags: Mapping[str, str]) -> Found:
    """It is there, under the name that says what it is."""
    return Found(
        external,
        backend.identity.owner_uid(owner, tags) or "nobody",
        State.LIVE,
        name_digest(external.name),
    )


class Named:
    """Models, or endpoint configs: created, described and deleted by name."""

    def __init__(self, backend: Backend, role: str) -> None:
        self._backend = backend
        self._role = role
        self._noun = {MODEL_ROLE: "Model", CONFIG_ROLE: "EndpointConfig"}[role]

    @property
    def _section(self) -> Section[Tagged]:
        inventory = self._backend.inventory
        return inventory.models if self._role == MODEL_ROLE else inventory.configs

    async def look(self, owner: Owner, external: External) -> Observation:
        inventory, name = self._backend.inventory, external.name
        known = await self._section.get()
        if name in known and not inventory.is_hot(self._role, name):
            return settled(self._backend, owner, external, known[name])
        try:
            answer = await self._describe(name)
        except AbsentError:
            known.pop(name, None)
            if inventory.made_just_now(self._role, name):
                return Found(
                    external, owner.uid, State.PROGRESSING, message=f"{name} is not shown yet"
                )
            inventory.cool(self._role, name)
            return Absent()
        if name not in known:
            known[name] = await self._backend.tags(self._arn(answer))
        inventory.cool(self._role, name)
        return settled(self._backend, owner, external, known[name])

    async def _describe(self, name: str) -> Answer:
        arguments = {f"{self._noun}Name": name}
        return await self._backend.api.sagemaker(f"Describe{self._noun}", **arguments)

    def _arn(self, answer: Answer) -> str:
        return text(answer, f"{self._noun}Arn")

    async def create(self, owner: Owner, wanted: Wanted) -> Found:
        external = External(self._role, wanted.name, wanted.name)
        request, held = wanted.body["request"], wanted.body["tags"]
        assert isinstance(request, dict)
        assert isinstance(held, dict)
        tags = {key: str(value) for key, value in held.items()}
        self._backend.inventory.heat(self._role, wanted.name)
        arguments = {f"{self._noun}Name": wanted.name, **request, "Tags": tag_list(tags)}
        await self._check_artifact(request)
        try:
            await self._backend.api.sagemaker(f"Create{self._noun}", **arguments)
        except AbsentError as error:
            for model in _models_in(request):
                self._backend.inventory.heat(MODEL_ROLE, model)
            raise TransientError(f"{error}; looking again") from None
        except ExistsError:
            tags = await self._backend.tags(self._arn(await self._describe(wanted.name)))
            if not self._backend.identity.owns(owner, tags):
                raise conflict(f"{self._role} {wanted.name}", tags) from None
        (await self._section.get())[wanted.name] = tags
        self._backend.inventory.heat(self._role, wanted.name, made=True)
        return settled(self._backend, owner, external, tags)

    async def _check_artifact(self, request: Mapping[str, JsonValue]) -> None:
        """Whether our artifact is there still: another daemon may have taken it away."""
        container, storage = request.get("PrimaryContainer"), self._backend.storage
        if not isinstance(container, dict):
            return
        key = str(container.get("ModelDataUrl", "")).removeprefix(storage.keys.url(""))
        if storage.keys.read(key) is not None and not await storage.has(key):
            self._backend.inventory.heat(ARTIFACT_ROLE, key)
            raise TransientError(f"{key} is gone from the bucket; sending it anew")

    async def update(self, owner: Owner, external: External, wanted: Wanted) -> Found:
        raise TerminalError(f"{self._role} {external.name} never changes; it is made anew")

    async def delete(self, owner: Owner, external: External) -> None:
        name = external.name
        self._backend.inventory.heat(self._role, name)
        try:
            answer = await self._describe(name)
        except AbsentError:
            return
        tags = await self._backend.tags(self._arn(answer))
        if not self._backend.identity.owns(owner, tags):
            raise conflict(f"{self._role} {name}", tags)
        await self._refuse_if_used(name)
        (await self._section.get()).pop(name, None)
        try:
            await self._backend.api.sagemaker(f"Delete{self._noun}", **{f"{self._noun}Name": name})
        except AbsentError:
            return

    async def _refuse_if_used(self, name: str) -> None:
        """A config is needed for as long as an endpoint has it, also only half."""
        if self._role != CONFIG_ROLE:
            return
        for endpoint, known in (await self._backend.inventory.endpoints.get()).items():
            coming = text(part(known.answer, "PendingDeploymentSummary"), "EndpointConfigName")
            if name in (text(known.answer, "EndpointConfigName"), coming):
                answer = await self._now(endpoint)
                if answer is not None and text(answer, "EndpointConfigName") == name:
                    raise BusyError(f"config {name} is in use by endpoint {endpoint}")

    async def _now(self, endpoint: str) -> Answer | None:
        try:
            return await self._backend.api.sagemaker("DescribeEndpoint", EndpointName=endpoint)
        except AbsentError:
            return None


def _models_in(request: Mapping[str, JsonValue]) -> Iterator[str]:
    """The models that an endpoint config names."""
    variants = request.get("ProductionVariants")
    for variant in variants if isinstance(variants, list) else ():
        if isinstance(variant, dict):
            yield str(variant["ModelName"])


class Objects:
    """Artifacts in S3."""

    role = ARTIFACT_ROLE

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def look(self, owner: Owner, external: External) -> Observation:
        inventory, key = self._backend.inventory, external.name
        known = await inventory.objects.get()
        if key in known and not inventory.is_hot(self.role, key):
            return self._found(owner, external)
        if not await self._backend.storage.has(key):
            known.discard(key)
            if await self._backend.storage.is_unfinished(key):
                ours = key.startswith(self._backend.storage.keys.folder(owner))
                message = "its upload has begun and is not complete"
                uid = owner.uid if ours else "nobody"
                return Found(external, uid, State.LIVE, message=message)
            return Absent()
        known.add(key)
        inventory.cool(self.role, key)
        return self._found(owner, external)

    def _found(self, owner: Owner, external: External) -> Found:
        keys = self._backend.storage.keys
        ours = external.name.startswith(keys.folder(owner))
        place = keys.read(external.name)
        outputs = {MODEL_ARTIFACT: place.artifact} if place and owner.key.kind == "Model" else {}
        return Found(
            external,
            owner.uid if ours else "nobody",
            State.LIVE,
            name_digest(external.name),
            outputs=outputs,
        )

    async def create(self, owner: Owner, wanted: Wanted) -> Found:
        artifact = Artifact.model_validate(wanted.body["artifact"])
        external = External(self.role, wanted.name, wanted.name)
        storage, inventory = self._backend.storage, self._backend.inventory
        inventory.heat(self.role, wanted.name)
        if not await storage.has(wanted.name):
            file = await asyncio.to_thread(self._packed, artifact, str(wanted.body["format"]))
            await storage.upload(wanted.name, file, self._backend.identity.tags(owner, {}))
            await asyncio.to_thread(self._drop, file)
        return self._found(owner, external)

    def _packed(self, artifact: Artifact, format_: str) -> Path:
        """The archive to send: the artifact itself, or one made of it. It is looked into first."""
        file = self._backend.artifacts.path(artifact.digest)
        if not file.is_file():
            raise TerminalError(
                f"{artifact.name} ({artifact.digest[:19]}) is not in this machine's artifact store;"
                " let its Job or source make it again",
                reason=Reason.INVALID_ARTIFACT,
            )
        if packing.is_archive(artifact.name):
            packing.check_archive(file, artifact.name, format_)
            return file
        packing.check_single(file, artifact.name, format_)
        name = artifact.digest.removeprefix("sha256:")
        return packing.pack({artifact.name: file}, self._backend.scratch / f"{name}.tar.gz")

    def _drop(self, file: Path) -> None:
        if file.parent == self._backend.scratch:
            file.unlink(missing_ok=True)

    async def update(self, owner: Owner, external: External, wanted: Wanted) -> Found:
        return await self.create(owner, wanted)

    async def delete(self, owner: Owner, external: External) -> None:
        if not external.name.startswith(self._backend.storage.keys.folder(owner)):
            raise conflict(f"object {external.name}", {})
        self._backend.inventory.heat(self.role, external.name)
        await self._backend.storage.delete(external.name)
