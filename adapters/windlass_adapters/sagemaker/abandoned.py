"""Lambda fronts, their roles and objects in S3 that no spec declares any more: for ``garbage``.

A front whose endpoint is there may have clients, and a Model's artifact may be the only copy: those
are told, and go when somebody names them. What nothing can use any more is free to go.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from windlass_adapters.base import Orphan
from windlass_adapters.sagemaker.answers import Answer, moment, part, parts, text
from windlass_adapters.sagemaker.deployments import ARTIFACT_ROLE
from windlass_adapters.sagemaker.errors import AbsentError, BusyError
from windlass_adapters.sagemaker.functions import FUNCTION_ROLE, Functions, function_of
from windlass_adapters.sagemaker.immutables import Backend
from windlass_adapters.sagemaker.names import INSTANCE_TAG, OWNER_TAG, REF_TAG, conflict
from windlass_adapters.sagemaker.storage import Stored
from windlass_adapters.sagemaker.uploads import UPLOAD_ROLE

IAM_ROLE = "role"
_PAGE = 1000
"""Roles on a page: what AWS gives at most."""
_STEPS = ("B", "KiB", "MiB", "GiB", "TiB")


class AbandonedFronts:
    """Functions with their aliases and versions, and roles without a function."""

    roles = (FUNCTION_ROLE, IAM_ROLE)

    def __init__(self, backend: Backend, functions: Functions) -> None:
        self._backend = backend
        self._functions = functions
        self._foreign: set[str] = set()
        """Ids of roles that are named like ours and are another installation's."""

    async def find(self, living: Collection[str]) -> list[Orphan]:
        """Those whose owner's token is none of the living."""
        own = self._backend.identity.tag
        tagged = await self._backend.inventory.tagged("lambda:function", INSTANCE_TAG, own)
        found = []
        for name, tags in sorted(tagged.items()):
            if tags.get(OWNER_TAG) not in living and (left := await self._function(name, tags)):
                found.append(left)
        return [*found, *await self._lone_roles(living, tagged.keys())]

    async def _function(self, name: str, tags: dict[str, str]) -> Orphan | None:
        config = await self._functions.config(name)
        if config is None:  # the index is late
            return None
        endpoint, since = (
            await self._functions.endpoint(config),
            _read(text(config, "LastModified")),
        )
        ref = tags.get(REF_TAG, "")
        if endpoint is None:  # there is nothing that it could answer with
            return Orphan(FUNCTION_ROLE, name, ref, since, "", True)
        kept = await self._functions.provisioned(name)
        more = f"; {kept} provisioned, no rate known" if kept else ""
        cost = f"in front of endpoint {endpoint}{more}"
        return Orphan(FUNCTION_ROLE, name, ref, since, cost, False, None if kept else 0.0)

    async def _lone_roles(
        self, living: Collection[str], functions: Collection[str]
    ) -> list[Orphan]:
        """Roles whose function is gone, or was never made: no index knows roles by their tags."""
        found = []
        for role in await self._roles():
            name, id_ = text(role, "RoleName"), text(role, "RoleId")
            function = function_of(name)
            if function is None or function in functions or id_ in self._foreign:
                continue
            tags = await self._functions.role_tags(name)
            if tags is None or tags.get(INSTANCE_TAG) != self._backend.identity.tag:
                self._foreign.add(id_)
                continue
            if tags.get(OWNER_TAG) in living or await self._functions.config(function) is not None:
                continue
            since = moment(role, "CreateDate")
            found.append(Orphan(IAM_ROLE, name, tags.get(REF_TAG, ""), since, "", True))
        return found

    async def _roles(self) -> Sequence[Answer]:
        found: list[Answer] = []
        marker: dict[str, object] = {}
        while True:
            answer = await self._backend.api.call("iam", "ListRoles", MaxItems=_PAGE, **marker)
            found += parts(answer, "Roles")
            if not answer.get("IsTruncated"):
                return found
            marker = {"Marker": text(answer, "Marker")}

    async def remove(self, orphan: Orphan) -> None:
        """Take it away, if it is what it was when it was found."""

        def check(tags: dict[str, str]) -> None:
            ours = tags.get(INSTANCE_TAG) == self._backend.identity.tag
            if not ours or tags.get(REF_TAG, "") != orphan.ref:
                raise conflict(f"{orphan.role} {orphan.name}", tags)

        if orphan.role == FUNCTION_ROLE:
            await self._functions.take_away(orphan.name, check)
        else:
            await self._functions.take_away_role(orphan.name, check)


