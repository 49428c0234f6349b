"""Endpoints: hops 5 and 7 for the one thing that costs money and that clients call.

Ready is InService on the config that is wanted, with nothing pending. A failed update goes back to
InService on the old config: `attempts` remembers what was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from pydantic import JsonValue

from windlass_adapters.base import (
    Absent,
    External,
    Found,
    Observation,
    Owner,
    State,
    TransientError,
    Wanted,
)
from windlass_adapters.sagemaker.answers import Answer, moment, parts, text
from windlass_adapters.sagemaker.api import SCALING
from windlass_adapters.sagemaker.attempts import Attempts, config_of, pending_config
from windlass_adapters.sagemaker.deployments import CONFIG_ROLE, ENDPOINT_ROLE, name_digest
from windlass_adapters.sagemaker.errors import AbsentError, BusyError, ExistsError, passes
from windlass_adapters.sagemaker.immutables import Backend
from windlass_adapters.sagemaker.inplace import (
    detail_of,
    in_place,
    progress_of,
    refuse_to_serverless,
    retagged,
    whole,
)
from windlass_adapters.sagemaker.inventory import Known
from windlass_adapters.sagemaker.names import (
    FLEET_TAG,
    IDLE_TAG,
    OWNER_TAG,
    TTL_TAG,
    conflict,
    tag_list,
)
from windlass_adapters.sagemaker.states import BUSY, SETTLED, state_of
from windlass_adapters.sagemaker.watching import Idleness, refuse_alarm
from windlass_schemas import format_duration

SCALABLE = "sagemaker:variant:DesiredInstanceCount"


class Endpoints:
    """The endpoints of one Target."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._idle = Idleness(backend.api, backend.clock)
        self._attempts = Attempts(backend)

    async def look(self, owner: Owner, external: External) -> Observation:
        inventory, name = self._backend.inventory, external.name
        known = (await inventory.endpoints.get()).get(name)
        if known is None or inventory.is_hot(ENDPOINT_ROLE, name) or not await self._is_same(name):
            known = await self._read(name)
            if known is None:
                if inventory.made_just_now(ENDPOINT_ROLE, name):
                    message = f"{name} is not shown yet"
                    return Found(external, owner.uid, State.PROGRESSING, message=message)
                return Absent()
        return await self._found(owner, external, known)

    async def _is_same(self, name: str) -> bool:
        """Whether the newest list shows it as it was when it was looked at."""
        known = (await self._backend.inventory.endpoints.get())[name]
        return (await self._backend.inventory.listed.get()).get(name) == known.mark

    async def _read(self, name: str) -> Known | None:
        """Look at it by name, and remember."""
        inventory = self._backend.inventory
        endpoints = await inventory.endpoints.get()
        try:
            answer = await self._backend.api.sagemaker("DescribeEndpoint", EndpointName=name)
        except AbsentError:
            endpoints.pop(name, None)
            (await inventory.listed.get()).pop(name, None)
            return None
        before = endpoints.get(name)
        if before is None or moment(before.answer, "CreationTime") != moment(
            answer, "CreationTime"
        ):  # never seen, or another one under the same name
            tags = await self._backend.tags(text(answer, "EndpointArn"))
        else:
            tags = before.tags
        known = endpoints[name] = Known(answer, tags)
        (await inventory.listed.get())[name] = known.mark
        if text(answer, "EndpointStatus") in SETTLED:
            inventory.cool(ENDPOINT_ROLE, name)
        else:
            inventory.heat(ENDPOINT_ROLE, name)
        return known

    async def _found(self, owner: Owner, external: External, known: Known) -> Found:
        answer, status = known.answer, text(known.answer, "EndpointStatus")
        failure = text(answer, "FailureReason")
        config, coming = config_of(answer), pending_config(answer)
        repair = ""
        failed, back = await self._attempts.told(owner, answer)
        state, reason, message = state_of(status, failure, failed, went_back=back)
        serves = status not in ("Creating", "Failed", "Deleting", "UpdateRollbackFailed")
        if status == "UpdateRollbackFailed":
            if failed and not back:
                repair = f"{failed} failed and its rollback too: {failure}; going back to {config}"
            failed = failed or config
        if status == "Updating":
            message += progress_of(answer)
        if status == "Creating":
            coming = config
        return Found(
            external,
            self._backend.identity.owner_uid(owner, known.tags),
            state,
            digest=name_digest(config) if config and serves else None,
            pending_digest=name_digest(coming) if coming else None,
            failed_digest=name_digest(failed) if failed else None,
            reason=reason,
            message=message,
            attempt_counts=not (failure and passes(failure)),
            url=f"sagemaker://{text(answer, 'EndpointArn').split(':')[3]}/{external.name}",
            detail={"endpoint": self._shown(answer, known.tags)},
            retire=await self._over(external.name, known) if status == "InService" else "",
            repair=repair,
        )

    def _shown(self, answer: Answer, tags: Mapping[str, str]) -> dict[str, JsonValue]:
        found = detail_of(answer, tags)
        types = dict(fleet.split("=", 1) for fleet in tags.get(FLEET_TAG, "").split())
        running = {
            name: (types[name], whole(variant, "CurrentInstanceCount") or 0)
            for variant in parts(answer, "ProductionVariants")
            if (name := text(variant, "VariantName")) in types
        }
        hourly = self._backend.rates.hourly(running)
        return found if hourly is None else {**found, "dollarsAnHour": hourly}

    async def _over(self, name: str, known: Known) -> str:
        """Why it is time to take it down; empty while it is not.

        It goes by tags, which another daemon may have changed since they were read.
        """
        if not await self._outlived(name, known):
            return ""
        known.tags = await self._backend.tags(text(known.answer, "EndpointArn"))
        return await self._outlived(name, known)

    async def _outlived(self, name: str, known: Known) -> str:
        made, now = moment(known.answer, "CreationTime"), self._backend.clock()
        if made is None:
            return ""
        age = (now - made).total_seconds()
        ttl, idle = known.tags.get(TTL_TAG), known.tags.get(IDLE_TAG)
        if ttl and age > float(ttl):
            return f"its ttl of {format_duration(timedelta(seconds=float(ttl)))} is over"
        if not idle or age < float(idle):
            return ""
        variants = [text(v, "VariantName") for v in parts(known.answer, "ProductionVariants")]
        if await self._idle.is_idle(name, variants, float(idle)):
            spell = format_duration(timedelta(seconds=float(idle)))
            return f"nobody has asked it for {spell} (options.idleStop)"
        return ""

    async def create(self, owner: Owner, wanted: Wanted) -> Found:
        name, config = wanted.name, str(wanted.body["config"])
        external = External(ENDPOINT_ROLE, name, name)
        tags = _tags(wanted)
        inventory = self._backend.inventory
        inventory.heat(ENDPOINT_ROLE, name)
        try:
            await self._backend.api.sagemaker(
                "CreateEndpoint",
                EndpointName=name,
                EndpointConfigName=config,
                Tags=tag_list(tags),
            )
        except ExistsError:
            return await self._take(owner, external, wanted)
        except AbsentError as error:  # made a moment ago, or taken away by another daemon
            inventory.heat(CONFIG_ROLE, config)
            raise TransientError(f"{error}; AWS may not show the new config yet") from None
        inventory.heat(ENDPOINT_ROLE, name, made=True)
        return Found(
            external,
            owner.uid,
            State.PROGRESSING,
            pending_digest=name_digest(config),
            message=f"SageMaker is making endpoint {name}",
        )

    async def _take(self, owner: Owner, external: External, wanted: Wanted) -> Found:
        """It is there: ours from before, or another's, which is taken over only on request."""
        known = await self._read(external.name)
        if known is None:
            raise TransientError(f"endpoint {external.name} was there and is not; looking again")
        if not self._backend.identity.owns(owner, known.tags):
            if not wanted.body["adopt"]:
                raise conflict(f"endpoint {external.name}", known.tags)
            await self._backend.add_tags(text(known.answer, "EndpointArn"), _tags(wanted))
            known.tags |= _tags(wanted)
        return await self._found(owner, external, known)

    async def update(self, owner: Owner, external: External, wanted: Wanted) -> Found:
        """One change: the config, or what changes in place, or tags; in this order."""
        known = await self._ours(owner, external)
        if known is None:
            raise TransientError(f"endpoint {external.name} is gone; looking again")
        status, config = text(known.answer, "EndpointStatus"), str(wanted.body["config"])
        if status in BUSY:
            raise BusyError(f"endpoint {external.name} is {status}; waiting until it is done")
        self._backend.inventory.heat(ENDPOINT_ROLE, external.name)
        changes = list(in_place(wanted, known.answer))
        if status == "UpdateRollbackFailed" and await self._attempts.is_stuck_on(
            config, owner, known.answer
        ):
            await self._go_back(known, external.name, config)
        elif config_of(known.answer) != config or status != "InService":
            try:
                await self._to_config(owner, known, wanted)
            except AbsentError as error:  # another daemon has taken the config away
                self._backend.inventory.heat(CONFIG_ROLE, config)
                raise TransientError(f"{error}; looking again") from None
        elif changes:
            await self._backend.api.sagemaker(
                "UpdateEndpointWeightsAndCapacities",
                EndpointName=external.name,
                DesiredWeightsAndCapacities=changes,
            )
        else:
            await self._retag(known, wanted)
        found = await self._read(external.name)
        if found is None:
            raise TransientError(f"endpoint {external.name} is gone; looking again")
        self._backend.inventory.heat(ENDPOINT_ROLE, external.name)
        return await self._found(owner, external, found)

    async def _go_back(self, known: Known, name: str, failed: str) -> None:
        """Put the last config that was healthy in force again: at once, and watched by no alarm.

        Once for each failed update: that it was done is remembered on the config that failed.
        """
        await self._attempts.remember_back(failed, await self._arn_of(failed), known)
        await self._backend.api.sagemaker(
            "UpdateEndpoint",
            EndpointName=name,
            EndpointConfigName=config_of(known.answer),
            RetainAllVariantProperties=True,
        )

    async def _arn_of(self, config: str) -> str:
        answer = await self._backend.api.sagemaker(
            "DescribeEndpointConfig", EndpointConfigName=config
        )
        return text(answer, "EndpointConfigArn")

    async def _to_config(self, owner: Owner, known: Known, wanted: Wanted) -> None:
        """Send the update; first remember on the new config that it was tried."""
        config = str(wanted.body["config"])
        alarms = wanted.body["alarms"]
        assert isinstance(alarms, list)
        refuse_to_serverless(wanted, known.answer)
        await refuse_alarm(self._backend.api, [str(alarm) for alarm in alarms])
        arn = await self._arn_of(config)
        await self._attempts.refuse_unheard(config, arn, owner, known.answer)
        await self._attempts.remember(config, arn, known)
        await self._release_scaling(known, wanted)
        request: dict[str, object] = {
            "EndpointName": wanted.name,
            "EndpointConfigName": config,
            "RetainAllVariantProperties": True,
        }
        if wanted.body["update"]:
            request["DeploymentConfig"] = wanted.body["update"]
        await self._backend.api.sagemaker("UpdateEndpoint", **request)

    async def _release_scaling(self, known: Known, wanted: Wanted) -> None:
        """A fleet that goes or changes its type must not be scaled meanwhile: AWS refuses."""
        name = wanted.name
        scaled = await self._backend.inventory.scaling.get()
        mine = [r for r in scaled if r.startswith(f"endpoint/{name}/variant/")]
        if not mine:
            return
        now = await self._backend.api.sagemaker(
            "DescribeEndpointConfig", EndpointConfigName=config_of(known.answer)
        )
        types = {
            text(v, "VariantName"): text(v, "InstanceType")
            for v in parts(now, "ProductionVariants")
        }
        fleets = wanted.body["fleets"]
        assert isinstance(fleets, dict)
        for resource in mine:
            variant = resource.rpartition("/")[2]
            if fleets.get(variant) == types.get(variant):
                continue
            with suppress(AbsentError):
                await self._backend.api.call(
                    SCALING,
                    "DeregisterScalableTarget",
                    ServiceNamespace="sagemaker",
                    ResourceId=resource,
                    ScalableDimension=SCALABLE,
                )
            scaled.pop(resource, None)

    async def _retag(self, known: Known, wanted: Wanted) -> None:
        arn = text(known.answer, "EndpointArn")
        missing = retagged(_tags(wanted), known.tags)
        if missing:
            await self._backend.add_tags(arn, missing)
            known.tags |= missing

    async def _ours(self, owner: Owner, external: External) -> Known | None:
        """It as it is now. Raises a conflict when it is another's."""
        known = await self._read(external.name)
        if known is None:
            return None
        known.tags = await self._backend.tags(text(known.answer, "EndpointArn"))
        held = known.tags.get(OWNER_TAG)
        if held is not None and not self._backend.identity.owns(owner, known.tags):
            raise conflict(f"endpoint {external.name}", known.tags)
        return known

    async def delete(self, owner: Owner, external: External) -> None:
        self._backend.inventory.heat(ENDPOINT_ROLE, external.name)
        known = await self._ours(owner, external)
        if known is None or text(known.answer, "EndpointStatus") == "Deleting":
            return
        if not self._backend.identity.owns(owner, known.tags):
            raise conflict(f"endpoint {external.name}", known.tags)
        try:
            await self._backend.api.sagemaker("DeleteEndpoint", EndpointName=external.name)
        except AbsentError:
            return


def _tags(wanted: Wanted) -> dict[str, str]:
    held = wanted.body["tags"]
    assert isinstance(held, dict)
    return {key: str(value) for key, value in held.items()}
