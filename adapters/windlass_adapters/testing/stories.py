"""What is told to the kernel while it is killed and disturbed: short stories with one end each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from windlass_adapters.testing.documents import document, job, kept_file
from windlass_adapters.testing.world import World

Story = Callable[[World], Awaitable[None]]


async def make_something_that_lasts(world: World) -> None:
    await world.declare(kept_file())
    await world.until_ready("Model/wine")


async def run_a_job_to_success(world: World) -> None:
    await world.declare(job())
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Job/train")


async def change_something(world: World) -> None:
    await world.declare(kept_file(version=1))
    await world.until_ready("Model/wine")
    await world.declare(kept_file(version=2))
    await world.until_ready("Model/wine")


async def delete_something(world: World) -> None:
    await world.declare(kept_file("keep"), kept_file("wine"))
    await world.until_ready("Model/keep", "Model/wine")
    await world.declare(kept_file("keep"))
    await world.until_gone("Model/wine")


async def try_again_after_a_failure(world: World) -> None:
    await world.declare(document("Job", "train", {"command": ["train"], "retries": 1}))
    await world.until_running()
    world.backend.finish(ok=False, message="exit 1")
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Job/train")


STORIES: tuple[Story, ...] = (
    make_something_that_lasts,
    run_a_job_to_success,
    change_something,
    delete_something,
    try_again_after_a_failure,
)
