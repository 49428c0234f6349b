"""The model registry: hops 5 and 7 for a package group and the version of each artifact.

Versions carry no tags, so that a version is known by the hash in its description, and its group by
the group's tags. A Model may wait until its version is Approved, and so does what depends on it.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

from pydantic import JsonValue

from windlass_adapters.base import (
    Absent,
    Desired,
    External,
    Found,
    Observation,
    Owner,
    State,
    TerminalError,
    Wanted,
)
from windlass_adapters.sagemaker.answers import Answer, count, text
from windlass_adapters.sagemaker.deployments import HASH, Renderer, name_digest
from windlass_adapters.sagemaker.errors import AbsentError, BusyError, ExistsError
from windlass_adapters.sagemaker.immutables import Backend
from windlass_adapters.sagemaker.names import short_hash, slug, tag_list
from windlass_adapters.sagemaker.params import ModelOptions
from windlass_schemas import Reason

GROUP_ROLE = "group"
PACKAGE_ROLE = "package"
APPROVAL_ROLE = "approval"
"""A gate: it lives when the version is Approved. There is nothing of it to make or remove."""
_FRESH = 30.0
"""Seconds for which a list of versions answers."""
_TOKENS = uuid.UUID("8c5d4a53-2a55-4b3f-9f0e-6d2f3f0f7a11")
Json = dict[str, JsonValue]


def wanted_package(
    renderer: Renderer, desired: Desired, options: ModelOptions, artifact: tuple[str, str, str]
) -> tuple[Wanted, ...]:
    """The group, and the version of this artifact."""
    url, identity, format_ = artifact
    register = options.register_
    assert register is not None
    image = options.image or renderer.params.images.get(format_)
    if image is None:
        raise TerminalError(
            f"there is no container image for {format_}: set spec.options.image, or"
            f" params.images.{format_} of the Target",
            reason=Reason.INVALID_SPEC,
        )
    owner, group = desired.owner, register.group or slug(desired.owner.key)
    tags: Json = dict(renderer.identity.tags(owner, {**renderer.params.tags, **options.tags}))
    token = renderer.identity.token(owner)
    hash_ = short_hash(HASH, token, identity, url, image)
    name = f"{group}/{hash_}"
    body: Json = {"url": url, "image": image, "approval": register.approval}
    found = (
        Wanted(GROUP_ROLE, group, name_digest(group), {"tags": tags}),
        Wanted(PACKAGE_ROLE, name, name_digest(name), body),
    )
    gate = Wanted(APPROVAL_ROLE, name, name_digest(name), {})
    return (*found, gate) if register.wait else found


class Groups:
    """Model package groups. One that was there before us is used, and left where it is."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: dict[str, str | None] = {}
        self._let_go: set[str] = set()

    async def look(self, owner: Owner, external: External) -> Observation:
        name = external.name
        if name in self._let_go:
            return Absent()
        if name not in self._known:
            try:
                answer = await self._describe(name)
            except AbsentError:
                return Absent()
            self._known[name] = text(answer, "ModelPackageGroupArn")
        return Found(external, owner.uid, State.LIVE, name_digest(name))

    async def _describe(self, name: str) -> Answer:
        return await self._backend.api.sagemaker(
            "DescribeModelPackageGroup", ModelPackageGroupName=name
        )

    async def create(self, owner: Owner, wanted: Wanted) -> Found:
        tags = wanted.body["tags"]
        assert isinstance(tags, dict)
        self._let_go.discard(wanted.name)
        with suppress(ExistsError):
            await self._backend.api.sagemaker(
                "CreateModelPackageGroup",
                ModelPackageGroupName=wanted.name,
                Tags=tag_list({key: str(value) for key, value in tags.items()}),
            )
        external = External(GROUP_ROLE, wanted.name, wanted.name)
        return Found(external, owner.uid, State.LIVE, name_digest(wanted.name))

    async def update(self, owner: Owner, external: External, wanted: Wanted) -> Found:
        return await self.create(owner, wanted)

    async def delete(self, owner: Owner, external: External) -> None:
        self._known.pop(external.name, None)
        try:
            answer = await self._describe(external.name)
        except AbsentError:
            return
        tags = await self._backend.tags(text(answer, "ModelPackageGroupArn"))
        if not self._backend.identity.owns(owner, tags):
            self._let_go.add(external.name)
            return
        try:
            await self._backend.api.sagemaker(
                "DeleteModelPackageGroup", ModelPackageGroupName=external.name
            )
        except BusyError:  # somebody else's versions are in it
            self._let_go.add(external.name)
        except TerminalError as error:
            if isinstance(error, AbsentError):
                return
            self._let_go.add(external.name)


