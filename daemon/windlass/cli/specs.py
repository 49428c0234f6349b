"""Commands that read specs: validate, plan, schema. They need no daemon."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue
from rich.text import Text

from windlass.checks import adapter_check
from windlass.cli.failure import ExitCode, Failure, split_hint
from windlass.cli.naming import kind_of
from windlass.cli.state import state_settings
from windlass.cli.terminal import note, raw, say, stdout
from windlass.preview import Preview, Verb, preview
from windlass.registry import Registry
from windlass.sources.base import SourceUnavailableError
from windlass.sources.namedfiles import hash_only
from windlass.sources.opening import open_source
from windlass.store.base import Fault, Snapshot, StoreError
from windlass_adapters.base import AdapterError
from windlass_schemas.json_schema import schema_files, schema_of, schema_of_all

_MARKS: dict[Verb, tuple[str, str]] = {
    "create": ("+", "green"),
    "run": (">", "cyan"),
    "update": ("~", "yellow"),
    "delete": ("-", "red"),
    "wait": (".", "dim"),
    "keep": ("=", "dim"),
}
_CHANGES: tuple[Verb, ...] = ("create", "run", "update", "delete", "wait")


def snapshot_of(path: Path, worktree: bool) -> Snapshot:
    """Everything that is declared at a path. Raises Failure when it cannot be read."""
    try:
        return asyncio.run(_read(path, worktree))
    except SourceUnavailableError as error:
        raise Failure(*split_hint(str(error))) from error


async def _read(path: Path, worktree: bool) -> Snapshot:
    check = adapter_check(Registry())
    source = await open_source(path, worktree=worktree, keep=hash_only, check=check)
    return await source.read()


def validate(path: Path, as_json: bool) -> ExitCode:
    """``windlass validate``: every fault of every file, as editors can jump to."""
    if not path.exists():
        raise Failure(f"there is no {path}", "give a folder with specs")
    found = snapshot_of(path, worktree=True)
    if as_json:
        raw(json.dumps(_verdict(path, found), indent=2, ensure_ascii=False))
    else:
        for fault in found.faults:
            raw(str(_as_seen(path, fault)))
        faults, documents = len(found.faults), len(found.documents)
        verdict = f"{faults} {_plural('fault', faults)}" if faults else "no faults"
        note(f"{documents} valid {_plural('document', documents)}, {verdict}")
    return ExitCode.ERROR if found.faults else ExitCode.OK


def _as_seen(path: Path, fault: Fault) -> Fault:
    """The fault with its path as the reader would open it, from where the command runs."""
    folder = path if path.is_dir() else path.parent
    return Fault(
        str(folder / fault.path), fault.line, fault.column, fault.field, fault.message, fault.key
    )


def _verdict(path: Path, found: Snapshot) -> dict[str, JsonValue]:
    seen = [_as_seen(path, fault) for fault in found.faults]
    return {
        "valid": not seen,
        "documents": len(found.documents),
        "faults": [
            {
                "path": fault.path,
                "line": fault.line,
                "column": fault.column,
                "field": fault.field,
                "message": fault.message,
                "key": str(fault.key) if fault.key else None,
            }
            for fault in seen
        ],
    }


def plan(path: Path | None, worktree: bool, state: Path | None, as_json: bool) -> ExitCode:
    """``windlass plan``: what would happen; 0 nothing, 2 changes."""
    if path is not None and not path.exists():
        raise Failure(f"there is no {path}", "give a folder with specs, or nothing")
    settings = state_settings(state, new=True)
    faults: Sequence[Fault] = snapshot_of(path, worktree).faults if path else ()
    for fault in faults:
        note(f"{fault}", "red")
    if faults:
        note(f"{len(faults)} {_plural('fault', len(faults))}: these documents are not in the plan")
    try:
        found = asyncio.run(preview(path, worktree=worktree, settings=settings))
    except (SourceUnavailableError, StoreError, AdapterError) as error:
        raise Failure(*split_hint(str(error))) from error
    if as_json:
        raw(json.dumps([_as_json(each) for each in found], indent=2, ensure_ascii=False))
    else:
        show_plan(found)
    return ExitCode.CHANGES if any(each.verb in _CHANGES for each in found) else ExitCode.OK


def _as_json(found: Preview) -> dict[str, JsonValue]:
    return {
        "key": str(found.key),
        "verb": found.verb,
        "target": found.target,
        "details": list(found.details),
        "note": found.note,
    }


def show_plan(found: Sequence[Preview]) -> None:
    """One line an object, its differences below, and the sum. What stays needs a note to show."""
    console = stdout()
    for each in found:
        if each.verb == "keep" and not each.note:
            continue
        mark, style = _MARKS[each.verb]
        line = Text(f"{mark} {each.verb:<6} ", style)
        line.append(each.key.short, "bold").append(f" on {each.target}" if each.target else "")
        console.print(line.append(f"  ({each.note})" if each.note else ""))
        for detail in each.details:
            console.print(Text(f"      {detail}"))
    console.print(Text(summary(found), "bold"))


def summary(found: Sequence[Preview]) -> str:
    """``Plan: 2 to create, 1 to run, 0 to delete.``, with the other verbs where there are any."""
    count = Counter(each.verb for each in found)
    if not any(count[verb] for verb in _CHANGES):
        noted = sum(bool(each.note) for each in found)
        total = f"{len(found)} {_plural('object', len(found))}"
        return f"Nothing to do: {total}{f', {noted} to look at' if noted else ''}."
    always: tuple[Verb, ...] = ("create", "run", "delete")
    said = [f"{count[verb]} to {verb}" for verb in _CHANGES if count[verb] or verb in always]
    return f"Plan: {', '.join(said)}."


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def schema(kind: str | None, folder: Path | None) -> None:
    """``windlass schema``: to stdout, or every schema as a file of a folder."""
    if folder is None:
        found = schema_of(kind_of(kind)) if kind else schema_of_all()
        raw(json.dumps(found, indent=2, ensure_ascii=False))
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in schema_files().items():
            (folder / name).write_text(text)
            say(str(folder / name))
    except OSError as error:
        raise Failure(
            f"cannot write to {folder} ({error.strerror})", "give a folder that can be written"
        ) from error
