"""What a sagemaker Target and the kinds on it may be told: ``spec.params`` and ``spec.options``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from windlass_schemas import Frozen
from windlass_schemas.scalars import Duration

ROLE = r"^arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+$"
S3_URI = r"^s3://[^\s/]+(/\S*)?$"
AWS_NAME = r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$"
KMS_KEY = r"^[a-zA-Z0-9:/_-]{1,2048}$"
INSTANCE_TYPE = r"^ml\.[a-z0-9-]+\.[a-z0-9]+$"
_TAG = r"^[\w .:/=+@-]{1,128}$"


def _own_tags(tags: dict[str, str]) -> dict[str, str]:
    for key in tags:
        if key.lower().startswith(("aws:", "windlass:")):
            raise ValueError(f"{key}: tags that begin with aws: or windlass: are not yours to set")
    if len(tags) > 40:
        raise ValueError("at most 40 tags; AWS takes 50 and Windlass adds its own")
    return tags


Tags = Annotated[
    dict[Annotated[str, Field(pattern=_TAG)], Annotated[str, Field(max_length=256)]],
    AfterValidator(_own_tags),
]


class Credentials(Frozen):
    """Keys by reference (``env:NAME`` or ``file:/path``), where no profile gives them."""

    access_key_id: str = Field(pattern=r"^(env|file):.+")
    secret_access_key: str = Field(pattern=r"^(env|file):.+")
    session_token: str | None = Field(default=None, pattern=r"^(env|file):.+")


class SageMakerParams(Frozen):
    """One account and region of AWS, and what everything in it has in common."""

    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    """For example ``eu-west-1``."""
    account: str = Field(pattern=r"^\d{12}$")
    """The account that the credentials must be of. In any other, nothing is touched."""
    role: str = Field(pattern=ROLE)
    """The execution role that SageMaker takes on for models and jobs."""
    bucket: str = Field(pattern=r"^(s3://)?[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?$")
    """Where artifacts go: ``name``, ``s3://name`` or either with a prefix."""
    instance: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")
    """A lasting name of this installation: its things are then known by it and their key, and a
    lost state folder costs nothing. No two installations may share one."""
    profile: str | None = Field(default=None, min_length=1)
    """A profile of the AWS configuration, for example one that takes on a role."""
    credentials: Credentials | None = None
    """Keys by reference. Without these and a profile, the usual chain finds credentials."""
    endpoint_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """One address for all of AWS's APIs, for tests and private endpoints."""
    images: dict[str, str] = {}
    """Container images by model format: ``onnx``, ``pytorch``, ``sklearn``, ``tensorflow``."""
    instance_type: str = Field(default="ml.m5.large", pattern=INSTANCE_TYPE)
    """What Deployments and Jobs run on that name no other."""
    rates: str | None = None
    """A YAML or JSON file of dollars an hour by instance type, for costs. Absolute path."""
    limits: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Calls a second by API, for example ``{ListTrainingJobs: 0.5, "Describe*": 5}``."""
    tags: Tags = {}
    """Tags on everything, for bills."""
    orphan_grace: Duration = timedelta(hours=1)
    """How old something without a spec must be to be reported, or collected if it is free."""

    @property
    def bucket_name(self) -> str:
        """Without ``s3://`` and prefix."""
        return self.bucket.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """What every key begins with: empty, or ends with a slash."""
        prefix = self.bucket.removeprefix("s3://").partition("/")[2].strip("/")
        return f"{prefix}/" if prefix else ""


class Registration(Frozen):
    """A version of the Model in SageMaker's registry for each new artifact."""

    group: str | None = Field(default=None, pattern=AWS_NAME)
    """The model package group; by default the Model's name."""
    approval: Literal["Approved", "PendingManualApproval"] = "PendingManualApproval"
    """The status that a new version begins with."""
    wait: bool = True
    """Whether the Model, and so what depends on it, waits until the version is Approved."""


class ModelOptions(Frozen):
    """How a Model is kept in SageMaker."""

    register_: Registration | None = Field(default=None, alias="register")
    """Enter it into the model registry too."""
    image: str | None = Field(default=None, pattern=r"^\S{1,255}$")
    """The container image of a registered version; by default the Target's for the format."""
    tags: Tags = {}


class Serverless(Frozen):
    """Capacity by request and no instances."""

    memory: Literal[1024, 2048, 3072, 4096, 5120, 6144] = 2048
    """MB."""
    max_concurrency: int = Field(default=5, ge=1, le=200)
    provisioned_concurrency: int | None = Field(default=None, ge=1, le=200)
    """How much of it is kept ready; not more than ``maxConcurrency``."""

    @model_validator(mode="after")
    def _fits(self) -> Serverless:
        if (self.provisioned_concurrency or 0) > self.max_concurrency:
            raise ValueError("provisionedConcurrency must not be above maxConcurrency")
        return self


class Variant(Frozen):
    """One of several fleets behind the endpoint."""

    name: str = Field(pattern=AWS_NAME)
    weight: float = Field(default=1.0, ge=0)
    """Its share of the requests, relative to the others."""
    replicas: int | None = Field(default=None, ge=1)
    instance_type: str | None = Field(default=None, pattern=INSTANCE_TYPE)
    serverless: Serverless | None = None
    image: str | None = Field(default=None, pattern=r"^\S{1,255}$")
    env: dict[str, str] = {}


class Size(Frozen):
    """A share of the fleet: exactly one of the fields."""

    instances: int | None = Field(default=None, ge=1)
    percent: int | None = Field(default=None, ge=1, le=100)

    @model_validator(mode="after")
    def _one(self) -> Size:
        if (self.instances is None) == (self.percent is None):
            raise ValueError("needs exactly one of instances and percent")
        return self


