"""``windlass publish``, and the events as the broker gives them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from windlass.api.views import LoggedEvent
from windlass.bus.address import URL_VARIABLE, Address
from windlass.bus.answers import Answer
from windlass.bus.client import publish_said
from windlass.bus.publishing import PublishError, Said
from windlass.bus.saying import read_said
from windlass.bus.subscribing import SubscribeError, follow
from windlass.cli import rows
from windlass.cli.failure import ExitCode, Failure, split_hint
from windlass.cli.looking import event_table
from windlass.cli.naming import key_of
from windlass.cli.terminal import note, raw, say
from windlass.sources.base import SourceUnavailableError
from windlass.store.base import Fault
from windlass_schemas import parse_duration


def publish(
    paths: Sequence[Path],
    delete: Sequence[str],
    source: str | None,
    revision: int | None,
    timeout: str | None,
) -> None:
    """Publish files; with a timeout, wait for the answers. Raises Failure."""
    if not paths and not delete:
        raise Failure("nothing to publish", "windlass publish FILE..., or --delete KIND/NAME")
    seconds = None if timeout is None else _seconds(timeout)
    try:
        said = asyncio.run(_read(paths))
        said += [Said(key_of(name), None) for name in delete]
        answers = asyncio.run(publish_said(said, source, revision, None, seconds))
    except (PublishError, SourceUnavailableError) as error:
        raise Failure(*split_hint(str(error))) from error
    except TimeoutError as error:
        raise Failure(
            f"published, and no daemon has answered in {timeout}",
            "it is taken when one comes; see whether one runs: windlass doctor",
            ExitCode.TIMEOUT,
        ) from error
    if seconds is None:
        for each in said:
            say(f"{each.key.short} published")
        return
    refused = 0
    for each, answer in zip(said, answers, strict=True):
        _show(each, answer)
        refused += not answer.ok
    if refused:
        raise Failure(f"{refused} of {len(said)} were not taken over", "mend and publish again")


def _seconds(text: str) -> float:
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise Failure(f"{text!r} is no duration", "write for example 90s or 5m") from error


async def _read(paths: Sequence[Path]) -> list[Said]:
    said: list[Said] = []
    faults: list[Fault] = []
    for path in paths:
        read = await read_said(path)
        said += read.said
        faults += read.faults
    for fault in faults:
        note(str(fault), "red")
    if faults:
        raise Failure("the files have faults, and nothing was published", "windlass validate PATH")
    return said


def _show(said: Said, answer: Answer) -> None:
    generation = f", generation {answer.generation}" if answer.generation else ""
    told = f": {answer.message}" if answer.message and not answer.faults else ""
    say(f"{said.key.short} {answer.verdict}{generation}{told}")
    for fault in answer.faults:
        note(f"  {fault.field}: {fault.message}" if fault.field else f"  {fault.message}", "red")


def watch_broker(name: str | None, output: Literal["json"] | None) -> None:
    """``windlass events -w --amqp``: events as they come over the broker. Raises Failure."""
    address = Address.from_environment()
    if address is None:
        raise Failure(
            "no broker is known", f"set {URL_VARIABLE}, for example amqp://USER@HOST/VHOST"
        )
    table = event_table(output)

    def show(logged: LoggedEvent) -> None:
        if output == "json":
            raw(logged.event.model_dump_json(by_alias=True))
        else:
            table.add(rows.event_row(logged))

    try:
        asyncio.run(follow(address, key_of(name) if name else None, show, note))
    except SubscribeError as error:
        raise Failure(*split_hint(str(error))) from error
