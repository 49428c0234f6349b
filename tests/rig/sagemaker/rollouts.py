"""How endpoints go on by themselves: created, updated or rolled back, scaled, deleted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rig.sagemaker.account import Account, Plan, Resource
from rig.sagemaker.shapes import Json
from rig.sagemaker.shifting import WATCHED_EVERY, Course, course_of

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

    def pending_summary(self, status: str, since: float) -> Json:
        """As PendingDeploymentSummary tells it."""
        type_ = {} if self.type is None else {"InstanceType": self.type}
        told = [{"Status": status, "StartTime": since}] if status else []
        return {**self.summary(), **type_, "VariantStatus": told}


@dataclass
class Pending:
    """The change that is under way."""

    config: str
    variants: dict[str, Variant]
    since: float
    status: str = "Creating"
    """What is being done now: Creating, ActivatingTraffic, Baking, Deleting."""
    changed: float = 0.0


@dataclass
class Rollout:
    """What an endpoint runs, and what it is about to run."""

    config: str
    variants: dict[str, Variant]
    pending: Pending | None = None
    deployment: Json | None = None
    history: list[str] = field(default_factory=list)
    """The configurations that were in force, in order."""
    most: int = 0
    """The most instances that there were at a time, both fleets together."""


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
    rollout = of(endpoint)
    rollout.pending = Pending(config, wanted, account.now, changed=account.now)
    rollout.deployment = deployment or rollout.deployment
    count = sum(variant.desired for variant in wanted.values())
    course = course_of(account, deployment, max(count, 1))
    _become(account, endpoint, "Updating")
    _Update(account, endpoint, rollout.pending, course, deployment).begin()


class _Update:
    """An update under way."""

    def __init__(
        self,
        account: Account,
        endpoint: Resource,
        pending: Pending,
        course: Course,
        deployment: Json | None,
    ) -> None:
        self._account, self._endpoint, self._rollout = account, endpoint, of(endpoint)
        self._pending, self._course, self._deployment = pending, course, deployment
        self._plan = account.plan("update", endpoint.name)
        self._before = {name: v.copy() for name, v in self._rollout.variants.items()}

    def begin(self) -> None:
        """Bring up what the first step needs."""
        shift = self._course.shifts[0]
        seconds = shift.seconds if self._plan.seconds is None else self._plan.seconds
        self._account.timeline.at(seconds, lambda: self._step(0))

    def _step(self, number: int) -> None:
        if self._plan.fail and self._plan.step == number:
            self._undo(self._plan.fail)
            return
        self._say("ActivatingTraffic")
        self._shift(self._course.shifts[number].share)
        self._say("Baking")
        self._bake(number, self._course.shifts[number].baking)

    def _shift(self, share: float) -> None:
        """Move the traffic; rolling moves the instances with it."""
        old, new = self._rollout.variants, self._pending.variants
        for name, variant in new.items():
            arrived = round(share * variant.desired) if self._course.rolling else variant.desired
            left = old.get(name)
            # A batch is up before as many of the old ones go.
            self._measure(old, {**new, name: replace(variant, current=arrived)})
            variant.current, variant.weight = arrived, share * variant.wanted_weight
            if left is not None:
                left.weight = (1 - share) * self._before[name].weight
                if self._course.rolling:
                    left.current = max(0, self._before[name].current - arrived)

    def _measure(self, old: dict[str, Variant], new: dict[str, Variant]) -> None:
        now = sum(v.current for v in (*old.values(), *new.values()))
        self._rollout.most = max(self._rollout.most, now)

    def _bake(self, number: int, left: float) -> None:
        timeline, shifts = self._account.timeline, self._course.shifts
        reason = _alarmed(self._account, self._deployment) or self._too_long()
        if reason:
            self._undo(reason)
        elif left > 0:
            pause = min(left, WATCHED_EVERY)
            timeline.at(pause, lambda: self._bake(number, left - pause))
        elif number + 1 < len(shifts):
            self._say("Creating")
            timeline.at(shifts[number + 1].seconds, lambda: self._step(number + 1))
        else:
            self._say("Deleting")
            timeline.at(self._course.termination, self._end)

    def _too_long(self) -> str:
        late = self._account.now - self._pending.since > self._course.longest
        return "The deployment has exceeded MaximumExecutionTimeoutInSeconds" if late else ""

    def _end(self) -> None:
        rollout, wanted = self._rollout, self._pending.variants
        for variant in wanted.values():
            variant.current, variant.weight = variant.desired, variant.wanted_weight
        rollout.config, rollout.variants, rollout.pending = self._pending.config, wanted, None
        rollout.history.append(rollout.config)
        _become(self._account, self._endpoint, "InService")

    def _undo(self, reason: str) -> None:
        """All traffic goes back to the old fleet; it may fail to come back, then both stay."""
        rollout = self._rollout

        def end() -> None:
            rollout.pending = None
            if self._plan.status == "UpdateRollbackFailed":
                _become(self._account, self._endpoint, "UpdateRollbackFailed", reason)
                return
            rollout.variants = self._before
            _become(self._account, self._endpoint, "InService", reason)

        self._say("Deleting")
        self._account.timeline.at(self._course.back, end)

    def _say(self, status: str) -> None:
        self._pending.status, self._pending.changed = status, self._account.now


def begin_scaling(account: Account, endpoint: Resource, wanted: dict[str, Variant]) -> None:
    """Updating; the same configuration with other counts and weights in the end."""
    rollout, plan = of(endpoint), account.plan("scale", endpoint.name)
    before = {name: variant.copy() for name, variant in rollout.variants.items()}
    rollout.variants = wanted

    def back() -> None:
        rollout.variants = before
        _become(account, endpoint, "InService", plan.fail)

    def end() -> None:
        if plan.fail:
            _become(account, endpoint, "RollingBack")
            account.timeline.at(account.durations["endpoint.rollback"], back)
            return
        for variant in wanted.values():
            variant.current, variant.weight = variant.desired, variant.wanted_weight
        _become(account, endpoint, "InService")

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