def _an_hour_at_most(wait: timedelta) -> timedelta:
    if wait > timedelta(hours=1):
        raise ValueError("is 1h at most")
    return wait


Wait = Annotated[Duration, AfterValidator(_an_hour_at_most)]


class BlueGreen(Frozen):
    """A second fleet beside the first one, and traffic moved over to it."""

    traffic: Literal["all-at-once", "canary", "linear"] = "all-at-once"
    size: Size | None = None
    """The first step (canary) or each step (linear)."""
    wait: Wait = timedelta(0)
    """Between two steps; alarms are watched meanwhile."""
    termination_wait: Wait = timedelta(0)
    """How long the old fleet stays after the move."""

    @model_validator(mode="after")
    def _size_fits(self) -> BlueGreen:
        if (self.traffic == "all-at-once") != (self.size is None):
            raise ValueError("size goes with canary and linear, and both need it")
        return self


class Rolling(Frozen):
    """The fleet exchanged in batches."""

    batch: Size
    wait: Wait = timedelta(0)
    """Between two batches; alarms are watched meanwhile."""
    undo: Size | None = None
    """The batch of a rollback; by default the whole fleet at once."""


class Updates(Frozen):
    """How a new config comes into force."""

    blue_green: BlueGreen | None = None
    rolling: Rolling | None = None
    alarms: tuple[Annotated[str, Field(min_length=1, max_length=255)], ...] = Field(
        default=(), max_length=10
    )
    """CloudWatch alarms that roll an update back. None may be in ALARM when an update begins."""
    max_time: Duration | None = None
    """What the whole update may take: 10 minutes to 8 hours."""

    @model_validator(mode="after")
    def _one_way(self) -> Updates:
        if self.blue_green is not None and self.rolling is not None:
            raise ValueError("needs at most one of blueGreen and rolling")
        if self.max_time is not None and not 600 <= self.max_time.total_seconds() <= 28800:
            raise ValueError("maxTime is 10m at least and 8h at most")
        if self.max_time is not None and self._waits() >= self.max_time:
            raise ValueError("maxTime must be longer than all waits together")
        return self

    def _waits(self) -> timedelta:
        """What AWS counts of them: one wait between two steps, and the one at the end."""
        if self.rolling is not None:
            return self.rolling.wait
        if self.blue_green is not None:
            return self.blue_green.wait + self.blue_green.termination_wait
        return timedelta(0)


class Vpc(Frozen):
    """The network in which containers run."""

    subnets: tuple[str, ...] = Field(min_length=1, max_length=16)
    security_groups: tuple[str, ...] = Field(min_length=1, max_length=5)


class IdleStop(Frozen):
    """Take the endpoint down while nobody calls it."""

    after: Duration
    """Without an invocation; an hour at least, since metrics come late."""

    @model_validator(mode="after")
    def _long_enough(self) -> IdleStop:
        if self.after < timedelta(hours=1):
            raise ValueError("idleStop.after is 1h at least")
        return self


class Front(Frozen):
    """The Lambda function of ``expose: lambda``."""

    concurrency: int = Field(default=0, ge=0, le=1000)
    """Provisioned concurrency of its alias; 0 for none."""
    max_body: int = Field(default=4 << 20, ge=1, le=4 << 20)
    """Bytes that a request may have."""


class DeploymentOptions(Frozen):
    """How a model is served on SageMaker."""

    endpoint_name: str | None = Field(default=None, pattern=AWS_NAME)
    """The endpoint's name; by default the Deployment's."""
    image: str | None = Field(default=None, pattern=r"^\S{1,255}$")
    """The container image; by default the Target's for the Model's format."""
    env: dict[Annotated[str, Field(pattern=r"^[a-zA-Z_]\w*$")], str] = {}
    """Environment of the container. Visible to whoever may describe the model: no secrets."""
    instance_type: str | None = Field(default=None, pattern=INSTANCE_TYPE)
    serverless: Serverless | None = None
    variants: tuple[Variant, ...] = Field(default=(), max_length=10)
    """Several fleets of the same Model; without any, there is one called AllTraffic."""
    updates: Updates = Updates()
    """How a new version comes into force."""
    role: str | None = Field(default=None, pattern=ROLE)
    vpc: Vpc | None = None
    isolated: bool = False
    """No network from inside the container."""
    kms_key: str | None = Field(default=None, pattern=KMS_KEY)
    volume: int | None = Field(default=None, ge=1, le=512)
    """GB of storage for each instance."""
    startup_timeout: Duration | None = None
    """How long a container may take to answer its first ping: 1 minute to 1 hour."""
    tags: Tags = {}
    ttl: Duration | None = None
    """Take the endpoint down this long after it was made."""
    idle_stop: IdleStop | None = None
    max_hourly_cost: float | None = Field(default=None, gt=0)
    """Dollars an hour that its instances may cost at most; needs the Target's ``rates``."""

    expose: Literal["lambda"] | None = None
    """A Lambda function in front of it, for clients that cannot sign requests to SageMaker."""
    front: Front = Front()
    """How that function is."""

    @model_validator(mode="after")
    def _fits(self) -> DeploymentOptions:
        if self.expose is None and self.front != Front():
            raise ValueError("front goes with expose: lambda")
        if self.variants and (self.serverless or self.instance_type):
            raise ValueError("with variants, serverless and instanceType belong to each variant")
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError("variants need different names")
        if self.serverless is not None and self.instance_type is not None:
            raise ValueError("needs at most one of serverless and instanceType")
        seconds = self.startup_timeout.total_seconds() if self.startup_timeout else 60
        if not 60 <= seconds <= 3600:
            raise ValueError("startupTimeout is 1m at least and 1h at most")
        return self
