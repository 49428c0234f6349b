"""What the kit needs of a backend: the hand of stories and oracles on what is really there.

``MemoryBackend`` is one. A real adapter's fake is another: it stands where the adapter's client
library or connection would, and answers past the adapter what is held, and by whom.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from types import MappingProxyType, ModuleType
from typing import NamedTuple, Protocol

from pydantic import JsonValue

from windlass_adapters.base import Adapter, State, Wanted

CHANGING = frozenset({"create", "update", "delete"})
NOTHING: Mapping[str, JsonValue] = MappingProxyType({})


class Thing(NamedTuple):
    """Something that a backend holds. What is over may be left out."""

    role: str
    name: str
    """With ``role``, what must not be there twice."""
    owner_uid: str
    subject: str
    """Which it is, in words that are the same in every run: without uids, ids and times."""
    digest: str
    """What it is, in words that are the same in every run."""
    state: State


class KitBackend(Protocol):
    """A backend that outlives daemons and adapters, and keeps books of what is done to it.

    A call that the adapter makes should be at least two steps: one before its effect and one after
    it (``await asyncio.sleep(0)``), so that it is cut on either side.
    """

    clock: Callable[[], datetime]
    """The time; a World sets its own."""
    calls: Counter[str]
    """How often each operation was asked for, by its name."""
    changing: Collection[str] = CHANGING
    """Those of the operations that change something."""
    params: Mapping[str, JsonValue] = NOTHING
    """The Target's parameters."""
    timed: Sequence[ModuleType] = ()
    """Modules of the adapter that ask ``time`` what time it is; they are told the World's."""

    @property
    @abstractmethod
    def changes(self) -> int:
        """Another number whenever anything has changed, whoever did it."""

    @abstractmethod
    def adapter(self) -> type[Adapter]:
        """The adapter class, bound to this backend: the kernel builds adapters itself."""

    @abstractmethod
    def things(self) -> Sequence[Thing]:
        """Everything that is held."""

    @abstractmethod
    def counted(self) -> Mapping[tuple[str, str], int]:
        """Effects so far: ``create``, ``update`` or ``delete``, and a ``Thing.subject``."""

    @abstractmethod
    def is_live(self, uid: str, wanted: Wanted) -> bool:
        """Whether just this, of this owner, is in force now."""

    @abstractmethod
    def has_succeeded(self, uid: str, wanted: Wanted) -> bool:
        """Whether this run of this owner has ended well."""

    @abstractmethod
    def running(self) -> int:
        """How many runs are going on."""

    @abstractmethod
    def finish(self, *, ok: bool = True, message: str = "") -> None:
        """End the one run that is going on."""

    def staged(self) -> AbstractContextManager[None]:
        """What stands in the place of real things while it is played: patches, say."""
        return nullcontext()

    def mutations(self) -> int:
        """How many effects there have been."""
        return sum(self.counted().values())
