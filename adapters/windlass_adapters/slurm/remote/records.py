"""What a run's folder and the queue say of a run."""

import json
import os
from functools import lru_cache
from typing import Dict, FrozenSet, Iterable, List, Tuple

from windlass_adapters.slurm.remote.files import age_of, link_of, listing, read
from windlass_adapters.slurm.remote.site import PREFIX, Answer, Request, Row

TAIL_BYTES = 4096


def order_of(folder: str) -> Request:
    """What the run is; empty when there is none, or none that is whole."""
    try:
        found = json.loads(read(os.path.join(folder, "order.json"), 1 << 24) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def submission_of(folder: str) -> Tuple[str, str]:
    """(name, index) under which the run was or was to be submitted; index is empty for its own."""
    for file in ("jobid", "submitting"):
        words = (read(os.path.join(folder, file)) or "").split()
        if file == "jobid":
            words = words[1:]
        if words:
            return words[0], words[1] if len(words) > 1 and words[1] != "-" else ""
    return PREFIX + os.path.basename(folder), ""


def rows_of(folder: str, rows: Dict[str, List[Row]]) -> List[Row]:
    """The lines of the queue about a run."""
    name, index = submission_of(folder)
    found = rows.get(name, [])
    return [r for r in found if index in members(r.element)] if index else found


@lru_cache(maxsize=1024)
def members(text: str) -> FrozenSet[str]:
    """The same as ``expand``, kept: each run that went into an array asks for the array's line."""
    return frozenset(expand(text))


def expand(text: str) -> List[str]:
    """``[1-3,9%2]`` or ``4`` as indices."""
    found: List[str] = []
    for part in text.strip("[]").split("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()) and int(last or first) < 10**7:
            found += [str(n) for n in range(int(first), int(last or first) + 1)]
    return found


def by_name(rows: Iterable[Row]) -> Dict[str, List[Row]]:
    found: Dict[str, List[Row]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return found


def record_of(folder: str, tails: bool = True) -> Answer:
    """The run's own records. ``missing`` when there is no folder."""
    names = listing(folder)
    order = order_of(folder) if "order.json" in names else {}
    if not order:
        return {"missing": True}
    found: Answer = {"jobid": (read(os.path.join(folder, "jobid")) or "").strip()}
    found["submitting"] = (
        age_of(os.path.join(folder, "submitting")) if "submitting" in names else None
    )
    found["cancelled"] = read(os.path.join(folder, "cancelled")) if "cancelled" in names else None
    claims, ends, notes = {}, {}, {}
    for name in names:
        kind, _, index = name.partition(".")
        if kind == "claim":
            claims[index] = link_of(os.path.join(folder, name))
        elif kind == "rc" and not name.endswith(".tmp"):
            ends[index] = (read(os.path.join(folder, name)) or "").split()
        elif kind == "note":
            notes[index] = [
                line.split() for line in (read(os.path.join(folder, name)) or "").splitlines()
            ]
        elif kind == "kept":
            ends[index] = ["0", "kept", "0"]
    found.update(claims=claims, ends=ends, notes=notes)
    found["order"] = {
        n: order.get(n) for n in ("name", "uid", "digest", "array", "outputs", "requeue")
    }
    if tails:
        found["tail"] = tail_of(folder, [i for i, end in sorted(ends.items()) if end[:1] != ["0"]])
    return found


def tail_of(folder: str, failed: List[str]) -> str:
    """The end of stderr of the first element that failed, or of the job's own words."""
    index = "." + failed[0] if failed and failed[0] else ""
    for name in ("stderr" + index, "slurm"):
        path = os.path.join(folder, "log", name)
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                text = file.read().decode("utf-8", "replace").replace("\0", "")
        except OSError:
            continue
        if text.strip():
            return hide(folder, text)
    return ""


def hide(folder: str, text: str) -> str:
    """Without the secrets that the program was given and may have printed."""
    secrets = json.loads(read(os.path.join(folder, "hide"), 1 << 20) or "[]")
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
