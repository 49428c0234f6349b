"""Who used what how often: kept through restarts in the state folder, for ``windlass usage``.

Outside the eight hops. Written every few seconds and at the end; a crash costs what came since.
"""

from __future__ import annotations

import json
from pathlib import Path

import structlog

WRITE = 5.0
"""Seconds between two writes."""

log = structlog.get_logger()


class Usage:
    """Answers and refusals by Deployment and key."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._written = ""
        if file is not None:
            self._load(file)

    def of(self, deployment: str, key: str) -> list[int]:
        """The two counters, [answered, refused]; to be added to."""
        found = self._counts.get((deployment, key))
        if found is None:
            found = self._counts[deployment, key] = [0, 0]
        return found

    def counts(self) -> dict[str, dict[str, list[int]]]:
        """All of them, by Deployment and key."""
        found: dict[str, dict[str, list[int]]] = {}
        for (deployment, key), pair in self._counts.items():
            found.setdefault(deployment, {})[key] = list(pair)
        return found

    def write(self) -> None:
        """Keep what was counted, if it is more than last time."""
        if self._file is None:
            return
        entries = [
            {"deployment": deployment, "key": key, "ok": ok, "refused": refused}
            for (deployment, key), (ok, refused) in sorted(self._counts.items())
        ]
        text = json.dumps({"usage": entries})
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

    def _load(self, file: Path) -> None:
        try:
            for entry in json.loads(file.read_text())["usage"]:
                self.of(entry["deployment"], entry["key"])[:] = entry["ok"], entry["refused"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("usage", message=f"{file} cannot be read, and begins anew: {error}")
