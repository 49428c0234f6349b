"""What the account holds of ours, read in bulk and kept: so that looking costs next to nothing.

A list says which endpoints have changed since they were looked at; those are described, and no
others. Once an hour a search reads everything with its tags. Search and tag queries may be late, so
that they are hints: what they do not show is asked for by name before anybody calls it absent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from windlass_adapters.sagemaker.answers import Answer, moment, part, tags_of, text
from windlass_adapters.sagemaker.api import PAGE, SAGEMAKER, SCALING, Api
from windlass_adapters.sagemaker.names import INSTANCE_TAG, Identity
from windlass_adapters.sagemaker.storage import Storage

LIST_AGE = 240.0
"""Seconds for which a list of endpoints answers; less than a resync."""
AUDIT_AGE = 3600.0
"""Seconds between two readings of everything, give or take a tenth."""
CONFIG_TYPE = "sagemaker:endpoint-config"
"""As tag queries name configs; a search does not know them."""
VISIBLE_WITHIN = 60.0
"""Seconds within which AWS shows what was made."""

T = TypeVar("T")


class Section(Generic[T]):
    """One part of the inventory, read when it is needed and too old."""

    def __init__(
        self, fetch: Callable[[], Awaitable[T]], age: float, now: Callable[[], float]
    ) -> None:
        self._fetch = fetch
        self._age = age * random.uniform(0.9, 1.1)
        self._now = now
        self._value: T | None = None
        self._at = 0.0
        self._lock = asyncio.Lock()

    async def get(self) -> T:
        """The newest reading. Raises AdapterError when there must be a new one and cannot be."""
        if self._value is not None and self._now() - self._at < self._age:
            return self._value
        async with self._lock:
            if self._value is None or self._now() - self._at >= self._age:
                began = self._now()
                self._value = await self._fetch()
                self._at = began
            return self._value

    def expire(self) -> None:
        """Read anew at the next question."""
        self._at = float("-inf")


@dataclass
class Known:
    """An endpoint as it was last looked at."""

    answer: Answer
    tags: dict[str, str]

    @property
    def mark(self) -> tuple[str, datetime | None]:
        """What a list shows of it: another mark, and it must be looked at."""
        return text(self.answer, "EndpointStatus"), moment(self.answer, "LastModifiedTime")


@dataclass
class Scaled:
    """A scalable target with its policies."""

    target: Answer
    policies: list[Answer] = field(default_factory=list)


Tagged = dict[str, dict[str, str]]
"""Tags by name."""


def _name_in(arn: str) -> str:
    """The last part of an ARN; Lambda's have no slash."""
    return arn.rpartition(":")[2].rpartition("/")[2]


class Inventory:
    """Of one account, region and installation."""

    def __init__(self, api: Api, storage: Storage, identity: Identity) -> None:
        now = api.now
        self._api = api
        self._storage = storage
        self._own = identity.tag
        self.listed = Section(self._list_endpoints, LIST_AGE, now)
        self.endpoints = Section(self._search_endpoints, AUDIT_AGE, now)
        self.models = Section(self._search_models, AUDIT_AGE, now)
        self.configs = Section(self._tagged_configs, AUDIT_AGE, now)
        self.scaling = Section(self._describe_scaling, AUDIT_AGE, now)
        self.objects = Section(self._list_objects, AUDIT_AGE, now)
        self._hot: set[tuple[str, str]] = set()
        self._made_at: dict[tuple[str, str], float] = {}

    def heat(self, role: str, name: str, *, made: bool = False) -> None:
        """We have acted on it, or it is under way: look at it by name until it has settled."""
        self._hot.add((role, name))
        if made:
            self._made_at[role, name] = self._api.now()

    def cool(self, role: str, name: str) -> None:
        """It has settled."""
        self._hot.discard((role, name))
        self._made_at.pop((role, name), None)

    def is_hot(self, role: str, name: str) -> bool:
        """Whether only a look by name will do."""
        return (role, name) in self._hot

    def made_just_now(self, role: str, name: str) -> bool:
        """Whether AWS may not show yet what we have made."""
        at = self._made_at.get((role, name))
        return at is not None and self._api.now() - at < VISIBLE_WITHIN

    async def _list_endpoints(self) -> dict[str, tuple[str, datetime | None]]:
        pages = self._api.pages(SAGEMAKER, "ListEndpoints", "Endpoints", MaxResults=PAGE)
        return {
            text(e, "EndpointName"): (text(e, "EndpointStatus"), moment(e, "LastModifiedTime"))
            async for e in pages
        }

    async def search(
        self, resource: str, tag: str = INSTANCE_TAG, value: str = ""
    ) -> AsyncIterator[Answer]:
        """Records of a kind that carry a tag, with all their tags; by default, of our own."""
        filter_ = {"Name": f"Tags.{tag}", "Operator": "Equals", "Value": value or self._own}
        pages = self._api.pages(
            SAGEMAKER,
            "Search",
            "Results",
            Resource=resource,
            SearchExpression={"Filters": [filter_]},
            MaxResults=PAGE,
        )
        async for result in pages:
            yield part(result, resource)

    async def _search_endpoints(self) -> dict[str, Known]:
        return {
            text(record, "EndpointName"): Known(record, tags_of(record))
            async for record in self.search("Endpoint")
        }

    async def _search_models(self) -> Tagged:
        found: Tagged = {}
        async for record in self.search("Model"):
            held = part(record, "Model") or record
            found[text(held, "ModelName")] = tags_of(record) or tags_of(held)
        return found

    async def _tagged_configs(self) -> Tagged:
        return await self.tagged(CONFIG_TYPE, INSTANCE_TAG, self._own)

    async def tagged(self, type_: str, tag: str, value: str) -> Tagged:
        """Tags by name of everything of a type that carries a tag."""
        pages = self._api.pages(
            "resourcegroupstaggingapi",
            "GetResources",
            "ResourceTagMappingList",
            TagFilters=[{"Key": tag, "Values": [value]}],
            ResourceTypeFilters=[type_],
            ResourcesPerPage=PAGE,
        )
        return {_name_in(text(item, "ResourceARN")): tags_of(item) async for item in pages}

    async def _describe_scaling(self) -> dict[str, Scaled]:
        return await self.scaled()

    async def scaled(self, resource: str | None = None) -> dict[str, Scaled]:
        """Scalable targets of SageMaker with their policies, by resource id: all, or one."""
        one = {"ResourceIds": [resource]} if resource else {}
        targets = self._api.pages(
            SCALING,
            "DescribeScalableTargets",
            "ScalableTargets",
            ServiceNamespace="sagemaker",
            **one,
        )
        found = {text(t, "ResourceId"): Scaled(t) async for t in targets}
        if not found:
            return found
        only = {"ResourceId": resource} if resource else {}
        policies = self._api.pages(
            SCALING,
            "DescribeScalingPolicies",
            "ScalingPolicies",
            ServiceNamespace="sagemaker",
            **only,
        )
        async for policy in policies:
            if held := found.get(text(policy, "ResourceId")):
                held.policies.append(policy)
        return found

    async def _list_objects(self) -> set[str]:
        return {key async for key in self._storage.names(self._storage.keys.prefix)}
