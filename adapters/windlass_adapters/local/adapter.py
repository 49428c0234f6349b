"""The local adapter: hops 5 and 7 on this machine, by role.

A Job's run is a process in its own session (``runs``), a Model an artifact that was looked into
(``modelfolders``), a Deployment a model in the serving process (``deployments``). Each of those
outlives the daemon and is found again by what it wrote in the state folder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar, Literal, Self

import httpx
from pydantic import BaseModel

from windlass_adapters.base import (
    Adapter,
    AdapterContext,
    AdapterError,
    AmbiguousError,
    Capabilities,
    Change,
    ChecksSpecs,
    Create,
    Desired,
    ErrorClass,
    External,
    Found,
    InferReply,
    Infers,
    LogChunk,
    Observation,
    Owner,
    ReadsLogs,
    TerminalError,
    TransientError,
    Update,
    WaitingError,
    Wanted,
)
from windlass_adapters.local.deployments import Deployments, wanted_server
from windlass_adapters.local.jobs import RUN_ROLE, wanted_run
from windlass_adapters.local.modelfolders import ModelFolders
from windlass_adapters.local.models import ARTIFACT_ROLE, model_faults, wanted_model
from windlass_adapters.local.outcome import FULL
from windlass_adapters.local.params import DeploymentOptions, LocalParams, NoOptions
from windlass_adapters.local.records import BrokenRecordError
from windlass_adapters.local.runs import Runs
from windlass_adapters.local.servers import Server
from windlass_adapters.local.starting import Starter
from windlass_schemas import Deployment, Job, Model, Reason, Resource

_CAPABILITIES = Capabilities(
    poll_interval=timedelta(seconds=0.5),
    resync_interval=timedelta(seconds=10),
    preempts=True,
    by_name=True,
    runs_end_with_power=True,
)
FEW = 2
"""Folders that are looked at in less time than it takes to hand them to a thread."""
_CLASSES: tuple[ErrorClass, ...] = (TransientError, WaitingError, TerminalError, AmbiguousError)


class LocalAdapter(Adapter, ChecksSpecs, ReadsLogs, Infers):
    """This machine."""

    params_model: ClassVar[type[BaseModel]] = LocalParams
    options_models: ClassVar[Mapping[str, type[BaseModel]]] = {
        "Job": NoOptions,
        "Model": NoOptions,
        "Deployment": DeploymentOptions,
    }

    def __init__(self, context: AdapterContext, params: BaseModel) -> None:
        self._params = LocalParams.model_validate(params.model_dump())
        self._capabilities = replace(_CAPABILITIES, daemon=self._params.daemon)
        store = context.artifacts
        starter = Starter(context.state)
        self._runs = Runs(context.state / "runs", store, self._params.grace, starter)
        self._models = ModelFolders(context.state / "models", store)
        server = Server(context.state / "serving", self._params, context.keys)
        self._deployments = Deployments(context.install, store, server)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._runs.sweep)
        await asyncio.to_thread(self._models.sweep)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self._runs.close)
        await self._deployments.close()

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def normalise(self, desired: Desired) -> tuple[Wanted, ...]:
        match desired.resource:
            case Job() as job:
                return (wanted_run(desired, job, self._params),)
            case Model() as model:
                return (wanted_model(desired, model),)
            case Deployment() as deployment:
                return (wanted_server(desired, deployment, self._params),)
        raise TerminalError(
            f"this machine takes no {desired.resource.kind}; give it a Target that does",
            reason=Reason.INVALID_SPEC,
        )

    @staticmethod
    def faults(resource: Resource) -> Iterable[tuple[str, str]]:
        if isinstance(resource, Model):
            yield from model_faults(resource)

    def diff(self, wanted: Wanted, found: Found) -> tuple[Change, ...]:
        if wanted.digest in (found.digest, found.pending_digest):
            return ()
        return (Change("/digest", found.digest, wanted.digest),)

    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        folders = [e for _, e in externals if e.role in (RUN_ROLE, ARTIFACT_ROLE)]
        served = [e for _, e in externals if e.role not in (RUN_ROLE, ARTIFACT_ROLE)]
        if len(folders) <= FEW:
            seen = dict(self._observe_folders(folders))
        else:
            seen = dict(await asyncio.to_thread(self._observe_folders, folders))
        if served:
            seen |= await self._deployments.observe(served)
        return seen

    def _observe_folders(self, externals: Sequence[External]) -> Mapping[External, Observation]:
        return {
            external: self._runs.observe(external)
            if external.role == RUN_ROLE
            else self._models.observe(external)
            for external in externals
        }

    async def find(self, owner: Owner) -> Sequence[Found]:
        match owner.key.kind:
            case "Job":
                return await asyncio.to_thread(self._runs.find, owner)
            case "Model":
                return await asyncio.to_thread(self._models.find, owner)
            case "Deployment":
                return await self._deployments.find(owner)
        return ()

    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        role = action.wanted.role
        if role == ARTIFACT_ROLE:
            return await asyncio.to_thread(self._models.apply, owner, action)
        if role != RUN_ROLE:
            return await self._deployments.apply(owner, action)
        if isinstance(action, Update):
            raise TerminalError(f"{action.wanted.name}: a run is made once and never changed")
        begun = self._runs.begin(owner, action)
        return await asyncio.to_thread(self._runs.create, owner, action, begun)

    async def delete(self, owner: Owner, external: External) -> None:
        if external.role == RUN_ROLE:
            await asyncio.to_thread(self._runs.delete, owner, external)
        elif external.role == ARTIFACT_ROLE:
            await asyncio.to_thread(self._models.delete, owner, external)
        else:
            await self._deployments.delete(owner, external)

    def classify(self, exception: Exception) -> ErrorClass:
        if isinstance(exception, AdapterError):
            return next(c for c in _CLASSES if isinstance(exception, c))
        if isinstance(exception, TimeoutError):
            return AmbiguousError
        if isinstance(exception, OSError) and exception.errno in FULL:
            return WaitingError
        if isinstance(exception, OSError | httpx.HTTPError | BrokenRecordError):
            return TransientError
        return TerminalError

    async def read_log(
        self, external: External, stream: Literal["stdout", "stderr"], offset: int
    ) -> LogChunk:
        return await asyncio.to_thread(self._runs.read_log, external, stream, offset)

    async def infer(
        self, external: External, body: bytes, headers: Mapping[str, str]
    ) -> InferReply:
        return await self._deployments.infer(external, body, headers)
