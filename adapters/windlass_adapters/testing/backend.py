"""A backend in memory, with the faults of real ones.

It outlives adapters and daemons, as real backends do, and counts what is done to it. What it can do
to a caller: show an older state (lag), refuse, lose the request or the reply, take its time, forget
what is over, and let somebody else change what it holds. Nothing here is random: the test decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pydantic import JsonValue

from windlass_adapters.base import Adapter, External, Owner, State, TerminalError, Wanted
from windlass_adapters.testing.faults import Faults
from windlass_adapters.testing.held import START, Held, Name, Past, artifact
from windlass_adapters.testing.personality import DETERMINISTIC, Personality
from windlass_adapters.testing.port import KitBackend, Thing
from windlass_schemas import Reason


def _epoch() -> datetime:
    return START


@dataclass
class MemoryBackend(Faults, KitBackend):
    """What exists, what was done to it, and what goes wrong next."""

    personality: Personality = DETERMINISTIC
    clock: Callable[[], datetime] = _epoch
    """A World sets its own."""
    held: dict[Name, Held] = field(default_factory=dict)
    """The truth, by role and id. Where names are deterministic, the id is the name."""
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each effect happened, by effect (``create``, ``update``, ``delete``) and name."""
    settles: bool = True
    """Whether what lasts changes at once; otherwise ``settle`` makes it so, or the next two."""
    settles_after: timedelta | None = None
    settles_after_looks: int | None = None
    lag: timedelta = timedelta(0)
    """How old the state is that a look sees. Must not exceed the adapter's soak."""
    lag_looks: int = 0
    """How many looks an effect stays unseen for, on top of ``lag``."""
    written: dict[Name, Held] = field(default_factory=dict)
    """What runs have written at their end, by role and name: survives the purge."""
    changes: int = 0
    """How often anything changed, whoever did it."""
    _past: Past = field(default_factory=Past)
    _given: int = 0
    _free: list[str] = field(default_factory=list)
    _looks: int = 0

    # -- what the kit asks ----------------------------------------------------------------------

    def adapter(self) -> type[Adapter]:
        from windlass_adapters.testing.adapter import MemoryAdapter  # which speaks of backends

        return MemoryAdapter.for_backend(self)

    def things(self) -> Sequence[Thing]:
        return [
            Thing(*h.external[:2], h.owner_uid, _subject(h.external.name), h.digest, h.state)
            for h in self.held.values()
        ]

    def counted(self) -> Mapping[tuple[str, str], int]:
        found: Counter[tuple[str, str]] = Counter()
        for (effect, name), count in self.effects.items():
            found[effect, _subject(name)] += count
        return found

    def mutations(self) -> int:
        return self.effects.total()

    def is_live(self, uid: str, wanted: Wanted) -> bool:
        name = (wanted.role, wanted.name)
        for held in self.held.values():
            if held.owner_uid == uid and held.external[:2] == name:
                live = held.in_force if held.state is State.PROGRESSING else held.digest
                return live == wanted.digest
        return False

    def has_succeeded(self, uid: str, wanted: Wanted) -> bool:
        ended = self.written.get((wanted.role, wanted.name))
        return ended is not None and ended.state is State.SUCCEEDED

    def running(self) -> int:
        return sum(h.state is State.PROGRESSING for h in self.all("run"))

    # -- what each call meets ---------------------------------------------------------------------

    def call(self, operation: str) -> None:
        """Count a call and let time pass, then raise the fault that is armed for it."""
        self._pass_time(look=operation in ("observe_many", "find"))
        super().call(operation)

    # -- looking --------------------------------------------------------------------------------

    def view(self) -> Mapping[Name, Held]:
        """What a look sees: the truth, or an older state while there is lag."""
        if not self.lag and not self.lag_looks:
            return self.held
        return self._past.before(self.clock() - self.lag, self._looks - self.lag_looks)

    def named(self, role: str, name: str = "") -> Held:
        """The one resource of that role whose name starts so. Raises LookupError."""
        found = self.all(role, name)
        if len(found) != 1:
            raise LookupError(f"{len(found)} resources are {role} {name}")
        return found[0]

    def all(self, role: str, name: str = "") -> list[Held]:
        """All resources of that role whose names start so."""
        found = [h for (r, _), h in self.held.items() if r == role]
        return [h for h in found if h.external.name.startswith(name)]

    # -- what adapters do -----------------------------------------------------------------------

    def create(self, owner: Owner, wanted: Wanted) -> Held:
        """Make a resource. Where names are not ours and nothing claims them, always another one."""
        known = [h for h in self.held.values() if h.external[:2] == (wanted.role, wanted.name)]
        over = self.written.get((wanted.role, wanted.name))
        if self.personality.claims and over is not None:
            return over
        if known and (self.personality.claims or self.personality.deterministic):
            self.refuse_foreign(known[0], owner)
            return known[0]
        self.effects["create", wanted.name] += 1
        held = Held(
            External(wanted.role, wanted.name, self._new_id(wanted.name)),
            owner.uid,
            wanted.digest,
            wanted.body,
            State.PROGRESSING if wanted.completes else self._changing(State.LIVE),
            outputs={} if wanted.completes else {"artifact": artifact(wanted.digest, "model")},
            since=self.clock(),
        )
        self.held[wanted.role, held.external.external_id] = held
        self.note()
        return held

    def update(self, owner: Owner, held: Held, wanted: Wanted) -> Held:
        """Change a resource in place; the old version serves until the new one does."""
        self.refuse_foreign(held, owner)
        self.effects["update", wanted.name] += 1
        held.in_force = held.in_force if held.state is State.PROGRESSING else held.digest
        held.digest, held.body = wanted.digest, wanted.body
        held.outputs = {"artifact": artifact(wanted.digest, "model")}
        held.state, held.since, held.looks = self._changing(State.LIVE), self.clock(), 0
        self.note()
        return held

    def delete(self, owner: Owner, held: Held) -> None:
        """Remove a resource."""
        self.refuse_foreign(held, owner)
        if held.state is State.DELETING:
            return
        self.effects["delete", held.external.name] += 1
        if self._changing(State.LIVE) is State.LIVE:
            self.remove(held)
        else:
            held.state, held.since, held.looks = State.DELETING, self.clock(), 0
            self.note()

    def refuse_foreign(self, held: Held, owner: Owner) -> None:
        """Raise TerminalError for what another owner holds."""
        if held.owner_uid != owner.uid:
            role, name, _ = held.external
            raise TerminalError(
                f"{role} {name} belongs to another object (uid {held.owner_uid});"
                " remove that one or use another name"
            )

    # -- what happens by itself -----------------------------------------------------------------

    def finish(
        self,
        name: str = "",
        *,
        ok: bool = True,
        message: str = "",
        counts: bool = True,
        reason: Reason | None = None,
    ) -> None:
        """End the one run of that name that is going on."""
        (held,) = [h for h in self.all("run", name) if h.state is State.PROGRESSING]
        held.state = State.SUCCEEDED if ok else State.FAILED
        held.since = self.clock()
        held.message, held.attempt_counts, held.reason = message, counts, reason
        outputs = held.body.get("outputs")
        if ok and isinstance(outputs, dict):
            held.outputs = {o: artifact(f"{held.digest}/{o}", o) for o in outputs}
        self.written[held.external[:2]] = replace(held)
        self.note()

    def settle(self) -> None:
        """Let everything that is being made, changed or removed be done."""
        for held in list(self.held.values()):
            if held.state is State.PROGRESSING and held.external.role != "run":
                held.state, held.in_force, held.since = State.LIVE, None, self.clock()
            elif held.state is State.DELETING:
                self.remove(held)
        self.note()

    def _pass_time(self, *, look: bool) -> None:
        self._looks += look
        for held in list(self.held.values()):
            held.looks += look
            if self._is_due(held):
                if held.state is State.DELETING:
                    self.remove(held)
                else:
                    held.state, held.in_force = State.LIVE, None
                    self.note()
            elif self._is_purged(held):
                self._free.append(held.external.external_id)
                self.remove(held)

    def _is_due(self, held: Held) -> bool:
        lasting = held.state is State.PROGRESSING and held.external.role != "run"
        if not lasting and held.state is not State.DELETING:
            return False
        after, looks = self.settles_after, self.settles_after_looks
        by_time = after is not None and self.clock() >= held.since + after
        return by_time or (looks is not None and held.looks > looks)

    def _is_purged(self, held: Held) -> bool:
        after = self.personality.purge_after
        over = held.state in (State.SUCCEEDED, State.FAILED)
        return after is not None and over and self.clock() >= held.since + after

    def _changing(self, done: State) -> State:
        slow = self.settles_after is not None or self.settles_after_looks is not None
        return State.PROGRESSING if slow or not self.settles else done

    def _new_id(self, name: str) -> str:
        if self.personality.deterministic:
            return name
        if self._free:
            return self._free.pop(0)
        self._given += 1
        return str(1000 + self._given)

    # -- what somebody else does ----------------------------------------------------------------

    def hand_over(self, held: Held, uid: str) -> None:
        """Put another owner's tag on a resource."""
        held.owner_uid = uid
        self.note()

    def remove(self, held: Held) -> None:
        """Let a resource vanish, whoever did that."""
        self.held.pop((held.external.role, held.external.external_id), None)
        self.note()

    def edit(self, held: Held, **fields: JsonValue) -> None:
        """Change fields behind our back, as a person does who scales by hand."""
        held.body = {**held.body, **fields}
        self.note()

    def note(self) -> None:
        """Remember the state as it is now, for looks that lag."""
        self.changes += 1
        self._past.note(self.clock(), self._looks, self.held)


def _subject(name: str) -> str:
    """``default.train-<uid>-<digest>-a1`` without the uid."""
    head, _, rest = name.partition("-")
    return f"{head}-{rest[9:]}".rstrip("-")