class Packages:
    """Versions in groups."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lists: dict[str, tuple[float, list[Answer]]] = {}
        self._open: set[tuple[str, str]] = set()
        """Gates that were removed."""

    async def look(self, owner: Owner, external: External) -> Observation:
        if (owner.uid, external.name) in self._open and external.role == APPROVAL_ROLE:
            return Absent()
        version = await self._version(*_read(external.name))
        return Absent() if version is None else _found(owner, external, version)

    async def _version(self, group: str, hash_: str) -> Answer | None:
        at, known = self._lists.get(group, (float("-inf"), []))
        now = self._backend.api.now()
        if now - at > _FRESH:
            try:
                pages = self._backend.api.pages(
                    "sagemaker",
                    "ListModelPackages",
                    "ModelPackageSummaryList",
                    ModelPackageGroupName=group,
                    MaxResults=100,
                )
                known = [summary async for summary in pages]
            except AbsentError:
                known = []
            self._lists[group] = (now, known)
        marked = f"windlass:{hash_}"
        return next((v for v in known if text(v, "ModelPackageDescription") == marked), None)

    async def create(self, owner: Owner, wanted: Wanted) -> Found:
        body = wanted.body
        group, hash_ = _read(wanted.name)
        self._lists.pop(group, None)
        self._open.discard((owner.uid, wanted.name))
        external = External(wanted.role, wanted.name, wanted.name)
        version = await self._version(group, hash_)
        if version is None and wanted.role == PACKAGE_ROLE:
            container = {"Image": body["image"], "ModelDataUrl": body["url"]}
            token = uuid.uuid5(_TOKENS, f"{self._backend.identity.token(owner)} {wanted.name}")
            await self._backend.api.sagemaker(
                "CreateModelPackage",
                ModelPackageGroupName=group,
                ModelPackageDescription=f"windlass:{hash_}",
                ModelApprovalStatus=body["approval"],
                ClientToken=str(token),
                InferenceSpecification={
                    "Containers": [container],
                    "SupportedContentTypes": ["application/json"],
                    "SupportedResponseMIMETypes": ["application/json"],
                },
                CustomerMetadataProperties={"windlass": str(owner.key)},
            )
            self._lists.pop(group, None)
            version = await self._version(group, hash_)
        if version is None:
            message = "the version is not shown yet"
            return Found(external, owner.uid, State.PROGRESSING, message=message)
        return _found(owner, external, version)

    async def update(self, owner: Owner, external: External, wanted: Wanted) -> Found:
        return await self.create(owner, wanted)

    async def delete(self, owner: Owner, external: External) -> None:
        if external.role == APPROVAL_ROLE:
            self._open.add((owner.uid, external.name))
            return
        group, hash_ = _read(external.name)
        self._lists.pop(group, None)
        version = await self._version(group, hash_)
        self._lists.pop(group, None)
        if version is None:
            return
        try:
            await self._backend.api.sagemaker(
                "DeleteModelPackage", ModelPackageName=text(version, "ModelPackageArn")
            )
        except AbsentError:
            return


def _read(name: str) -> tuple[str, str]:
    """Group and hash."""
    group, _, hash_ = name.partition("/")
    return group, hash_


def _found(owner: Owner, external: External, version: Answer) -> Found:
    wait = external.role == APPROVAL_ROLE
    status, approval = text(version, "ModelPackageStatus"), text(version, "ModelApprovalStatus")
    number = count(version, "ModelPackageVersion") or 0
    group = _read(external.name)[0]
    detail: Json = {"package": {"group": group, "version": number, "approval": approval}}
    state, reason, message = State.LIVE, None, ""
    if status in ("Pending", "InProgress", "Deleting"):
        state, message = State.PROGRESSING, f"version {number} of {group} is {status}"
    elif status == "Failed":
        state, reason = State.FAILED, Reason.BACKEND_REFUSED
        message = f"version {number} of {group} failed"
    elif wait and approval == "Rejected":
        state, reason = State.DEGRADED, Reason.BACKEND_REFUSED
        message = f"version {number} of {group} was rejected; commit another, or approve it"
    elif wait and approval != "Approved":
        state = State.PROGRESSING
        message = f"version {number} of {group} waits for its approval in SageMaker"
    return Found(
        external,
        owner.uid,
        state,
        name_digest(external.name),
        reason=reason,
        message=message,
        detail=detail,
    )
