"""What is told to the kernel while it is killed and disturbed: short stories with one end each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from windlass_adapters.testing.documents import document, job, kept_file
from windlass_adapters.testing.world import World

Part = Callable[[World], Awaitable[None]]


async def _nothing(world: World) -> None:
    """An empty world is where it begins."""


@dataclass(frozen=True)
class Story:
    """What goes before, in peace, and what is cut at each of its awaits."""

    name: str
    act: Part
    before: Part = _nothing


async def _make(world: World) -> None:
    await world.declare(kept_file())
    await world.until_ready("Model/wine")


async def _run(world: World) -> None:
    await world.declare(job())
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Job/train")


async def _change(world: World) -> None:
    await world.declare(kept_file(version=2))
    await world.until_ready("Model/wine")


async def _make_two(world: World) -> None:
    await world.declare(kept_file("keep"), kept_file())
    await world.until_ready("Model/keep", "Model/wine")


async def _remove_one(world: World) -> None:
    await world.declare(kept_file("keep"))
    await world.until_gone("Model/wine")


async def _fail(world: World) -> None:
    await world.declare(document("Job", "train", {"command": ["train"], "retries": 1}))
    await world.until_running()
    world.backend.finish(ok=False, message="exit 1")


async def _try_again(world: World) -> None:
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Job/train")


STORIES = (
    Story("make something that lasts", _make),
    Story("run a job to success", _run),
    Story("change something", _change, before=_make),
    Story("remove something", _remove_one, before=_make_two),
    Story("try again after a failure", _try_again, before=_fail),
)
