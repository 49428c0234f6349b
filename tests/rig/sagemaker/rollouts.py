"""How endpoints go on by themselves: created, updated or rolled back, scaled, deleted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rig.sagemaker.account import Account, Plan, Resource
from rig.sagemaker.shapes import Json

ENDPOINT = "endpoint"


@dataclass
class Variant:
    """A production variant and its instances."""

    name: str
    type: str | None
    desired: int
    current: int = 0
    weight: float = 1.0
    wanted_weight: float = 1.0
    serverless: Json | None = None

    def copy(self) -> Variant:
        """Another one that starts out the same."""
        return replace(self)

    def summary(self) -> Json:
        """As DescribeEndpoint tells it."""
        told: Json = {
            "VariantName": self.name,
            "CurrentWeight": self.weight,
            "DesiredWeight": self.wanted_weight,
            "CurrentInstanceCount": self.current,
            "DesiredInstanceCount": self.desired,
        }
        if self.serverless is not None:
            told["CurrentServerlessConfig"] = told["DesiredServerlessConfig"] = self.serverless
        return told

    def pending_summary(self) -> Json:
        """As PendingDeploymentSummary tells it."""
        type_ = {} if self.type is None else {"InstanceType": self.type}
        return {**self.summary(), **type_}


@dataclass
class Pending:
    """The change that is under way."""

    config: str
    variants: dict[str, Variant]
    since: float


@dataclass
class Rollout:
    """What an endpoint runs, and what it is about to run."""

    config: str
    variants: dict[str, Variant]
    pending: Pending | None = None
    deployment: Json | None = None
    history: list[str] = field(default_factory=list)
    """The configurations that were in force, in order."""


def of(endpoint: Resource) -> Rollout:
    """An endpoint's rollout."""
    found = endpoint.state["rollout"]
    assert isinstance(found, Rollout)
    return found


def variants_of(config: Json) -> dict[str, Variant]:
    """The variants that a configuration asks for."""
    found = {}
    for body in config["ProductionVariants"]:
        name, serverless = body["VariantName"], body.get("ServerlessConfig")
        count = 0 if serverless else body.get("InitialInstanceCount", 1)
        weight = body.get("InitialVariantWeight", 1.0)
        found[name] = Variant(name, body.get("InstanceType"), count, 0, weight, weight, serverless)
    return found


def retain(held: dict[str, Variant], wanted: dict[str, Variant], excluded: set[str]) -> None:
    """RetainAllVariantProperties: counts and weights stay as they are."""
    for name, variant in wanted.items():
        now = held.get(name)
        if now is None:
            continue
        if "DesiredInstanceCount" not in excluded and variant.serverless is None:
            variant.desired = now.desired
        if "DesiredWeight" not in excluded:
            variant.weight = variant.wanted_weight = now.wanted_weight


def begin_create(
    account: Account,
    endpoint: Resource,
    config: Resource,
    variants: dict[str, Variant],
    deployment: Json | None,
) -> None:
    """Creating; InService or Failed in the end."""
    endpoint.state["rollout"] = Rollout(config.name, variants, deployment=deployment)
    plan = account.plan("create", endpoint.name)

    def end() -> None:
        if plan.fail:
            _become(account, endpoint, "Failed", plan.fail)
            return
        for variant in variants.values():
            variant.current = variant.desired
        of(endpoint).history.append(config.name)
        _become(account, endpoint, "InService")

    _become(account, endpoint, "Creating")
    account.timeline.at(_seconds(account, plan, "endpoint.create"), end)


def begin_update(
    account: Account,
    endpoint: Resource,
    config: str,
    wanted: dict[str, Variant],
    deployment: Json | None,
) -> None:
    """Updating; InService on the new configuration, or on the old one with a reason."""
    rollout, plan = of(endpoint), account.plan("update", endpoint.name)
    rollout.pending = Pending(config, wanted, account.now)
    rollout.deployment = deployment or rollout.deployment

    def end() -> None:
        reason = plan.fail or _alarmed(account, deployment)
        if plan.status == "UpdateRollbackFailed":
            rollout.pending = None
            _become(account, endpoint, "UpdateRollbackFailed", reason)
        elif reason:
            _become(account, endpoint, "RollingBack")
            account.timeline.at(account.durations["endpoint.rollback"], lambda: back(reason))
        else:
            for variant in wanted.values():
                variant.current, variant.weight = variant.desired, variant.wanted_weight
            rollout.config, rollout.variants, rollout.pending = config, wanted, None
            rollout.history.append(config)
            _become(account, endpoint, "InService")

    def back(reason: str) -> None:
        rollout.pending = None
        _become(account, endpoint, "InService", reason)

    _become(account, endpoint, "Updating")
    account.timeline.at(_seconds(account, plan, "endpoint.update"), end)


def begin_scaling(account: Account, endpoint: Resource, wanted: dict[str, Variant]) -> None:
    """Updating; the same configuration with other counts and weights in the end."""
    rollout, plan = of(endpoint), account.plan("scale", endpoint.name)
    before = {name: variant.copy() for name, variant in rollout.variants.items()}
    rollout.variants = wanted

    def end() -> None:
        if plan.fail:
            rollout.variants = before
        else:
            for variant in wanted.values():
                variant.current, variant.weight = variant.desired, variant.wanted_weight
        _become(account, endpoint, "InService", plan.fail)

    _become(account, endpoint, "Updating")
    account.timeline.at(_seconds(account, plan, "endpoint.scale"), end)


def begin_delete(account: Account, endpoint: Resource) -> None:
    """Deleting; gone in the end."""
    plan = account.plan("delete", endpoint.name)
    _become(account, endpoint, "Deleting")
    account.timeline.at(_seconds(account, plan, "endpoint.delete"), lambda: account.drop(endpoint))


def begin_system_update(account: Account, endpoint: Resource, seconds: float) -> None:
    """SystemUpdating: AWS patches it, and nobody may touch it."""
    _become(account, endpoint, "SystemUpdating")
    account.timeline.at(seconds, lambda: _become(account, endpoint, "InService"))


def _become(account: Account, endpoint: Resource, status: str, reason: str = "") -> None:
    endpoint.status, endpoint.reason, endpoint.changed = status, reason, account.now


def _seconds(account: Account, plan: Plan, usual: str) -> float:
    return account.durations[usual] if plan.seconds is None else plan.seconds


def _alarmed(account: Account, deployment: Json | None) -> str:
    rollback = (deployment or {}).get("AutoRollbackConfiguration", {})
    named = {alarm["AlarmName"] for alarm in rollback.get("Alarms", ())}
    raised = sorted(named & account.alarms())
    return f"One or more alarms have been triggered: {', '.join(raised)}" if raised else ""
