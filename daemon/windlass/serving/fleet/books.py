"""What workers that are gone have counted: kept, so that no count ever goes back.

Usage is kept in ``usage.json`` through restarts too, with the part of each worker that lives: a
supervisor that was killed leaves workers behind, whose counts must not be added twice. A worker is
closed once: the file says so before its folder goes, and for a folder that is still there names
the one that was closed last.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
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
        """Of workers of the supervisor before, until they report themselves."""
        self._closed = ""
        """The worker that was closed last: a supervisor that is killed then leaves its folder."""
        self._written = ""
        self._load()

    def close(self, worker: str, last: Snapshot | None) -> None:
        """A worker has ended; ``last`` is all that is known of its counts. Once for each."""
        if worker == self._closed:
            return
        known = self._known.pop(worker, {})
        self._gone = summed(self._gone, remains(last or Snapshot(usage=known)))
        self._closed = worker

    def close_others(self, living: Collection[str]) -> None:
        """No folder is left but those of the living: whoever else is known has ended."""
        for worker in set(self._known) - set(living):
            self.close(worker, None)
        self._closed = ""  # names are given anew when there are no folders

    def keep(self, labels: Mapping[str, Collection[str]]) -> None:
        """Forget Deployments and versions that are not among these: labels must not pile up."""
        self._gone = within(self._gone, labels)

    def whole(self, living: Mapping[str, Snapshot]) -> Snapshot:
        """The sum over everything; ``living`` by the name of the worker."""
        now = self._gone
        for each in living.values():
            now = summed(now, each)
        for usage in self._silent(living).values():
            now = summed(now, Snapshot(usage=usage))
        return now

    def write(self, living: Mapping[str, Snapshot]) -> None:
        """Keep the usage, if it is more than last time."""
        total = self.whole(living).usage
        entries = [
            {"deployment": deployment, "key": key, "ok": pair[0], "refused": pair[1]}
            for deployment, keys in sorted(total.items())
            for key, pair in sorted(keys.items())
        ]
        workers = self._silent(living) | {name: each.usage for name, each in living.items()}
        document = {"usage": entries, "workers": workers, "closed": self._closed}
        text = json.dumps(document)
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

    def _silent(self, living: Mapping[str, Snapshot]) -> dict[str, Counts]:
        """What is known of workers that have not reported to this supervisor yet."""
        self._known = {name: each for name, each in self._known.items() if name not in living}
        return self._known

    def _load(self) -> None:
        """What was kept, without the parts of workers: each has its own say, alive or not."""
        usage: Counts = {}
        try:
            document = json.loads(self._file.read_text())
            for entry in document["usage"]:
                pair = [int(entry["ok"]), int(entry["refused"])]
                usage.setdefault(str(entry["deployment"]), {})[str(entry["key"])] = pair
            known = _BY_WORKER.validate_python(document.get("workers", {}))
            for counts in known.values():
                for deployment, keys in counts.items():
                    for key, pair in keys.items():
                        kept = usage[deployment][key]
                        kept[0] -= pair[0]
                        kept[1] -= pair[1]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("usage", message=f"{self._file} cannot be read, and begins anew: {error}")
            return
        self._gone.usage, self._known = usage, known
        self._closed = str(document.get("closed", ""))
