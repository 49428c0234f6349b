"""What this installation has left in the account and no spec declares any more.

Endpoints and running jobs cost money: they are reported with what they cost and never removed by
themselves. Models and configs that nothing uses cost nothing and are collected after a grace.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from windlass_adapters.base import Orphan, Owner
from windlass_adapters.sagemaker.answers import Answer, count, moment, part, parts, tags_of, text
from windlass_adapters.sagemaker.deployments import CONFIG_ROLE, ENDPOINT_ROLE, MODEL_ROLE
from windlass_adapters.sagemaker.endpoints import config_of, pending_config
from windlass_adapters.sagemaker.errors import AbsentError
from windlass_adapters.sagemaker.immutables import Backend
from windlass_adapters.sagemaker.jobs import RUN_ROLE
from windlass_adapters.sagemaker.names import FLEET_TAG, INSTANCE_TAG, OWNER_TAG, REF_TAG
from windlass_adapters.sagemaker.rates import dollars
from windlass_adapters.sagemaker.training import Training


class Garbage:
    """Looks for what nobody declares."""

    def __init__(
        self, backend: Backend, grace: timedelta, unsearchable: Sequence[Training] = ()
    ) -> None:
        self._backend = backend
        self._grace = grace
        self._unsearchable = unsearchable

    async def orphans(self, living: Collection[Owner]) -> Sequence[Orphan]:
        """Everything of this installation whose owner is none of the living."""
        tokens = {self._backend.identity.token(owner) for owner in living}
        found = [*await self._endpoints(tokens), *await self._jobs(tokens)]
        found += await self._unused(tokens)
        before = self._backend.clock() - self._grace
        return [o for o in found if o.since is None or o.since < before]

    async def _endpoints(self, living: Collection[str]) -> list[Orphan]:
        found = []
        for name, known in (await self._backend.inventory.endpoints.get()).items():
            if known.tags.get(OWNER_TAG) not in living:
                cost = self._hourly(known.answer, known.tags)
                since = moment(known.answer, "CreationTime")
                found.append(_orphan(ENDPOINT_ROLE, name, known.tags, since, cost, free=False))
        return found

    def _hourly(self, answer: Answer, tags: dict[str, str]) -> str:
        types = dict(fleet.split("=", 1) for fleet in tags.get(FLEET_TAG, "").split())
        running = {
            name: (types[name], count(variant, "CurrentInstanceCount") or 1)
            for variant in parts(answer, "ProductionVariants")
            if (name := text(variant, "VariantName")) in types
        }
        hourly = self._backend.rates.hourly(running)
        return "no rate known" if hourly is None else f"{dollars(hourly)} an hour"

    async def _jobs(self, living: Collection[str]) -> list[Orphan]:
        found = []
        async for record in self._backend.inventory.search("TrainingJob"):
            tags = tags_of(record)
            running = text(record, "TrainingJobStatus") == "InProgress"
            if running and tags.get(OWNER_TAG) not in living:
                resources = part(record, "ResourceConfig")
                cost = self._of_machines(resources)
                name, since = text(record, "TrainingJobName"), moment(record, "CreationTime")
                found.append(_orphan(RUN_ROLE, name, tags, since, cost, free=False))
        for part_ in self._unsearchable:
            found += await self._batch(living, part_)
        return found

    async def _batch(self, living: Collection[str], runs: Training) -> list[Orphan]:
        """Running jobs of a kind that Search does not know."""
        own = self._backend.identity.tag
        tagged = await self._backend.inventory.tagged(runs.type, INSTANCE_TAG, own)
        left = {n: tags for n, tags in tagged.items() if tags.get(OWNER_TAG) not in living}
        if not left:
            return []
        running = await runs.running()
        found = []
        for name in sorted(left.keys() & running.keys()):
            answer = await self._describe(runs.noun, name)
            if answer is not None:
                cost = self._of_machines(runs.machines(answer))
                since = moment(answer, "CreationTime")
                found.append(_orphan(runs.role, name, left[name], since, cost, free=False))
        return found

    def _of_machines(self, resources: Answer) -> str:
        type_ = text(resources, "InstanceType")
        fleet = {"": (type_, count(resources, "InstanceCount") or 1)}
        hourly = self._backend.rates.hourly(fleet)
        return "no rate known" if hourly is None else f"{dollars(hourly)} an hour"

    async def _unused(self, living: Collection[str]) -> list[Orphan]:
        """Configs that no endpoint has, and models that no such config needs."""
        inventory = self._backend.inventory
        endpoints = (await inventory.endpoints.get()).values()
        used = {config_of(k.answer) for k in endpoints} | {
            pending_config(k.answer) for k in endpoints
        }
        configs, models = await inventory.configs.get(), await inventory.models.get()
        found = []
        needed: set[str] = set()
        for name, tags in sorted(configs.items()):
            if tags.get(OWNER_TAG) in living:
                continue
            answer = await self._describe("EndpointConfig", name)
            if answer is None:
                continue
            if name in used:
                needed |= {text(v, "ModelName") for v in parts(answer, "ProductionVariants")}
                continue
            since = moment(answer, "CreationTime")
            found.append(_orphan(CONFIG_ROLE, name, tags, since, "", free=True))
        for name, tags in sorted(models.items()):
            if tags.get(OWNER_TAG) in living or name in needed:
                continue
            answer = await self._describe("Model", name)
            if answer is not None:
                since = moment(answer, "CreationTime")
                found.append(_orphan(MODEL_ROLE, name, tags, since, "", free=True))
        return found

    async def _describe(self, noun: str, name: str) -> Answer | None:
        try:
            return await self._backend.api.sagemaker(f"Describe{noun}", **{f"{noun}Name": name})
        except AbsentError:
            return None

    async def collect(self, orphan: Orphan) -> None:
        """Remove what costs nothing and nothing uses. It is looked at once more before."""
        if not orphan.free:
            return
        noun = "EndpointConfig" if orphan.role == CONFIG_ROLE else "Model"
        answer = await self._describe(noun, orphan.name)
        if answer is None:
            return
        tags = await self._backend.tags(text(answer, f"{noun}Arn"))
        if tags.get(INSTANCE_TAG) != self._backend.identity.tag:
            return
        with suppress(AbsentError):
            await self._backend.api.sagemaker(f"Delete{noun}", **{f"{noun}Name": orphan.name})
        inventory = self._backend.inventory
        section = inventory.configs if orphan.role == CONFIG_ROLE else inventory.models
        (await section.get()).pop(orphan.name, None)


def _orphan(
    role: str, name: str, tags: dict[str, str], since: datetime | None, cost: str, *, free: bool
) -> Orphan:
    return Orphan(role, name, tags.get(REF_TAG, ""), since, cost, free)
