"""What is declared, and what must come of it: an independent reference, not the plan's code.

A variant says what a document holds. The expected digests follow from the documents alone, link by
link; whether something can become Ready at all follows from what it stands on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from pydantic import JsonValue

from rig.chaos import START
from windlass.store.base import Document
from windlass_schemas import (
    Artifact,
    Key,
    digest_of,
    digest_of_resource,
    dump_resource,
    parse_resource,
)

JOBS = tuple(Key.parse(f"Job/{name}") for name in ("a", "b", "c"))
MODELS = tuple(Key.parse(f"Model/{name}") for name in ("m", "n"))
SERVED = Key.parse("Deployment/d")
TARGET = Key.parse("Target/t")
KEYS = (*JOBS, *MODELS, SERVED, TARGET)
SOURCES = ("folder:/one", "folder:/two")


@dataclass(frozen=True)
class Variant:
    """One document, as far as the test varies it."""

    param: int = 1
    script: int = 0
    """Which content the entrypoint has."""
    retries: int = 0
    on_change: str = "finish-then-run"
    target: str = "local"
    of: str = ""
    """The upstream's name; empty for the first one."""
    prune: str = "auto"
    on_delete: str = "delete"
    suspend_hours: int | None = None
    """Suspended until so many hours after the start; 0 for without end."""
    self_heal: str = "all"
    ignores: bool = False
    """Whether changes by a foreign hand are to be left alone."""
    ready_minutes: int | None = None
    """The deadline for Ready."""

    @property
    def healed(self) -> Variant:
        """The same, with nothing in it that keeps the world as a foreign hand has left it."""
        on_change = "finish-then-run" if self.on_change == "refuse" else self.on_change
        return replace(self, self_heal="all", ignores=False, on_change=on_change)


def document(key: Key, v: Variant) -> Document:
    """The document of a variant."""
    policy: dict[str, object] = {"prune": v.prune, "onDelete": v.on_delete}
    policy["selfHeal"] = v.self_heal
    policy["ignore"] = ["/model", "/source"] if v.ignores else []
    if v.ready_minutes is not None:
        policy["deadlines"] = {"ready": f"{v.ready_minutes}m"}
    if v.suspend_hours is not None:
        policy["suspend"] = {"reason": "audit"}
        if v.suspend_hours:
            until = (START + timedelta(hours=v.suspend_hours)).isoformat()
            policy["suspend"] = {"reason": "audit", "until": until}
    if key == JOBS[1]:
        policy["dependsOn"] = [{"ref": str(JOBS[0])}]
    text = {
        "apiVersion": "windlass/v1",
        "kind": key.kind,
        "metadata": {"name": key.name},
        "spec": _spec(key, v),
        "policy": policy,
    }
    resource = parse_resource(text)
    files = {
        path: Artifact(digest="sha256:" + f"{v.script:064d}", size=1, name=path)
        for _, path in resource.spec.named_files()
    }
    digest = digest_of_resource(resource, {path: a.digest for path, a in files.items()})
    return Document(resource, files, digest, f"{key.kind}-{key.name}.yaml", 1)


def _spec(key: Key, v: Variant) -> dict[str, object]:
    match key.kind:
        case "Job":
            return {
                "entrypoint": "train.py",
                "params": {"c": v.param},
                "outputs": {"model": "model.onnx"},
                "retries": v.retries,
                "onChange": v.on_change,
                "target": v.target,
            }
        case "Model":
            source = {"job": {"name": v.of or JOBS[0].name, "output": "model"}}
            return {"source": source, "target": v.target}
        case "Deployment":
            return {"model": v.of or MODELS[0].name, "target": v.target}
        case _:
            return {"adapter": "local", "params": {}}


@dataclass
class Declared:
    """The documents of each source, now."""

    sources: dict[str, dict[Key, Variant]] = field(
        default_factory=lambda: {source: {} for source in SOURCES}
    )

    def claims(self, key: Key) -> Mapping[str, Variant]:
        """Who declares a key, and what."""
        return {s: held[key] for s, held in self.sources.items() if key in held}


@dataclass(frozen=True)
class Reference:
    """What must come of what is accepted: one variant for each key that exists."""

    accepted: Mapping[Key, Variant]
    paused: frozenset[Key]
    """Suspended without end."""
    kept: frozenset[Key]
    """There although their owner declares them no more: their policy keeps them. Not judged."""

    def upstream(self, key: Key) -> Iterator[Key]:
        """What a key stands on."""
        v = self.accepted[key]
        if v.target == "t":
            yield TARGET
        if key == JOBS[1]:
            yield JOBS[0]
        if key.kind == "Model":
            yield Key.parse(f"Job/{v.of or JOBS[0].name}")
        if key.kind == "Deployment":
            yield Key.parse(f"Model/{v.of or MODELS[0].name}")

    def is_judged(self, key: Key) -> bool:
        """Whether nothing that it stands on is merely kept, or stays as it is."""
        if key in self.kept | self.paused:
            return False
        return key not in self.accepted or all(
            self.is_judged(other) for other in self.upstream(key)
        )

    def can_be_ready(self, key: Key) -> bool:
        """Whether nothing that it stands on is missing."""
        if key not in self.accepted:
            return False
        return all(self.can_be_ready(other) for other in self.upstream(key))

    def digest(self, key: Key) -> str:
        """Of what the backend must hold for it."""
        v = self.accepted[key]
        resource = document(key, v).resource
        spec = dump_resource(resource)["spec"]
        assert isinstance(spec, dict)
        files: dict[str, JsonValue] = {}
        if key.kind == "Job":
            files["train.py"] = "sha256:" + f"{v.script:064d}"
        inputs: dict[str, JsonValue] = {
            f"{other}:{'model' if other.kind == 'Job' else 'artifact'}": self.artifact(other)
            for other in self.upstream(key)
            if key.kind != "Job" and other.kind != "Target"
        }
        body: dict[str, JsonValue] = {**spec, "inputs": inputs, "files": files}
        for later in ("timeLimit", "retries", "onChange"):
            body.pop(later, None)
        return digest_of(body)

    def artifact(self, key: Key) -> str:
        """Of what others take from it."""
        content = f"{self.digest(key)}/model" if key.kind == "Job" else self.digest(key)
        return "sha256:" + hashlib.sha256(content.encode()).hexdigest()