class AbandonedObjects:
    """What Windlass has put into the bucket. What jobs leave there is a result, and stays."""

    roles = (ARTIFACT_ROLE, UPLOAD_ROLE)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def find(self, living: Collection[str], going: Collection[str]) -> list[Orphan]:
        """Those of none of the living. ``going`` are the objects whose jobs still run."""
        storage = self._backend.storage
        owners: dict[str, list[Stored]] = {}
        async for stored in storage.stored(storage.keys.prefix):
            token = storage.keys.token(stored.key)
            if token not in living and self._role(stored.key):
                owners.setdefault(token, []).append(stored)
        in_use = await self._in_use() if owners else frozenset[str]()
        found = []
        for token, objects in sorted(owners.items()):
            ref = await self._ref(token, objects)
            if ref is None or ref in going:
                continue
            free = (stored for stored in objects if storage.keys.url(stored.key) not in in_use)
            found += [self._orphan(stored, ref) for stored in free]
        return [*found, *await self._unfinished(living)]

    async def _in_use(self) -> frozenset[str]:
        """Where the artifacts of all our models lie, whoever's they are."""
        found = set()
        async for record in self._backend.inventory.search("Model"):
            container = part(part(record, "Model") or record, "PrimaryContainer")
            found.add(text(container, "ModelDataUrl"))
        return frozenset(found)

    def _role(self, key: str) -> str:
        keys = self._backend.storage.keys
        if keys.is_upload(key):
            return UPLOAD_ROLE
        return ARTIFACT_ROLE if keys.read(key) is not None else ""

    async def _ref(self, token: str, objects: Sequence[Stored]) -> str | None:
        """What they were made for; None when their tags say that they are not ours."""
        try:
            tags = await self._backend.storage.tags(objects[0].key)
        except AbsentError:
            return None
        ours = tags.get(INSTANCE_TAG) == self._backend.identity.tag
        return tags.get(REF_TAG, "") if ours and tags.get(OWNER_TAG) == token else None

    def _orphan(self, stored: Stored, ref: str) -> Orphan:
        role = self._role(stored.key)
        only_copy = role == ARTIFACT_ROLE and ref.startswith("Model/")
        cost = f"{_size(stored.size)} in S3" if only_copy else ""
        return Orphan(role, stored.key, ref, stored.since, cost, not only_copy)

    async def _unfinished(self, living: Collection[str]) -> list[Orphan]:
        """Uploads that nobody goes on with, where a key can prove that it is of this installation.

        They have no tags that could be read. A folder ends in the owner's token, which with
        ``params.instance`` is a hash of that name and of the object; without, it is a uid, which
        may be another installation's.
        """
        storage, identity = self._backend.storage, self._backend.identity
        if identity.instance is None:
            return []
        found = []
        for upload in await storage.uploads(storage.keys.prefix):
            owner = storage.keys.owner(upload.key)
            if owner is not None and identity.token(owner) not in living:
                found.append(
                    Orphan(UPLOAD_ROLE, upload.key, str(owner.key), upload.since, "", True)
                )
        return found

    async def remove(self, orphan: Orphan) -> None:
        """Delete it and what is unfinished of it, if it is what it was when it was found."""
        storage, key = self._backend.storage, orphan.name
        try:
            tags = await storage.tags(key)
        except AbsentError:
            await storage.abort_all(key)
            return
        ours = tags.get(INSTANCE_TAG) == self._backend.identity.tag
        if not ours or tags.get(REF_TAG, "") != orphan.ref:
            raise conflict(f"object {key}", tags)
        if storage.keys.url(key) in await self._in_use():
            raise BusyError(f"{key} is in use by a model by now; that one goes first")
        await storage.delete(key)
        (await self._backend.inventory.objects.get()).discard(key)


def _read(stamp: str) -> datetime | None:
    """A time as Lambda tells it: a text."""
    try:
        return datetime.fromisoformat(stamp)
    except ValueError:
        return None


def _size(size: int) -> str:
    number = float(size)
    for step in _STEPS:
        if number < 1024 or step == _STEPS[-1]:
            break
        number /= 1024
    return f"{number:.3g} {step}" if step != "B" else f"{size} B"
