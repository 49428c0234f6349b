"""Commands that look: get, describe, events, history, logs."""

from __future__ import annotations

import json
import sys
import time
from typing import Literal

import yaml
from pydantic import BaseModel

from windlass.api.views import DaemonList, EventList, HistoryList, ObjectList, ObjectView
from windlass.cli import rows
from windlass.cli.client import Client, NotFoundError, path_of
from windlass.cli.description import describe_object
from windlass.cli.failure import Failure
from windlass.cli.naming import key_of, parse_selector
from windlass.cli.terminal import Table, note, raw
from windlass_schemas import Key

Stream = Literal["stdout", "stderr"]
Output = Literal["wide", "json", "yaml"]
PAGE = 500
DAEMONS = ("daemon", "daemons")
"""What ``get`` lists besides objects."""


def dumped(value: BaseModel, output: Literal["json", "yaml"]) -> str:
    """A value of the API as JSON or YAML."""
    plain = value.model_dump(mode="json", by_alias=True)
    if output == "json":
        return json.dumps(plain, indent=2, ensure_ascii=False)
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return text


def get(
    client: Client, selector: str | None, namespace: str | None, output: Output | None, watch: bool
) -> None:
    """``windlass get``."""
    if watch and output == "yaml":
        raise Failure("-w does not go with -o yaml", "use -o json: one object a line")
    if selector in DAEMONS:
        _daemons(client, output)
        return
    kind, key = parse_selector(selector)
    views = _read(client, kind, key, namespace)
    table = Table(
        rows.object_columns(output == "wide"),
        [rows.object_row(view, output == "wide") for view in views],
    )
    if output == "json" or output == "yaml":
        if watch:
            for view in views:
                raw(view.model_dump_json(by_alias=True))
        else:
            found = views[0] if key else ObjectList(objects=tuple(views))
            raw(dumped(found, output))
    elif views or watch:
        table.show()
    else:
        note(f"no {kind or 'object'} is declared" + (f" in {namespace}" if namespace else ""))
    if watch:
        _watch(client, kind, key, namespace, table, output)


def _daemons(client: Client, output: Output | None) -> None:
    found = client.get("/api/v1/daemons", DaemonList)
    if output == "json" or output == "yaml":
        raw(dumped(found, output))
    elif found.daemons:
        Table(rows.DAEMON_COLUMNS, [rows.daemon_row(each) for each in found.daemons]).show()
    else:
        note("this daemon works alone, on its own store; see WINDLASS_DATABASE_URL")


def _read(
    client: Client, kind: str | None, key: Key | None, namespace: str | None
) -> list[ObjectView]:
    if key is not None:
        return [client.object(key)]
    params = {"kind": kind, "namespace": namespace}
    chosen = {name: value for name, value in params.items() if value is not None}
    return list(client.get("/api/v1/objects", ObjectList, **chosen).objects)


def _watch(
    client: Client,
    kind: str | None,
    key: Key | None,
    namespace: str | None,
    table: Table,
    output: Output | None,
) -> None:
    """Print an object again whenever one of its conditions has changed."""
    for logged in client.follow(tail=0, key=key):
        changed = Key.parse(logged.event.subject)
        if (kind and changed.kind != kind) or (namespace and changed.namespace != namespace):
            continue
        try:
            view = client.object(changed)
        except NotFoundError:
            if output == "json":
                raw(json.dumps({"key": str(changed), "deleted": True}))
            else:
                blanks = ["-"] * (len(rows.object_columns(output == "wide")) - 2)
                table.add([changed.short, *blanks, "deleted"])
            continue
        if output == "json":
            raw(view.model_dump_json(by_alias=True))
        else:
            table.add(rows.object_row(view, output == "wide"))


def describe(client: Client, name: str) -> None:
    """``windlass describe``."""
    key = key_of(name)
    view = client.object(key)
    history = client.get(f"{path_of(key)}/history", HistoryList, limit=10)
    describe_object(view, history.entries)


def history(client: Client, name: str, limit: int, output: Literal["json"] | None) -> None:
    """``windlass history``."""
    found = client.get(f"{path_of(key_of(name))}/history", HistoryList, limit=limit)
    if output == "json":
        raw(dumped(found, "json"))
        return
    Table(rows.HISTORY_COLUMNS, [rows.history_row(entry) for entry in found.entries]).show()


def event_table(output: Literal["json"] | None) -> Table:
    """A table that events are added to; its headers are printed, unless programs read it."""
    widths = ("0000-00-00T00:00:00+0000", "Deployment/" + "x" * 16, "Reconciling", "Unknown")
    table = Table(rows.EVENT_COLUMNS, [(*widths, "ProgressingWithRetry", "")])
    if output is None:
        table.add(rows.EVENT_COLUMNS)
    return table


def events(
    client: Client, name: str | None, watch: bool, tail: int | None, output: Literal["json"] | None
) -> None:
    """``windlass events``."""
    key = key_of(name) if name else None
    table = event_table(output)
    if watch:
        for logged in client.follow(tail=10 if tail is None else tail, key=key):
            if output == "json":
                raw(logged.event.model_dump_json(by_alias=True))
            else:
                table.add(rows.event_row(logged))
        return
    params: dict[str, str | int] = {"limit": PAGE} | ({"key": str(key)} if key else {})
    start: dict[str, str | int] = {"after": 0} if tail is None else {"tail": tail}
    while True:
        page = client.get("/api/v1/events", EventList, **params, **start)
        for logged in page.events:
            if output == "json":
                raw(logged.event.model_dump_json(by_alias=True))
            else:
                table.add(rows.event_row(logged))
        if not page.more:
            return
        start = {"after": page.next}


def logs(client: Client, name: str, follow: bool, stream: Stream | None) -> None:
    """``windlass logs``."""
    key = key_of(name)
    if follow:
        _wait_for_run(client, key)
    parameters = {"follow": "true" if follow else "false"}
    if stream:
        parameters["stream"] = stream
    for data in client.stream(f"{path_of(key)}/logs", **parameters):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _wait_for_run(client: Client, key: Key) -> None:
    """Whoever follows a log may come before the run."""
    said = ""
    while not (view := client.object(key)).status.externals:
        condition = rows.telling_condition(view)
        if condition and condition.type == "Stalled":
            raise Failure(
                f"{key.short} does not run: {condition.reason}: {condition.message}",
                f"windlass describe {key.short}",
            )
        waits = f"{condition.reason}: {condition.message}" if condition else "no pass yet"
        if waits != said:
            said = waits
            note(f"{key.short} has not run yet ({waits}); waiting")
        time.sleep(0.5)
