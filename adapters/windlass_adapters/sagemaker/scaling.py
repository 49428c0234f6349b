"""Autoscaling of a fleet: hops 5 and 7 for its scalable target and its one policy.

The target is in force for what it says, so that min, max, target value and cooldowns change in
place. Removing the target removes its policies.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import JsonValue

from windlass_adapters.base import (
    Absent,
    Change,
    External,
    Found,
    Observation,
    Owner,
    State,
    TransientError,
    Wanted,
)
from windlass_adapters.sagemaker.answers import count, number, part, text
from windlass_adapters.sagemaker.api import SCALING
from windlass_adapters.sagemaker.deployments import SCALING_ROLE, name_digest
from windlass_adapters.sagemaker.endpoints import SCALABLE
from windlass_adapters.sagemaker.errors import AbsentError
from windlass_adapters.sagemaker.immutables import Backend
from windlass_adapters.sagemaker.inventory import Scaled
from windlass_adapters.sagemaker.names import conflict

POLICY = "windlass"
_FIELDS = ("min", "max", "metric", "target", "cooldownOut", "cooldownIn")


class Scaling:
    """The scalable targets of one Target's endpoints. They belong to whoever owns the endpoint."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def look(self, owner: Owner, external: External) -> Observation:
        inventory, name = self._backend.inventory, external.name
        known = await inventory.scaling.get()
        if name not in known or inventory.is_hot(SCALING_ROLE, name):
            fresh = (await inventory.scaled(name)).get(name)
            if fresh is None:
                known.pop(name, None)
                return Absent()
            known[name] = fresh
            inventory.cool(SCALING_ROLE, name)
        return await self._found(owner, external, known[name])

    async def _found(self, owner: Owner, external: External, scaled: Scaled) -> Found:
        uid: str | None = owner.uid
        endpoint = (await self._backend.inventory.endpoints.get()).get(_endpoint(external.name))
        if endpoint is not None:
            uid = self._backend.identity.owner_uid(owner, endpoint.tags)
        digest = name_digest(external.name)
        variant = external.name.rpartition("/")[2]
        detail: dict[str, JsonValue] = {f"scaling/{variant}": _held(scaled)}
        return Found(external, uid, State.LIVE, digest, detail=detail)

    async def create(self, owner: Owner, wanted: Wanted) -> Found:
        await self._refuse_foreign(owner, wanted.name)
        body, inventory = wanted.body, self._backend.inventory
        inventory.heat(SCALING_ROLE, wanted.name)
        where = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": wanted.name,
            "ScalableDimension": SCALABLE,
        }
        api = self._backend.api
        before = (await inventory.scaling.get()).get(wanted.name) or (
            await inventory.scaled(wanted.name)
        ).get(wanted.name)
        held = _held(before) if before else {}
        new: dict[str, object] = (
            {} if before else {"Tags": body["tags"]}
        )  # only then AWS takes them
        if any(held.get(f) != body[f] for f in ("min", "max")):
            await api.call(
                SCALING,
                "RegisterScalableTarget",
                **where,
                MinCapacity=body["min"],
                MaxCapacity=body["max"],
                **new,
            )
        if any(held.get(f) != body[f] for f in _FIELDS[2:]):
            await api.call(
                SCALING,
                "PutScalingPolicy",
                **where,
                PolicyName=POLICY,
                PolicyType="TargetTrackingScaling",
                TargetTrackingScalingPolicyConfiguration={
                    "TargetValue": body["target"],
                    "PredefinedMetricSpecification": {"PredefinedMetricType": body["metric"]},
                    "ScaleOutCooldown": body["cooldownOut"],
                    "ScaleInCooldown": body["cooldownIn"],
                },
            )
        external = External(SCALING_ROLE, wanted.name, wanted.name)
        seen = await self.look(owner, external)
        if not isinstance(seen, Found):
            raise TransientError(f"scaling of {wanted.name} is not shown yet; looking again")
        inventory.heat(SCALING_ROLE, wanted.name)
        return seen

    async def update(self, owner: Owner, external: External, wanted: Wanted) -> Found:
        return await self.create(owner, wanted)

    async def delete(self, owner: Owner, external: External) -> None:
        await self._refuse_foreign(owner, external.name)
        self._backend.inventory.heat(SCALING_ROLE, external.name)
        try:
            await self._backend.api.call(
                SCALING,
                "DeregisterScalableTarget",
                ServiceNamespace="sagemaker",
                ResourceId=external.name,
                ScalableDimension=SCALABLE,
            )
        except AbsentError:
            return

    async def _refuse_foreign(self, owner: Owner, name: str) -> None:
        """A target has no owner of its own: its endpoint's counts."""
        endpoint = (await self._backend.inventory.endpoints.get()).get(_endpoint(name))
        if endpoint is not None and not self._backend.identity.owns(owner, endpoint.tags):
            raise conflict(f"scaling of {name}", endpoint.tags)


def _endpoint(resource: str) -> str:
    return resource.removeprefix("endpoint/").partition("/")[0]


def _held(scaled: Scaled) -> dict[str, JsonValue]:
    """What is in force, in our words. Another policy beside ours is shown as drift."""
    found: dict[str, JsonValue] = {
        "min": count(scaled.target, "MinCapacity"),
        "max": count(scaled.target, "MaxCapacity"),
    }
    for policy in scaled.policies:
        if text(policy, "PolicyName") == POLICY:
            config = part(policy, "TargetTrackingScalingPolicyConfiguration")
            metric = part(config, "PredefinedMetricSpecification")
            found |= {
                "metric": text(metric, "PredefinedMetricType"),
                "target": number(config, "TargetValue"),
                "cooldownOut": count(config, "ScaleOutCooldown"),
                "cooldownIn": count(config, "ScaleInCooldown"),
            }
    return found


def scaling_changes(wanted: Wanted, found: Found) -> Iterator[Change]:
    """What is in force otherwise than wanted."""
    held = found.detail.get(f"scaling/{wanted.name.rpartition('/')[2]}")
    if not isinstance(held, dict):
        return
    for field in _FIELDS:
        if held.get(field) != wanted.body[field]:
            yield Change(f"/spec/autoscaling/{field}", held.get(field), wanted.body[field])
