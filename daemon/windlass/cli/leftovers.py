"""``windlass orphans``: what backends still hold though nothing declares it, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from windlass.api.views import OrphanList, OrphanName, OrphanView
from windlass.cli import rows
from windlass.cli.client import Client
from windlass.cli.failure import Failure
from windlass.cli.looking import dumped
from windlass.cli.terminal import Table, note, raw, say

PATIENCE = 600.0
"""Seconds: a look reads everything that an account holds of ours."""


def orphans(
    client: Client, target: str | None, remove: Sequence[str], output: Literal["json"] | None
) -> None:
    """List them, with a sum for each target; with ``remove``, remove those that it names."""
    found = client.call("GET", "/api/v1/orphans", OrphanList, patience=PATIENCE)
    chosen = [o for o in found.orphans if target is None or o.target == _full(target)]
    if remove:
        for named in [_named(chosen, text) for text in remove]:
            body = OrphanName(target=named.target, role=named.role, name=named.name)
            path = "/api/v1/orphans/remove"
            client.call("POST", path, OrphanView, body=body, patience=PATIENCE)
            say(f"{named.role}/{named.name} on {named.target} is being removed")
        return
    if output == "json":
        raw(dumped(OrphanList(orphans=tuple(chosen), unasked=found.unasked), "json"))
        return
    if chosen:
        Table(rows.ORPHAN_COLUMNS, [rows.orphan_row(each) for each in chosen]).show()
    for line in sums(chosen):
        note(line)
    for name, message in found.unasked.items():
        note(f"{name} could not be asked: {message}", "yellow")
    if not chosen and not found.unasked:
        note("nothing is left behind on the targets that the daemon has opened")


def sums(found: Sequence[OrphanView]) -> list[str]:
    """A line for each target: how many, and what they cost together."""
    lines = []
    for target in sorted({each.target for each in found}):
        mine = [each for each in found if each.target == target]
        billed = [each for each in mine if not each.free]
        known = [o.dollars_an_hour for o in billed if o.dollars_an_hour is not None]
        line = f"{target}: {len(mine)} left behind, {round(sum(known), 4):g} $ an hour"
        if len(known) < len(billed):
            line += f", and {len(billed) - len(known)} without a rate (params.rates)"
        lines.append(line)
    return lines


def _full(target: str) -> str:
    return target if "/" in target else f"default/{target}"


def _named(found: Sequence[OrphanView], text: str) -> OrphanView:
    """The one orphan that ``ROLE/NAME`` means. Raises Failure."""
    meant = [each for each in found if f"{each.role}/{each.name}" == text]
    if len(meant) > 1:
        places = ", ".join(each.target for each in meant)
        raise Failure(f"{text} is left behind on {places}", "say which: --target")
    if not meant:
        raise Failure(f"{text} is not left behind", "see what is: windlass orphans")
    return meant[0]
