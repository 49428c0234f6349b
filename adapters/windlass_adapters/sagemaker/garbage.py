"""What this installation has left in the account and no spec declares any more.

Endpoints and running jobs cost money: they are reported with what they cost and never removed by
themselves. Models and configs that nothing uses cost nothing and are collected after a grace, and
so are functions and objects that nothing can use any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from windlass_adapters.base import Orphan, Owner
from windlass_adapters.sagemaker.abandoned import AbandonedFronts, AbandonedObjects
from windlass_adapters.sagemaker.answers import Answer, count, moment, part, parts, tags_of, text
from windlass_adapters.sagemaker.attempts import config_of, pending_config
from windlass_adapters.sagemaker.deployments import CONFIG_ROLE, ENDPOINT_ROLE, MODEL_ROLE
from windlass_adapters.sagemaker.errors import AbsentError
from windlass_adapters.sagemaker.functions import Functions
from windlass_adapters.sagemaker.immutables import Backend
from windlass_adapters.sagemaker.jobs import RUN_ROLE
from windlass_adapters.sagemaker.names import (
    FLEET_TAG,
    INSTANCE_TAG,
    OWNER_TAG,
    REF_TAG,
    conflict,
)
from windlass_adapters.sagemaker.rates import dollars
from windlass_adapters.sagemaker.training import Training
from windlass_adapters.sagemaker.tuning import TUNING_ROLE


class Garbage:
    """Looks for what nobody declares."""

    def __init__(
        self,
        backend: Backend,
        grace: timedelta,
        functions: Functions,
        unsearchable: Sequence[Training] = (),
    ) -> None:
        self._backend = backend
        self._grace = grace
        self._unsearchable = unsearchable
        self._fronts = AbandonedFronts(backend, functions)
        self._objects = AbandonedObjects(backend)
        self._nouns = _NOUNS | {runs.role: (runs.noun, "Stop") for runs in unsearchable}

    async def orphans(self, living: Collection[Owner]) -> Sequence[Orphan]:
        """Everything of this installation whose owner is none of the living."""
        tokens = {self._backend.identity.token(owner) for owner in living}
        running = await self._jobs(tokens)
        found = [*await self._endpoints(tokens), *running]
        found += await self._unused(tokens)
        found += await self._fronts.find(tokens)
        found += await self._objects.find(tokens, {job.ref for job in running})
        before = self._backend.clock() - self._grace
        return [o for o in found if o.since is None or o.since < before]

    async def _endpoints(self, living: Collection[str]) -> list[Orphan]:
        found = []
        endpoints = await self._backend.inventory.endpoints.get()
        for name, known in list(endpoints.items()):
            if known.tags.get(OWNER_TAG) in living:
                continue
            answer = await self._describe("Endpoint", name)  # a search may be late
            if answer is None:
                endpoints.pop(name, None)
                continue
            hourly = self._hourly(answer, known.tags)
            since = moment(answer, "CreationTime")
            found.append(_billed(ENDPOINT_ROLE, name, known.tags, since, hourly))
        return found

    def _hourly(self, answer: Answer, tags: dict[str, str]) -> float | None:
        types = dict(fleet.split("=", 1) for fleet in tags.get(FLEET_TAG, "").split())
        running = {
            name: (types[name], count(variant, "CurrentInstanceCount") or 1)
            for variant in parts(answer, "ProductionVariants")
            if (name := text(variant, "VariantName")) in types
        }
        return self._backend.rates.hourly(running)

    async def _jobs(self, living: Collection[str]) -> list[Orphan]:
        """Running jobs. Those of a tuning job go with it."""
        found = []
        async for record in self._backend.inventory.search("TrainingJob"):
            tags = tags_of(record)
            running = text(record, "TrainingJobStatus") == "InProgress"
            if running and tags.get(OWNER_TAG) not in living and not text(record, "TuningJobArn"):
                hourly = self._machines(part(record, "ResourceConfig"), 1)
                name, since = text(record, "TrainingJobName"), moment(record, "CreationTime")
                found.append(_billed(RUN_ROLE, name, tags, since, hourly))
        async for record in self._backend.inventory.search("HyperParameterTuningJob"):
            tags = tags_of(record)
            running = text(record, "HyperParameterTuningJobStatus") == "InProgress"
            if running and tags.get(OWNER_TAG) not in living:
                limits = part(part(record, "HyperParameterTuningJobConfig"), "ResourceLimits")
                resources = part(part(record, "TrainingJobDefinition"), "ResourceConfig")
                hourly = self._machines(resources, count(limits, "MaxParallelTrainingJobs") or 1)
                name = text(record, "HyperParameterTuningJobName")
                since = moment(record, "CreationTime")
                found.append(_billed(TUNING_ROLE, name, tags, since, hourly))
        for part_ in self._unsearchable:
            found += await self._batch(living, part_)
        return found

    def _machines(self, resources: Answer, times: int) -> float | None:
        machines = (count(resources, "InstanceCount") or 1) * times
        return self._backend.rates.hourly({"": (text(resources, "InstanceType"), machines)})

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
                hourly = self._machines(runs.machines(answer), 1)
                since = moment(answer, "CreationTime")
                found.append(_billed(runs.role, name, left[name], since, hourly))
        return found

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
            found.append(Orphan(CONFIG_ROLE, name, tags.get(REF_TAG, ""), since, "", True))
        for name, tags in sorted(models.items()):
            if tags.get(OWNER_TAG) in living or name in needed:
                continue
            answer = await self._describe("Model", name)
            if answer is not None:
                since = moment(answer, "CreationTime")
                found.append(Orphan(MODEL_ROLE, name, tags.get(REF_TAG, ""), since, "", True))
        return found

    async def _describe(self, noun: str, name: str) -> Answer | None:
        try:
            return await self._backend.api.sagemaker(f"Describe{noun}", **{f"{noun}Name": name})
        except AbsentError:
            return None

    async def collect(self, orphan: Orphan) -> None:
        """Remove what costs nothing and nothing uses. It is looked at once more before."""
        if orphan.free:
            await self.remove(orphan)

    async def remove(self, orphan: Orphan) -> None:
        """Remove it, or stop it. It is looked at once more before: it may have an owner by now."""
        for others in (self._fronts, self._objects):
            if orphan.role in others.roles:
                await others.remove(orphan)
                return
        noun, ends = self._nouns[orphan.role]
        answer = await self._describe(noun, orphan.name)
        if answer is None:
            return
        tags = await self._backend.tags(text(answer, f"{noun}Arn"))
        ours = tags.get(INSTANCE_TAG) == self._backend.identity.tag
        if not ours or tags.get(REF_TAG, "") != orphan.ref:
            raise conflict(f"{orphan.role} {orphan.name}", tags)
        with suppress(AbsentError):
            await self._backend.api.sagemaker(f"{ends}{noun}", **{f"{noun}Name": orphan.name})
        await self._forget(orphan)

    async def _forget(self, orphan: Orphan) -> None:
        inventory = self._backend.inventory
        match orphan.role:
            case "config":
                (await inventory.configs.get()).pop(orphan.name, None)
            case "model":
                (await inventory.models.get()).pop(orphan.name, None)
            case "endpoint":
                inventory.heat(ENDPOINT_ROLE, orphan.name)


_NOUNS = {
    CONFIG_ROLE: ("EndpointConfig", "Delete"),
    MODEL_ROLE: ("Model", "Delete"),
    ENDPOINT_ROLE: ("Endpoint", "Delete"),
    RUN_ROLE: ("TrainingJob", "Stop"),
    TUNING_ROLE: ("HyperParameterTuningJob", "Stop"),
}
"""AWS's word for a role, and how it ends. A stopped job keeps its record, which costs nothing."""


def _billed(
    role: str, name: str, tags: dict[str, str], since: datetime | None, hourly: float | None
) -> Orphan:
    cost = "no rate known" if hourly is None else f"{dollars(hourly)} an hour"
    return Orphan(role, name, tags.get(REF_TAG, ""), since, cost, False, hourly)
