"""``windlass.publish``: declare specs from a Python program, without a daemon on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from windlass.bus.address import URL_VARIABLE, Address
from windlass.bus.answers import Answer
from windlass.bus.publishing import (
    PublishError,
    Said,
    connected,
    new_revision,
    signer_from_environment,
    source_from_environment,
)
from windlass.bus.saying import read_said
from windlass.sources.base import SourceUnavailableError
from windlass_schemas import DEFAULT_NAMESPACE, Key

Spec = Mapping[str, object] | str | PathLike[str]
"""One document, or the path of a file or folder with documents."""


def publish(
    *specs: Spec,
    files: Mapping[str, bytes] | None = None,
    delete: Sequence[str] = (),
    source: str | None = None,
    revision: int | None = None,
    url: str | None = None,
    wait: float | None = None,
) -> list[Answer]:
    """Publish specs; returns when the broker has them all.

    ``files`` are what documents that are given as mappings name, by path; what a file names is
    read beside it. ``delete`` names objects (``Job/train``) to withdraw. ``source`` is who
    publishes (``WINDLASS_PUBLISH_SOURCE``), ``revision`` rises with each change (the time, by
    itself), ``url`` is the broker (``WINDLASS_AMQP_URL``). With ``wait``, seconds, the daemon's
    answers come back in order: ``answer.ok``, ``answer.verdict``, ``answer.faults``; else none do.

    Raises PublishError, ValueError for a document or key that cannot be read, and TimeoutError when
    no daemon has answered in time. What was published stays published then.
    """
    said = asyncio.run(_said(specs, files or {}, delete))
    return asyncio.run(publish_said(said, source, revision, url, wait))


async def publish_said(
    said: Sequence[Said],
    source: str | None,
    revision: int | None,
    url: str | None,
    wait: float | None,
) -> list[Answer]:
    """The same for what was read already."""
    address = Address(url) if url else Address.from_environment()
    if address is None:
        raise PublishError(f"no broker is known; set {URL_VARIABLE} to amqp://USER@HOST/VHOST")
    source = source or source_from_environment()
    revision = revision or new_revision()
    async with connected(address, source, signer_from_environment(source)) as publisher:
        ids = [await publisher.publish(each, revision) for each in said]
        if wait is None:
            return []
        async with asyncio.timeout(wait):
            return [await publisher.answer(id_, wait) for id_ in ids]


async def _said(
    specs: Sequence[Spec], files: Mapping[str, bytes], delete: Sequence[str]
) -> list[Said]:
    said: list[Said] = []
    for spec in specs:
        if isinstance(spec, Mapping):
            said.append(Said(_key_of(spec), cast("Mapping[str, JsonValue]", spec), files))
            continue
        try:
            read = await read_said(Path(spec))
        except SourceUnavailableError as error:
            raise PublishError(str(error)) from error
        if read.faults:
            raise PublishError("nothing was published: " + "; ".join(map(str, read.faults)))
        said += read.said
    return said + [Said(Key.parse(name), None) for name in delete]


def _key_of(document: Mapping[str, object]) -> Key:
    metadata = document.get("metadata")
    named = metadata if isinstance(metadata, Mapping) else {}
    namespace = named.get("namespace", DEFAULT_NAMESPACE)
    return Key.parse(f"{document.get('kind')}/{namespace}/{named.get('name')}")


__all__ = ["Answer", "PublishError", "publish"]
