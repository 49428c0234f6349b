"""Models: artifacts with an identity as folders, ``models/NAME``, as the daemon sees them.

Serves hops 5 and 7. ``model.json`` says what is wanted and what was in force before; each wanted
digest has a folder of its own in which a ``prepare`` process leaves its result, so that going back
to an earlier one needs no second look at the file. All methods are blocking, and quick.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import (
    Absent,
    AmbiguousError,
    Create,
    External,
    Found,
    Observation,
    Owner,
    State,
    TerminalError,
    TransientError,
    Unknown,
    Update,
)
from windlass_adapters.bundle import collect
from windlass_adapters.local import prepare
from windlass_adapters.local.models import ARTIFACT_ROLE, ModelBody, ModelOrder, Prepared
from windlass_adapters.local.processes import is_alive, launch, send
from windlass_adapters.local.records import BrokenRecordError, read_process
from windlass_adapters.local.storage import load, save, writing
from windlass_adapters.program import short
from windlass_schemas import MODEL_ARTIFACT, Artifact, Frozen

PREPARE_MODULE = "windlass_adapters.local.prepare"


class ModelRecord(Frozen):
    """``model.json``."""

    install: str
    uid: str
    key: str
    digest: str
    """``Wanted.digest`` of the newest change."""
    in_force: str | None
    """The digest that was good before it."""


class ModelFolders:
    """All models below one folder."""

    def __init__(self, root: Path, store: ArtifactStore) -> None:
        self._root = root.absolute()
        self._store = store

    def sweep(self) -> None:
        """Remove what a killed daemon left half removed, and copies that nobody serves from."""
        for folder in self._root.glob(".trash-*"):
            shutil.rmtree(folder, ignore_errors=True)
        collect(self._store.root)

    def observe(self, external: External) -> Observation:
        """What is known of that model."""
        try:
            return self._look(external.name)
        except (BrokenRecordError, OSError) as error:
            return Unknown(f"{error}; remove {self._root / external.name} if it is of no use")

    def find(self, owner: Owner) -> list[Found]:
        """The model of an owner. Raises BrokenRecordError, OSError."""
        seen = self._look(model_name(owner))
        return [seen] if isinstance(seen, Found) and seen.owner_uid == owner.uid else []

    def apply(self, owner: Owner, action: Create | Update) -> Found:
        """Send a prepare process for what is wanted, unless that is known already."""
        wanted = action.wanted
        folder = self._folder(wanted.name)
        record = load(folder / "model.json", ModelRecord)
        if record is not None and record.uid != owner.uid:
            raise TerminalError(f"model {wanted.name} belongs to another object; remove {folder}")
        seen = self._look(wanted.name)
        if isinstance(action, Create) and isinstance(seen, Found):
            return seen
        with writing(self._root):
            folder.mkdir(parents=True, exist_ok=True)
            in_force = seen.digest if isinstance(seen, Found) else None
            if record is None or record.digest != wanted.digest:
                kept = None if in_force == wanted.digest else in_force
                record = ModelRecord(
                    install=owner.install,
                    uid=owner.uid,
                    key=str(owner.key),
                    digest=wanted.digest,
                    in_force=kept,
                )
                save(folder / "model.json", record)
            self._prepare(folder / short(wanted.digest), ModelBody.model_validate(wanted.body))
        after = self._look(wanted.name)
        if isinstance(after, Found):
            return after
        log = folder / short(wanted.digest) / "prepare.log"
        raise TransientError(f"model {wanted.name} could not be looked into; {log} may say why")

    def delete(self, owner: Owner, external: External) -> None:
        """Forget a model. Its artifact stays in the store, where others may use it.

        Unpacked copies go that nobody serves from, of this model and of those before it.
        """
        folder = self._folder(external.name)
        record = load(folder / "model.json", ModelRecord)
        if record is None:
            return
        if record.uid != owner.uid:
            raise TerminalError(f"model {external.name} belongs to another object; left alone")
        for attempt in folder.iterdir():
            if attempt.is_dir() and (process := read_process(attempt / prepare.CLAIM)):
                send(process, signal.SIGTERM)
        with writing(self._root):
            trash = Path(tempfile.mkdtemp(dir=self._root, prefix=".trash-"))
            folder.rename(trash / folder.name)
        shutil.rmtree(trash, ignore_errors=True)  # a rest is swept at the next start
        collect(self._store.root)

    def _folder(self, name: str) -> Path:
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise TerminalError(f"{name!r} is no name of a model")
        return self._root / name

    def _prepare(self, attempt: Path, body: ModelBody) -> None:
        """Start the look at an artifact, unless one is under way or has ended well."""
        if _is_running(attempt) or self._good(attempt) is not None:
            return
        attempt.mkdir(exist_ok=True)
        for name in (prepare.RESULT, prepare.CLAIM):  # of a try that died, failed or went stale
            (attempt / name).unlink(missing_ok=True)
        order = ModelOrder(store=str(self._store.root.absolute()), body=body)
        save(attempt / prepare.ORDER, order)
        try:
            launch(PREPARE_MODULE, [str(attempt)], attempt / "prepare.log")
        except TimeoutError as error:
            raise AmbiguousError(str(error)) from None

    def _good(self, attempt: Path) -> Prepared | None:
        """A result that is good and whose artifact is still there."""
        result = load(attempt / prepare.RESULT, Prepared)
        if result is None or result.reason or result.artifact is None:
            return None
        return result if self._store.has(result.artifact.digest) else None

    def _look(self, name: str) -> Observation:
        folder = self._folder(name)
        record = load(folder / "model.json", ModelRecord)
        if record is None:
            return Absent()
        attempt = folder / short(record.digest)
        running = _is_running(attempt)
        if good := self._good(attempt):
            return _live(name, record, record.digest, good)
        before = self._good(folder / short(record.in_force)) if record.in_force else None
        if running:
            return _progressing(name, record, before)
        result = load(attempt / prepare.RESULT, Prepared)
        if result is not None and result.reason:
            return _failed(name, record, result, before)
        # The look at it died, or its artifact is gone: nothing is under way, and nothing is known.
        if before is not None and record.in_force:
            return _live(name, record, record.in_force, before)
        return Absent()


def model_name(owner: Owner) -> str:
    """The name of an owner's model."""
    return f"{owner.key.namespace}.{owner.key.name}"


