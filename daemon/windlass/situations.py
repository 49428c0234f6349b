"""Gather what a plan is made from: hops 4 and 5. Reads only, whatever it finds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from windlass.clock import Clock
from windlass.dependencies import Resolution, resolve, with_best_params
from windlass.plan import Dependent, Situation
from windlass.plan.history import limit_of, names_in
from windlass.reading import Reading
from windlass.store.base import ExternalRecord, Object, RecordState, Store
from windlass.targets import ElsewhereError, OpenTarget, Targets, UndeclaredError
from windlass_adapters.base import (
    Absent,
    AdapterError,
    Capabilities,
    Desired,
    Found,
    Observation,
    Owner,
    TerminalError,
    Unknown,
    Wanted,
)
from windlass_schemas import Key, Reason, Target

_OVER = (RecordState.SUCCEEDED, RecordState.FAILED)


class Situations:
    """Looks at one object from all sides: the store, its references, its backends."""

    def __init__(
        self, store: Store, targets: Targets, clock: Clock, history: int | None = None
    ) -> None:
        """``history``: how many earlier runs of a Job stay that does not say it itself."""
        self._store = store
        self._targets = targets
        self._clock = clock
        self._history = history

    def owner(self, object_: Object) -> Owner:
        """The tag that everything of this object carries."""
        return Owner(self._store.install, object_.uid, object_.key)

    async def of(self, object_: Object, reading: Reading) -> Situation:
        """Everything that a plan needs. Reads only. Raises AdapterError when there is no target."""
        now = self._clock()
        deleting = object_.deleting_since is not None
        resolution = Resolution((), {}) if deleting else await resolve(reading, object_)
        try:
            target = await self._targets.of(object_, reading)
        except ElsewhereError:
            raise
        except AdapterError as error:
            if deleting:
                return await self._parting(object_, reading, now)
            if not resolution.blockers or error.reason is Reason.HOST_AWAY:
                raise
            return _without_target(object_, resolution, now)
        wanted: tuple[Wanted, ...] = ()
        refusal = None
        if not deleting:
            wanted, refusal = _wanted(self.owner(object_), object_, target, resolution)
        return Situation(
            object=object_,
            target=target.id,
            wanted=wanted,
            observed=await self._observe(object_, reading),
            capabilities=target.capabilities,
            now=now,
            blockers=resolution.blockers,
            refusal=refusal,
            dependents=await self._dependents(object_) if deleting else (),
            diff=target.adapter.diff,
            history=limit_of(object_, self._history),
            in_use=await self._in_use(object_, reading),
        )

    async def _in_use(self, object_: Object, reading: Reading) -> frozenset[str]:
        """What those hold that take from it, and from those: asked for before a run goes."""
        limit = limit_of(object_, self._history)
        runs = sum(record.wanted.completes for record in object_.externals)
        if limit is None or runs - 1 <= limit:  # one that goes on may turn out to be over
            return frozenset()
        seen: set[Key] = set()
        waiting, names = [object_.key], set[str]()
        while waiting:
            for key in await self._store.dependents(waiting.pop()):
                if key in seen or (found := await reading.get(key)) is None:
                    continue
                seen.add(key)
                waiting.append(key)
                names.update(name for record in found.externals for name in names_in(record))
        return frozenset(names)

    async def _parting(self, object_: Object, reading: Reading, now: datetime) -> Situation:
        """It is going and its target cannot be opened: what it holds elsewhere can be asked for."""
        known = [self._targets.capabilities(record.target) for record in object_.externals]
        slowest = max((c for c in known if c), key=lambda c: c.soak, default=Capabilities())
        return Situation(
            object=object_,
            target="",
            wanted=(),
            observed=await self._observe(object_, reading),
            capabilities=slowest,
            now=now,
            dependents=await self._dependents(object_),
        )

    async def _dependents(self, object_: Object) -> tuple[Dependent, ...]:
        keys = await self._store.dependents(object_.key)
        found = [await self._store.get(key) for key in keys]
        if object_.key.kind == "Target":  # who has moved away may still hold something there
            target = f"{object_.key.namespace}/{object_.key.name}"
            known = [o for o in await self._store.list() if o.key not in keys]
            found += [o for o in known if _holds_on(o, target)]
        return tuple(Dependent(o.key, o.deleting_since is not None) for o in found if o is not None)

    async def _observe(
        self, object_: Object, reading: Reading
    ) -> dict[tuple[str, str, str], Observation]:
        """An answer for each record; finished runs are not asked for unless they are to go."""
        observed: dict[tuple[str, str, str], Observation] = {}
        by_target: dict[str, list[ExternalRecord]] = {}
        for record in object_.externals:
            if record.state in _OVER and object_.deleting_since is None:
                observed[record.name] = Unknown("over; not asked for")
            else:
                by_target.setdefault(record.target, []).append(record)
        for id_, records in by_target.items():
            observed |= await self._observe_target(object_, id_, records, reading)
        return observed

    async def _observe_target(
        self, object_: Object, id_: str, records: Sequence[ExternalRecord], reading: Reading
    ) -> dict[tuple[str, str, str], Observation]:
        owner = self.owner(object_)
        try:
            target = await self._targets.by_id(id_, reading)
        except AdapterError as error:
            # Of a target that was removed, finished runs are nobody's any more.
            gone = isinstance(error, UndeclaredError)
            return {
                r.name: Absent() if gone and r.state in _OVER else Unknown(str(error))
                for r in records
            }
        intended = [r for r in records if r.state is RecordState.INTENDED]
        observed: dict[tuple[str, str, str], Observation] = {}
        if intended:
            observed |= await _look_up(target, owner, intended)
        known = [r for r in records if r.state is not RecordState.INTENDED]
        answers = await target.observe(owner, [r.external for r in known])
        observed |= {r.name: answers[r.external] for r in known}
        return {name: _if_ours(seen, owner) for name, seen in observed.items()}


def _holds_on(object_: Object, target: str) -> bool:
    return any(r.target == target and r.state not in _OVER for r in object_.externals)


def _without_target(object_: Object, resolution: Resolution, now: datetime) -> Situation:
    """Its target is one of the things that are not Ready: nothing can be asked."""
    unasked = Unknown("its target is not Ready")
    return Situation(
        object=object_,
        target="",
        wanted=(),
        observed={record.name: unasked for record in object_.externals},
        capabilities=Capabilities(),
        now=now,
        blockers=resolution.blockers,
    )


def _wanted(
    owner: Owner, object_: Object, target: OpenTarget, resolution: Resolution
) -> tuple[tuple[Wanted, ...], tuple[Reason, str] | None]:
    """What must exist, or why the adapter cannot serve the spec."""
    if resolution.blockers or isinstance(object_.resource, Target):
        return (), None
    if object_.resource.policy.adopt and not target.capabilities.adopts:
        message = f"policy.adopt: {target.id} cannot take over what it did not make; leave it out"
        return (), (Reason.INVALID_SPEC, message)
    try:
        resource = with_best_params(object_.resource, resolution.inputs)
        desired = Desired(owner, resource, object_.files, resolution.inputs)
        return target.adapter.normalise(desired), None
    except TerminalError as error:
        return (), (error.reason, str(error))


async def _look_up(
    target: OpenTarget, owner: Owner, intended: Sequence[ExternalRecord]
) -> dict[tuple[str, str, str], Observation]:
    """Ask by owner: we meant to make these, and do not know whether we did."""
    if target.capabilities.by_name:
        answers = await target.observe(owner, [record.external for record in intended])
        return {record.name: _only_ours(answers[record.external], owner) for record in intended}
    try:
        held = await target.find(owner)
    except AdapterError as error:
        return {record.name: Unknown.because(error) for record in intended}
    found = {(f.external.role, f.external.name): f for f in held}
    return {r.name: found.get((r.wanted.role, r.wanted.name), Absent()) for r in intended}


def _only_ours(seen: Observation, owner: Owner) -> Observation:
    """What we only meant to make and is another's, was not made by us."""
    return Absent() if isinstance(seen, Found) and seen.owner_uid != owner.uid else seen


def _if_ours(seen: Observation, owner: Owner) -> Observation:
    """The uid decides, not the name: another's is neither ours nor absent."""
    if isinstance(seen, Found) and seen.owner_uid not in (None, owner.uid):
        external = seen.external
        return Unknown(
            f"{external.role} {external.name} belongs to another object"
            f" (uid {seen.owner_uid}); remove that one or use another name",
            Reason.CONFLICT,
        )
    return seen
