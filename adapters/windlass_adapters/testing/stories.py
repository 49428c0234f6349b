"""What is told to the kernel while it is killed and disturbed: short stories with one end each.

They are told with the documents of the world's cast. Those that need what the cast has not are not
told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from windlass.store.base import Document
from windlass_adapters.testing.cast import Cast
from windlass_adapters.testing.world import World
from windlass_schemas import key_of

Act = Callable[[World], Awaitable[None]]
Role = Literal["", "lasting", "run"]


async def _nothing(world: World) -> None:
    """An empty world is where it begins."""


@dataclass(frozen=True)
class Story:
    """What goes before, in peace, and what is cut at each of its awaits."""

    name: str
    act: Act
    before: Act = _nothing
    needs: Role = ""
    """Who must be in the cast."""
    more: bool = False
    """Whether it is for those who have nothing else to show the same with."""


def stories_for(cast: Cast) -> Sequence[Story]:
    """The stories that can be told with a cast."""
    told = [s for s in STORIES if not s.needs or getattr(cast, s.needs) is not None]
    return [s for s in told if not s.more or cast.lasting is None]


def lasting(world: World, name: str = "wine", version: int = 1) -> Document:
    """The document that lasts."""
    return world.cast.of("lasting")(name, version)


def run(world: World, name: str = "train", version: int = 1) -> Document:
    """The document that runs to an end."""
    return world.cast.of("run")(name, version)


async def declare(world: World, *documents: Document) -> None:
    """Declare these, and what they need, and nothing else."""
    await world.declare(*world.cast.beside, *documents)


async def until_ready(world: World, *documents: Document) -> None:
    """Until these are Ready."""
    await world.until_ready(*(str(key_of(d.resource)) for d in documents))


async def _make(world: World) -> None:
    made = lasting(world)
    await declare(world, made)
    await until_ready(world, made)


async def _run(world: World) -> None:
    await declare(world, run(world))
    await _end(world)


async def _end(world: World, version: int = 1) -> None:
    await world.until_running()
    world.behind.finish()
    await until_ready(world, run(world, version=version))


async def _change(world: World) -> None:
    changed = lasting(world, version=2)
    await declare(world, changed)
    await until_ready(world, changed)


async def _make_two(world: World) -> None:
    made = (lasting(world, "keep"), lasting(world))
    await declare(world, *made)
    await until_ready(world, *made)


async def _remove_one(world: World) -> None:
    await declare(world, lasting(world, "keep"))
    await world.until_gone(str(key_of(lasting(world).resource)))


async def _fail(world: World) -> None:
    await declare(world, run(world))
    await world.until_running()
    world.behind.finish(ok=False, message="exit 1")


async def _change_run(world: World) -> None:
    await declare(world, run(world, version=2))
    await _end(world, 2)


async def _run_two(world: World) -> None:
    await declare(world, run(world, "keep"), run(world))
    await world.until_running(2)


async def _stop_one(world: World) -> None:
    await declare(world, run(world, "keep"))
    await world.until_gone(str(key_of(run(world).resource)))


STORIES = (
    Story("make something that lasts", _make, needs="lasting"),
    Story("run a job to success", _run, needs="run"),
    Story("change something", _change, before=_make, needs="lasting"),
    Story("remove something", _remove_one, before=_make_two, needs="lasting"),
    Story("try again after a failure", _end, before=_fail, needs="run"),
    Story("run again after a change", _change_run, before=_run, needs="run", more=True),
    Story("remove what runs", _stop_one, before=_run_two, needs="run", more=True),
)