def _is_running(attempt: Path) -> bool:
    process = read_process(attempt / prepare.CLAIM)
    # In this order: a process leaves its result and then ends.
    alive = process is not None and is_alive(process)
    return alive and not (attempt / prepare.RESULT).exists()


def _outputs(result: Prepared | None) -> Mapping[str, Artifact]:
    return {MODEL_ARTIFACT: result.artifact} if result and result.artifact else {}


def _live(name: str, record: ModelRecord, digest: str, result: Prepared) -> Found:
    return Found(
        external=External(ARTIFACT_ROLE, name, name),
        owner_uid=record.uid,
        state=State.LIVE,
        digest=digest,
        outputs=_outputs(result),
        signature=result.signature,
    )


def _progressing(name: str, record: ModelRecord, before: Prepared | None) -> Found:
    return Found(
        external=External(ARTIFACT_ROLE, name, name),
        owner_uid=record.uid,
        state=State.PROGRESSING,
        digest=record.in_force if before else None,
        pending_digest=record.digest,
        outputs=_outputs(before),
        signature=before.signature if before else None,
    )


def _failed(name: str, record: ModelRecord, result: Prepared, before: Prepared | None) -> Found:
    return Found(
        external=External(ARTIFACT_ROLE, name, name),
        owner_uid=record.uid,
        state=State.LIVE if before else State.FAILED,
        digest=record.in_force if before else None,
        failed_digest=record.digest,
        reason=result.reason or None,
        message=result.message,
        attempt_counts=result.attempt_counts,
        outputs=_outputs(before),
        signature=before.signature if before else None,
    )
