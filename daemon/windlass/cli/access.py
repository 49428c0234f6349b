"""Commands about who asks: keys and usage. They use the state folder and need no daemon."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path

from windlass.cli.failure import Failure
from windlass.cli.state import state_settings
from windlass.cli.terminal import Table, note, raw
from windlass.keys import KeyFile, UnknownKeyError
from windlass_schemas import DEFAULT_NAMESPACE


def _file(state: Path | None) -> KeyFile:
    return KeyFile(state_settings(state).state)


def create(
    state: Path | None,
    name: str,
    namespace: str | None,
    deployment: str | None,
    rate: float | None,
) -> None:
    """``windlass keys create``."""
    try:
        text = _file(state).create(name, namespace or DEFAULT_NAMESPACE, deployment, rate)
    except ValueError as error:
        raise Failure(str(error), f"windlass keys rotate {name}") from None
    note("keep it well: it is not shown again")
    raw(text)


def show(state: Path | None, as_json: bool) -> None:
    """``windlass keys list``."""
    keys = _file(state).all()
    if as_json:
        entries = [vars(key) | {"hash": "sha256:" + key.hash[:12]} for key in keys]
        raw(json.dumps({"keys": entries}))
        return
    rows = [
        (
            key.name,
            key.namespace,
            key.deployment or "all",
            f"{key.rate:g}/s" if key.rate is not None else "none",
            _until(key.expires),
        )
        for key in keys
    ]
    Table(("NAME", "NAMESPACE", "DEPLOYMENT", "LIMIT", "HOLDS"), rows).show()


def _until(expires: float | None) -> str:
    return "always" if expires is None else f"{max(0, round(expires - time.time()))}s"


def rotate(state: Path | None, name: str, overlap: float) -> None:
    """``windlass keys rotate``."""
    try:
        text = _file(state).rotate(name, overlap)
    except UnknownKeyError as error:
        raise Failure(str(error), "windlass keys list") from None
    note(f"the old one holds for {overlap:g} s more")
    raw(text)


def revoke(state: Path | None, name: str) -> None:
    """``windlass keys revoke``."""
    try:
        _file(state).revoke(name)
    except UnknownKeyError as error:
        raise Failure(str(error), "windlass keys list") from None
    note(f"{name} is refused from now on")


def usage(state: Path | None, as_json: bool) -> None:
    """``windlass usage``: requests by Deployment and key, the most used first."""
    totals: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    root = state_settings(state).state
    for file in sorted(root.glob("targets/*/*/serving/usage.json")):
        for entry in json.loads(file.read_text())["usage"]:
            total = totals[entry["deployment"], entry["key"]]
            total[0] += entry["ok"]
            total[1] += entry["refused"]
    ordered = sorted(totals.items(), key=lambda item: -item[1][0])
    if as_json:
        entries = [
            {"deployment": deployment, "key": key, "ok": ok, "refused": refused}
            for (deployment, key), (ok, refused) in ordered
        ]
        raw(json.dumps({"usage": entries}))
        return
    rows = [(d, key or "none", str(ok), str(refused)) for (d, key), (ok, refused) in ordered]
    Table(("DEPLOYMENT", "KEY", "ANSWERED", "REFUSED"), rows).show()
