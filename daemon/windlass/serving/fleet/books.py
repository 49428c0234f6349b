"""What workers that are gone have counted: kept, so that no count ever goes back.

Usage is kept in ``usage.json`` through restarts too, with the part of each worker that lives: a
supervisor that was killed leaves workers behind, whose counts must not be added twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import structlog
from pydantic import TypeAdapter

from windlass.serving.snapshot import Snapshot, remains, summed, within

Counts = dict[str, dict[str, list[int]]]
"""[answered, refused] by Deployment and key."""
_BY_WORKER = TypeAdapter(dict[str, Counts])

log = structlog.get_logger()


class Books:
    """The sums over all workers, those that live and those that lived."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._gone = Snapshot()
        self._known: dict[str, Counts] = {}
        """Of workers that lived under the supervisor before; part of what was kept."""
        self._written = ""
        self._load()

    def close(self, worker: str, last: Snapshot | None) -> None:
        """A worker has ended; ``last`` is all that is known of its counts."""
        if last is None:
            last = Snapshot(usage=self._known.get(worker, {}))
        self._known.pop(worker, None)
        self._gone = summed(self._gone, remains(last))

    def whole(self, living: Mapping[str, Snapshot]) -> Snapshot:
        """The sum over everything; ``living`` by the name of the worker."""
        now = Snapshot()
        for each in living.values():
            now = summed(now, each)
        self._gone = within(self._gone, now)
        return summed(now, self._gone)

    def write(self, living: Mapping[str, Snapshot]) -> None:
        """Keep the usage, if it is more than last time."""
        total = self.whole(living).usage
        entries = [
            {"deployment": deployment, "key": key, "ok": pair[0], "refused": pair[1]}
            for deployment, keys in sorted(total.items())
            for key, pair in sorted(keys.items())
        ]
        workers = {name: each.usage for name, each in living.items()}
        text = json.dumps({"usage": entries, "workers": workers})
        if text == self._written:
            return
        draft = self._file.with_suffix(".draft")
        try:
            draft.write_text(text)
            draft.replace(self._file)
        except OSError as error:
            log.warning("usage", message=f"cannot write {self._file}: {error.strerror}")
            return
        self._written = text

    def _load(self) -> None:
        """What was kept, without the parts of workers: each has its own say, alive or not."""
        usage = self._gone.usage
        try:
            document = json.loads(self._file.read_text())
            for entry in document["usage"]:
                pair = [int(entry["ok"]), int(entry["refused"])]
                usage.setdefault(str(entry["deployment"]), {})[str(entry["key"])] = pair
            self._known = _BY_WORKER.validate_python(document.get("workers", {}))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("usage", message=f"{self._file} cannot be read, and begins anew: {error}")
            return
        for counts in self._known.values():
            for deployment, keys in counts.items():
                for key, pair in keys.items():
                    kept = usage[deployment][key]
                    kept[0] -= pair[0]
                    kept[1] -= pair[1]
