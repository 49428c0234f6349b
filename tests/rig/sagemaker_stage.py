"""The sagemaker adapter on the stage of the conformance kit: an account that is asked in place.

The adapter is the real one, and so are botocore's requests and answers; only HTTP is left out. The
cast is a Deployment, whose second version is an update of its endpoint, and a training Job.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import JsonValue

from rig.cloud import bucket_of, params_for
from rig.sagemaker import rollouts
from rig.sagemaker.account import Resource
from rig.sagemaker.calls import Call
from rig.sagemaker.double import SageMakerDouble
from rig.sagemaker.training import run_of
from windlass.store.base import Document
from windlass_adapters.base import Adapter, State, Wanted
from windlass_adapters.sagemaker import SageMakerAdapter
from windlass_adapters.sagemaker.params import SageMakerParams
from windlass_adapters.sagemaker.session import Clients
from windlass_adapters.testing.cast import Cast
from windlass_adapters.testing.documents import document
from windlass_adapters.testing.port import KitBackend, Thing
from windlass_adapters.testing.schedules import Theatre
from windlass_adapters.testing.stepping import InlineExecutor
from windlass_adapters.testing.world import World
from windlass_schemas import Artifact, digest_of_resource

KINDS = {
    "model": "model",
    "endpoint-config": "config",
    "endpoint": "endpoint",
    "training-job": "run",
}
"""Role by the kind in the account."""
EFFECTS = {
    "CreateModel": ("create", "ModelName"),
    "CreateEndpointConfig": ("create", "EndpointConfigName"),
    "CreateEndpoint": ("create", "EndpointName"),
    "CreateTrainingJob": ("create", "TrainingJobName"),
    "UpdateEndpoint": ("roll", "EndpointName"),
    "DeleteModel": ("delete", "ModelName"),
    "DeleteEndpointConfig": ("delete", "EndpointConfigName"),
    "DeleteEndpoint": ("delete", "EndpointName"),
    "DeleteTrainingJob": ("delete", "TrainingJobName"),
}
"""What must be done as often as without faults. An update of an endpoint is a second fleet."""
NUMBER = "100000000000"
"""Of every account on the stage, so that names and their hashes are the same in every run."""
_STATES = {"InService": State.LIVE, "Deleting": State.DELETING, "Failed": State.FAILED}
_OVER = ("Completed", "Failed", "Stopped")


class StagedAccount(KitBackend):
    """An account in one region, and its time."""

    def __init__(self) -> None:
        self.clock: Callable[[], datetime] = lambda: datetime(2030, 1, 1, tzinfo=UTC)
        self.aws = aws = SageMakerDouble(clock=lambda: self.clock(), number=NUMBER)
        aws.others.executor = InlineExecutor()
        aws.others.make_bucket(bucket_of(aws), aws.region)
        aws.account.durations["training.Training"] = 1e7  # until the story ends it
        self.params: Mapping[str, JsonValue] = params_for(aws) | {"instance": "kit"}
        self.calls: Counter[str] = Counter()
        self.changing: Collection[str] = _Changing()

    @property
    def changes(self) -> int:
        self.aws.account.before_request()
        return self.aws.clock.ran + self.mutations()

    def adapter(self) -> type[Adapter]:
        backend = self

        class Staged(SageMakerAdapter):
            def clients(self, params: SageMakerParams) -> Clients:
                return _Counted(backend)

            def seconds(self) -> float:
                return backend.clock().timestamp()

            def now(self) -> datetime:
                return backend.clock()

        return Staged

    def things(self) -> Sequence[Thing]:
        self.aws.account.before_request()
        found = [
            _thing(role, one)
            for one in self.aws.account.held.values()
            if (role := KINDS.get(one.kind)) and one.status not in _OVER
        ]
        keys = self.aws.others.keys(bucket_of(self.aws))
        return found + [Thing("artifact", key, "", key, key, State.LIVE) for key in keys]

    def _done(self) -> Iterator[Call]:
        return (call for call in self.aws.calls if not call.error and call.mutates)

    def counted(self) -> Mapping[tuple[str, str], int]:
        found: Counter[tuple[str, str]] = Counter()
        for call in self._done():
            if call.operation in EFFECTS:
                effect, member = EFFECTS[call.operation]
                found[effect, f"{call.operation} {call.request[member]}"] += 1
        return found

    def mutations(self) -> int:
        return sum(1 for _ in self._done())

    def is_live(self, uid: str, wanted: Wanted) -> bool:
        if wanted.role == "artifact":
            return wanted.name in self.aws.others.keys(bucket_of(self.aws))
        kind = next(kind for kind, role in KINDS.items() if role == wanted.role)
        found = self.aws.account.get(kind, wanted.name)
        if found is None or wanted.role != "endpoint":
            return found is not None
        return found.status == "InService" and rollouts.of(found).config == wanted.body["config"]

    def has_succeeded(self, uid: str, wanted: Wanted) -> bool:
        found = self.aws.account.get("training-job", wanted.name)
        return found is not None and found.status == "Completed"

    def _going(self) -> list[Resource]:
        self.aws.account.before_request()
        return [j for j in self.aws.account.all("training-job") if j.status == "InProgress"]

    def running(self) -> int:
        return len(self._going())

    def finish(self, *, ok: bool = True, message: str = "") -> None:
        (job,) = self._going()
        run_of(job).end("" if ok else f"AlgorithmError: {message}")

    def check(self) -> None:
        """Nothing has happened that must not, and the double has answered nothing impossible."""
        self.aws.monitor.check()
        assert not self.aws.front.broken, self.aws.front.broken


class _Counted(Clients):
    """One daemon's calls, entered into the account's book."""

    def __init__(self, backend: StagedAccount) -> None:
        self._calls, self._clients = backend.calls, backend.aws.in_process()

    async def call(
        self, service: str, operation: str, arguments: Mapping[str, object]
    ) -> Mapping[str, object]:
        self._calls[operation] += 1
        return await self._clients.call(service, operation, arguments)

    async def close(self) -> None:
        """There is no connection."""


class _Changing(Collection[str]):
    """The operations that change something: all that are not known to read."""

    def __contains__(self, operation: object) -> bool:
        return Call(0.0, "", str(operation), "", {}).mutates

    def __iter__(self) -> Iterator[str]:
        return iter(EFFECTS)

    def __len__(self) -> int:
        return len(EFFECTS)


def _thing(role: str, found: Resource) -> Thing:
    digest = rollouts.of(found).config if role == "endpoint" else found.name
    live = State.LIVE if role in ("model", "config") else State.PROGRESSING
    state = _STATES.get(found.status, live)
    return Thing(role, found.name, found.tags.get("windlass:owner", ""), found.name, digest, state)


_WEIGHTS = b"weights"


def _model() -> Document:
    made = document("Model", "kit", {"source": {"file": "model.onnx"}})
    digest = f"sha256:{hashlib.sha256(_WEIGHTS).hexdigest()}"
    files = {"model.onnx": Artifact(digest=digest, size=len(_WEIGHTS), name="model.onnx")}
    return replace(made, files=files, digest=digest_of_resource(made.resource, {"": digest}))


def _deployment(name: str, version: int) -> Document:
    options = {"env": {"VERSION": str(version)}}
    return document("Deployment", name, {"model": "kit", "options": options})


def _job(name: str, version: int) -> Document:
    spec = {
        "command": ["train"],
        "outputs": {"model": "model.tar.gz"},
        "timeLimit": "28d",
        "retries": 1,
        "params": {"version": version},
    }
    return document("Job", name, spec)


CAST = Cast(lasting=_deployment, run=_job, beside=(_model(),), contents=(_WEIGHTS,))


class SageMakerTheatre(Theatre):
    """Where the kit's stories are told on accounts of the double's, one after the other."""

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[World]:
        """A new world on a new account; both are gone afterwards."""
        account = None
        try:
            async with super().stage() as world:
                account = world.behind
                yield world
            assert isinstance(account, StagedAccount)
            account.check()
        finally:
            if isinstance(account, StagedAccount):
                account.aws.others.forget_now()


def theatre() -> Theatre:
    """With a Deployment and a Job."""
    return SageMakerTheatre("sagemaker", StagedAccount, CAST)
