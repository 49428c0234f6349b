"""Orders: which version somebody wants served, and how; read from the admin API's bodies.

Serves hop 7: the local adapter writes them, ``deployments`` carries them out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from windlass.serving.holding import Hold, hold
from windlass.serving.members import Members
from windlass.serving.rollout import Rollout, Way
from windlass.serving.scaling import Autoscaling, Metric

CPU = "CPUExecutionProvider"
MAX_THREADS = 256
FIELDS = ("install", "uid", "key", "digest", "model_path")
Access = Literal["public", "keys"]
Removal = Literal["gone", "draining", "absent"]
"""What became of a Deployment that is to go."""
METRICS: tuple[Metric, ...] = ("requestsPerSecond", "concurrency", "latency")
WAYS: tuple[Way, ...] = ("canary", "shadow")
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Batching:
    """How requests of one model are gathered."""

    max_rows: int = 32
    """Rows of one run; 1 turns batching off."""
    max_delay: float | None = None
    """Seconds that a lane may linger for batch-mates; None lets the learned cost decide."""
    max_waiting: int = 1024
    """Requests that may wait; more are told to come again."""
    max_run: float = 60.0
    """Seconds after which a run counts as hung: its lane is given up, another takes its place."""


@dataclass(frozen=True)
class Options:
    """How a version is served."""

    threads: int = 1
    """Threads of one inference."""
    replicas: int = 1
    """Inferences that may run at the same time."""
    batching: Batching = field(default_factory=Batching)
    providers: tuple[str, ...] = (CPU,)
    prepack: bool = True
    """Whether weights are copied into the order that computes fastest."""
    autoscaling: Autoscaling | None = None
    rollout: Rollout | None = None
    access: Access = "public"
    """Who may ask: holders of a key, or anybody."""

    @property
    def model(self) -> tuple[object, ...]:
        """What decides how the model is loaded."""
        return self.threads, self.batching, self.providers, self.prepack


@dataclass(frozen=True)
class Order:
    """One version that somebody wants in force, and who."""

    install: str
    uid: str
    key: str
    digest: str
    model_path: Path
    options: Options = field(default_factory=Options)
    artifact: str | None = None
    """Digest of the model file, if whoever orders wants to say."""
    body: bytes = field(default=b"", compare=False, repr=False)
    """The order as it came."""
    held: Hold | None = field(default=None, compare=False, repr=False)
    """Keeps the model's folder: it may have to be loaded again."""

    @property
    def version(self) -> str:
        """What clients see: the first 12 hex digits of the artifact's digest, or the order's."""
        return (self.artifact or self.digest).partition(":")[2][:12]

    def needs_no_other_model_than(self, other: Order) -> bool:
        """Whether the other's model can serve this order as it is loaded."""
        return (
            self.artifact is not None
            and (self.artifact, self.model_path) == (other.artifact, other.model_path)
            and self.options.model == other.options.model
        )


@dataclass(frozen=True)
class Failure:
    """The last change that could not be made."""

    digest: str
    message: str


class WrongOwnerError(Exception):
    """The Deployment belongs to another object; nothing was changed."""

    def __init__(self, name: str, owner: Order, uid: str) -> None:
        super().__init__(
            f"Deployment {name} belongs to uid {owner.uid}"
            f" ({owner.key}), not to {uid}; delete that one or use another name"
        )


def parse_order(body: bytes) -> Order:
    """Read the body of a PUT. Raises ValueError that names every wrong member."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("the body must be an object")  # noqa: TRY004 - one error type for callers
    faults = [
        f"{field} must be a text that is not empty"
        for field in FIELDS
        if not isinstance(document.get(field), str) or not document[field]
    ]
    if not faults and not _is_digest(document["digest"]):
        faults.append("digest must be sha256: and 64 lower-case hex digits")
    if not faults and (
        "\0" in document["model_path"] or not Path(document["model_path"]).is_absolute()
    ):
        faults.append("model_path must be an absolute path")
    artifact = document.get("artifact")
    if artifact is not None and not (isinstance(artifact, str) and _is_digest(artifact)):
        faults.append("artifact must be sha256: and 64 lower-case hex digits")
    options = Members(document.get("options", {}), "options")
    found = _options(options)
    faults += options.faults
    if unknown := sorted(set(document) - {*FIELDS, "options", "artifact"}):
        faults.append(f"unknown: {', '.join(unknown)}")
    if faults:
        raise ValueError("; ".join(faults))
    install, uid, key, digest, path = (document[field] for field in FIELDS)
    model = Path(path)
    return Order(install, uid, key, digest, model, found, artifact, body, hold(model))


def _is_digest(text: str) -> bool:
    kind, _, digits = text.partition(":")
    return kind == "sha256" and len(digits) == 64 and set(digits) <= _HEX


def _options(given: Members) -> Options:
    batching = Batching(
        max_rows=given.whole("max_batch", 32, 1, 4096),
        max_delay=given.number("max_delay", None, 0, 10),
        max_waiting=given.whole("max_waiting", 1024, 1, 1 << 20),
        max_run=given.number("max_run", 60.0, 0.1, 86400) or 60.0,
    )
    found = Options(
        threads=given.whole("threads", 1, 1, MAX_THREADS),
        replicas=given.whole("replicas", 1, 0, 1000),
        batching=batching,
        providers=given.texts("providers", (CPU,)),
        prepack=given.truth("prepack", default=True),
        autoscaling=_autoscaling(given.part("autoscaling")),
        rollout=_rollout(given.part("rollout")),
        access=given.word("access", ("public", "keys")),
    )
    given.nothing_else()
    return found


def _autoscaling(given: Members | None) -> Autoscaling | None:
    if given is None:
        return None
    low = given.whole("min", 1, 0, 1000)
    found = Autoscaling(
        min=low,
        max=given.whole("max", 1, max(low, 1), 1000),
        metric=given.word("metric", METRICS),
        target=given.number("target", 1.0, 1e-6, 1e9) or 1.0,
        up=given.number("up", 0.0, 0, 86400) or 0.0,
        down=given.number("down", 60.0, 0, 86400) or 0.0,
    )
    given.nothing_else()
    return found


def _rollout(given: Members | None) -> Rollout | None:
    if given is None:
        return None
    found = Rollout(
        way=given.word("way", WAYS),
        weight=given.whole("weight", 10, 1, 100),
        duration=given.number("duration", 300.0, 0, 1e7) or 0.0,
        min_requests=given.whole("min_requests", 20, 1, 1 << 30),
        max_error_rate=given.number("max_error_rate", 0.01, 0, 1) or 0.0,
        max_latency_ratio=given.number("max_latency_ratio", 2.0, 1, 1e6) or 1.0,
    )
    given.nothing_else()
    return found
