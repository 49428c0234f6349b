"""The sagemaker adapter: hops 5 and 7 in one account and region of AWS, by role.

It decides nothing and waits for nothing. Names are deterministic and carry a hash of what they
stand for, so that a lost reply is found again by its name, and drift is a comparison of names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal, Protocol, Self

from pydantic import BaseModel

from windlass_adapters.base import (
    Adapter,
    AdapterContext,
    AdapterError,
    AmbiguousError,
    Capabilities,
    Change,
    ChecksSpecs,
    CountsCalls,
    Create,
    Desired,
    ErrorClass,
    Estimates,
    External,
    FindsOrphans,
    Found,
    InferReply,
    Infers,
    LogChunk,
    Observation,
    Orphan,
    Owner,
    ReadsLogs,
    TerminalError,
    TransientError,
    Unknown,
    Update,
    WaitingError,
    Wanted,
)
from windlass_adapters.sagemaker.api import Api
from windlass_adapters.sagemaker.costs import (
    cost_of,
    refuse_too_expensive,
    what_remains,
)
from windlass_adapters.sagemaker.deployments import (
    ARTIFACT_ROLE,
    CONFIG_ROLE,
    ENDPOINT_ROLE,
    MODEL_ROLE,
    SCALING_ROLE,
    Renderer,
    deployment_faults,
)
from windlass_adapters.sagemaker.endpoints import Endpoints
from windlass_adapters.sagemaker.errors import adapter_error
from windlass_adapters.sagemaker.functions import FUNCTION_ROLE, Functions, wanted_function
from windlass_adapters.sagemaker.garbage import Garbage
from windlass_adapters.sagemaker.immutables import Backend, Named, Objects
from windlass_adapters.sagemaker.inplace import endpoint_changes
from windlass_adapters.sagemaker.inventory import Inventory
from windlass_adapters.sagemaker.invoking import invoke
from windlass_adapters.sagemaker.jobkinds import job_faults, wanted_job
from windlass_adapters.sagemaker.joboptions import JobOptions
from windlass_adapters.sagemaker.jobs import RUN_ROLE
from windlass_adapters.sagemaker.limits import Limits
from windlass_adapters.sagemaker.logs import Logs
from windlass_adapters.sagemaker.models import model_faults, wanted_model
from windlass_adapters.sagemaker.names import Identity
from windlass_adapters.sagemaker.ownership import Belongings
from windlass_adapters.sagemaker.params import (
    DeploymentOptions,
    ModelOptions,
    SageMakerParams,
)
from windlass_adapters.sagemaker.processing import PROCESSING_ROLE, Processing
from windlass_adapters.sagemaker.rates import read_rates
from windlass_adapters.sagemaker.registry import (
    APPROVAL_ROLE,
    GROUP_ROLE,
    PACKAGE_ROLE,
    Groups,
    Packages,
)
from windlass_adapters.sagemaker.scaling import Scaling, scaling_changes
from windlass_adapters.sagemaker.session import AioClients, Clients
from windlass_adapters.sagemaker.sources import SOURCE_ROLE, Sources
from windlass_adapters.sagemaker.storage import Keys, Storage
from windlass_adapters.sagemaker.training import Training
from windlass_adapters.sagemaker.transforms import TRANSFORM_ROLE, Transforms
from windlass_adapters.sagemaker.tuning import TUNING_ROLE, Tuning
from windlass_adapters.sagemaker.uploads import UPLOAD_ROLE, Uploads
from windlass_schemas import Deployment, Job, Model, Reason, Resource, Sweep

_CAPABILITIES = Capabilities(
    poll_interval=timedelta(seconds=15),
    resync_interval=timedelta(minutes=5),
    timeout=timedelta(seconds=120),
    max_concurrent=16,
    by_name=True,
    adopts=True,
)
_CLASSES: tuple[ErrorClass, ...] = (TransientError, WaitingError, TerminalError, AmbiguousError)


class Part(Protocol):
    """What knows one role."""

    async def look(self, owner: Owner, external: External) -> Observation: ...

    async def create(self, owner: Owner, wanted: Wanted) -> Found: ...

    async def update(self, owner: Owner, external: External, wanted: Wanted) -> Found: ...

    async def delete(self, owner: Owner, external: External) -> None: ...


class SageMakerAdapter(
    Adapter, ChecksSpecs, CountsCalls, Estimates, FindsOrphans, Infers, ReadsLogs
):
    """One account and region."""

    params_model: ClassVar[type[BaseModel]] = SageMakerParams
    options_models: ClassVar[Mapping[str, type[BaseModel]]] = {
        "Model": ModelOptions,
        "Deployment": DeploymentOptions,
        "Job": JobOptions,
        "Sweep": JobOptions,
    }

    def __init__(self, context: AdapterContext, params: BaseModel) -> None:
        given = SageMakerParams.model_validate(params.model_dump())
        identity = Identity(context.install, given.instance)
        self._clients = self.clients(given)
        self.api = Api(self._clients, given.account, Limits(given.limits), self.seconds)
        keys = Keys(given.bucket_name, given.prefix, identity)
        storage = Storage(self.api, keys)
        inventory = Inventory(self.api, storage, identity)
        self._scratch = context.state / "packed"
        self._rates = read_rates(given.rates)
        backend = Backend(
            self.api,
            storage,
            inventory,
            identity,
            context.artifacts,
            self._scratch,
            given.region,
            self._rates,
            self.now,
        )
        self._renderer = Renderer(given, keys, identity)
        packages = Packages(backend)
        functions, processing, transforms = (
            Functions(backend),
            Processing(backend),
            Transforms(backend),
        )
        self._parts: Mapping[str, Part] = {
            ARTIFACT_ROLE: Objects(backend),
            SOURCE_ROLE: Sources(backend),
            UPLOAD_ROLE: Uploads(backend),
            MODEL_ROLE: Named(backend, MODEL_ROLE),
            CONFIG_ROLE: Named(backend, CONFIG_ROLE),
            ENDPOINT_ROLE: Endpoints(backend),
            SCALING_ROLE: Scaling(backend),
            GROUP_ROLE: Groups(backend),
            FUNCTION_ROLE: functions,
            RUN_ROLE: Training(backend),
            TUNING_ROLE: Tuning(backend),
            PROCESSING_ROLE: processing,
            TRANSFORM_ROLE: transforms,
            PACKAGE_ROLE: packages,
            APPROVAL_ROLE: packages,
        }
        self._logs = Logs(
            self.api, self.now, {p.role: p for p in self._parts.values() if isinstance(p, Training)}
        )
        self._belongings = Belongings(backend)
        unsearchable = (processing, transforms)
        self._garbage = Garbage(backend, given.orphan_grace, functions, unsearchable)

    def clients(self, params: SageMakerParams) -> Clients:
        """What calls AWS; a test has an account of its own behind it."""
        return AioClients(params)

    def seconds(self) -> float:
        """Seconds that pass; a test has its own, where time is virtual."""
        return time.monotonic()

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return datetime.now(UTC)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._scratch.mkdir, parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._clients.close()

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    def normalise(self, desired: Desired) -> tuple[Wanted, ...]:
        match desired.resource:
            case Model() as model:
                return wanted_model(self._renderer, desired, model)
            case Deployment() as deployment:
                found = self._renderer.deployment(desired, deployment)
                endpoint = next(w for w in found if w.role == ENDPOINT_ROLE)
                options = DeploymentOptions.model_validate(deployment.spec.options)
                refuse_too_expensive(self._rates, endpoint, options.max_hourly_cost)
                if options.expose is None:
                    return found
                return (*found, wanted_function(endpoint, options.front))
            case Job() | Sweep() as job:
                return wanted_job(self._renderer, desired, job)
        raise TerminalError(
            f"SageMaker takes no {desired.resource.kind}", reason=Reason.INVALID_SPEC
        )

    @staticmethod
    def faults(resource: Resource) -> Iterable[tuple[str, str]]:
        if isinstance(resource, Model):
            yield from model_faults(resource)
        if isinstance(resource, Deployment):
            yield from deployment_faults(resource)
        if isinstance(resource, Job | Sweep):
            yield from job_faults(resource)

    def diff(self, wanted: Wanted, found: Found) -> tuple[Change, ...]:
        if wanted.role == ENDPOINT_ROLE:
            return tuple(endpoint_changes(wanted, found))
        if wanted.role == SCALING_ROLE:
            return tuple(scaling_changes(wanted, found))
        return ()

    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        async with asyncio.TaskGroup() as group:
            looks = {
                external: group.create_task(self._look(owner, external))
                for owner, external in externals
            }
        return {external: look.result() for external, look in looks.items()}

    async def _look(self, owner: Owner, external: External) -> Observation:
        try:
            await self.api.account.check()  # also where the answer is known: it may not be true
            return await self._parts[external.role].look(owner, external)
        except AdapterError as error:
            return Unknown(str(error), error.reason)

    async def find(self, owner: Owner) -> Sequence[Found]:
        return [
            seen
            for external in await self._belongings.of(owner)
            if isinstance(seen := await self._parts[external.role].look(owner, external), Found)
            and seen.owner_uid == owner.uid
        ]

    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        wanted = action.wanted
        self._belongings.remember(owner, External(wanted.role, wanted.name, wanted.name))
        part = self._parts[wanted.role]
        if isinstance(action, Create):
            return await part.create(owner, wanted)
        return await part.update(owner, action.external, wanted)

    async def delete(self, owner: Owner, external: External) -> None:
        await self._parts[external.role].delete(owner, external)

    def api_calls(self) -> Mapping[tuple[str, str], int]:
        return self.api.calls

    def cost(self, wanted: Sequence[Wanted]) -> str:
        return cost_of(self._rates, wanted)

    def remains(self, wanted: Sequence[Wanted], *, orphaned: bool) -> str:
        return what_remains(self._rates, wanted, orphaned=orphaned)

    async def orphans(self, living: Collection[Owner]) -> Sequence[Orphan]:
        return await self._garbage.orphans(living)

    async def collect(self, orphan: Orphan) -> None:
        await self._garbage.collect(orphan)

    async def remove(self, orphan: Orphan) -> None:
        await self._garbage.remove(orphan)

    async def infer(
        self, external: External, body: bytes, headers: Mapping[str, str]
    ) -> InferReply:
        return await invoke(self.api, external, body, headers)

    async def read_log(
        self, external: External, stream: Literal["stdout", "stderr"], offset: int
    ) -> LogChunk:
        if stream == "stderr":  # CloudWatch has both in one
            return LogChunk(b"", offset, complete=True)
        return await self._logs.read(external, offset)

    def classify(self, exception: Exception) -> ErrorClass:
        error = adapter_error(exception, changes=True)
        return next(c for c in _CLASSES if isinstance(error, c))
