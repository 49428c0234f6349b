"""One AWS account in one region, as far as SageMaker is concerned: what it holds, and its knobs.

Operations read and change it; nothing here speaks HTTP.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import math
import random
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from rig.sagemaker.refusals import not_modelled, refuse, rule
from rig.sagemaker.shapes import Json
from rig.sagemaker.timeline import Timeline

REGION = "eu-central-1"

DURATIONS = {
    "endpoint.create": 120.0,
    "endpoint.update": 120.0,
    "endpoint.batch": 60.0,
    "endpoint.shift": 10.0,
    "endpoint.rollback": 60.0,
    "endpoint.scale": 60.0,
    "endpoint.delete": 20.0,
    "training.Starting": 10.0,
    "training.Downloading": 10.0,
    "training.Training": 60.0,
    "training.Uploading": 10.0,
    "job.stop": 15.0,
    "batch.start": 10.0,
    "processing": 60.0,
    "transform": 60.0,
    "package": 10.0,
}
"""How long AWS takes, in virtual seconds, unless a plan says otherwise."""

TAG_LIMIT = rule("tags.limit", "doc", "ValidationException", "Tag limit exceeded: 50 per resource")
TAG_PREFIX = rule(
    "tags.aws", "doc", "ValidationException", "Tag keys must not begin with aws: ({key})"
)
BAD_TOKEN = rule("list.token", "guess", "ValidationException", "The NextToken is not valid")


@dataclass
class Resource:
    """Anything with a name and an ARN."""

    kind: str
    """The word of the ARN: ``endpoint``, ``training-job``."""
    name: str
    arn: str
    body: Json
    """The members of the request that made it, without its tags."""
    made: float
    changed: float
    tags: dict[str, str] = field(default_factory=dict)
    maker: str = ""
    """The principal that made it."""
    status: str = ""
    reason: str = ""
    state: dict[str, Any] = field(default_factory=dict)
    """What else this kind remembers."""


@dataclass
class Plan:
    """How the next thing of a sort is going to turn out."""

    what: str
    """``create``, ``update``, ``training``, ``processing``, ``transform``, ``tuning``..."""
    name: str = "*"
    fail: str = ""
    """The FailureReason; empty: it succeeds."""
    seconds: float | None = None
    """How long it takes in all (a job: its main part)."""
    status: str = ""
    """Where it ends, when that is not the usual one: ``UpdateRollbackFailed``."""
    step: int = 0
    """The step of an update at which it fails, from 0."""
    times: int = 1
    steps: tuple[tuple[str, float], ...] = ()
    """The secondary states of a training run, each with its seconds."""
    output: bytes = b""
    """What a training run leaves as model.tar.gz; nothing is left without."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What a processing or transform job leaves, by path below its output."""
    said: str = ""
    """What a processing container says at its end: the ExitMessage."""
    metrics: Mapping[str, float] = field(default_factory=dict)


Objective = Callable[[Mapping[str, str]], float]


class Account:
    """What the account holds, by ARN."""

    def __init__(self, number: str, timeline: Timeline, seed: int = 0) -> None:
        self.number = number
        self.region = REGION
        self.timeline = timeline
        self.random = random.Random(seed)
        self.held: dict[str, Resource] = {}
        self.durations = dict(DURATIONS)
        self.plans: list[Plan] = []
        self.quota: dict[str, int] = {}
        """Instances by type, for endpoints; a type that is not here has no limit."""
        self.training_quota: dict[str, int] = {}
        self.batch_quota: dict[tuple[str, str], int] = {}
        """By the kind of job, ``processing-job`` or ``transform-job``, and type of instance."""
        self.unseen: dict[str, float] = {}
        """By kind, for how long what was made cannot be read yet: read-your-write lag."""
        self.search_lag = 0.0
        """How old what Search tells may be."""
        self.page_limit: int | None = None
        """Most items on a page, whatever was asked for."""
        self.empty_first_page = False
        """Whether a list begins with a page without items and a token."""
        self.objective: Objective = lambda parameters: 1.0
        """What a tuning job's training runs measure."""
        self.alarms: Callable[[], frozenset[str]] = frozenset
        """The names of the alarms that are in ALARM."""
        self.functions: Callable[[], Mapping[str, Mapping[str, str]]] = dict
        """The tags of Lambda's functions by ARN: Lambda itself is not modelled here."""
        self.on_output: Callable[[str, bytes], None] | None = None
        """Takes what a job leaves behind: an S3 URI and bytes."""
        self._index: dict[str, Resource] = {}
        self._indexed = -math.inf

    @property
    def now(self) -> float:
        """Virtual seconds since 1970."""
        return self.timeline.seconds

    def arn(self, kind: str, name: str, service: str = "sagemaker") -> str:
        """The ARN of something here."""
        return f"arn:aws:{service}:{self.region}:{self.number}:{kind}/{name}"

    def make(
        self, kind: str, name: str, request: Json, maker: str, *, service: str = "sagemaker"
    ) -> Resource:
        """Hold something new. Its tags are checked first."""
        body = {key: value for key, value in request.items() if key != "Tags"}
        arn = self.arn(kind, self._folded(kind, name), service)
        tags = checked_tags({}, request.get("Tags"))
        made = Resource(kind, name, arn, body, self.now, self.now, tags, maker)
        self.held[self._place(kind, name)] = made
        return made

    def get(self, kind: str, name: str) -> Resource | None:
        """What is held under a name, and can be seen already."""
        found = self.held.get(self._place(kind, name))
        if found is None or self.now < found.made + self.unseen.get(kind, 0.0):
            return None
        return found

    def exists(self, kind: str, name: str) -> bool:
        """Whether a name is taken, seen or not."""
        return self._place(kind, name) in self.held

    def drop(self, resource: Resource) -> None:
        """Hold it no longer."""
        self.held.pop(self._place(resource.kind, resource.name), None)

    def all(self, kind: str) -> list[Resource]:
        """Everything of a kind."""
        return [found for found in self.held.values() if found.kind == kind]

    def by_arn(self, arn: str) -> Resource | None:
        """What an ARN means."""
        kind, _, name = arn.split(":", 5)[-1].partition("/")
        found = self.held.get(self._place(kind, name))
        return found if found is not None and found.arn == arn else None

    def plan(self, what: str, name: str) -> Plan:
        """How this turns out; a plan is used up by it."""
        for plan in self.plans:
            if plan.what == what and plan.times > 0 and fnmatch.fnmatch(name, plan.name):
                plan.times -= 1
                return plan
        return Plan(what)

    def before_request(self) -> None:
        """Let time catch up, and let the index of Search."""
        # By its age, not by the clock's full hours: else it depends on when a test runs.
        age = self.timeline.seconds - self._indexed
        if self.search_lag and age >= self.search_lag:
            self._indexed = self.timeline.seconds
            self._index = {place: _copy(found) for place, found in self.held.items()}
        self.timeline.catch_up()

    def searchable(self, kind: str) -> list[Resource]:
        """What Search knows of a kind: with a lag, how things once stood."""
        held = self._index if self.search_lag else self.held
        return [found for found in held.values() if found.kind == kind]

    def as_of(self, resource: Resource) -> Account:
        """The account as if one resource stood as it is given."""
        other = copy(self)
        other.held = {self._place(resource.kind, resource.name): resource}
        other.unseen = {}
        return other

    def searchable_all(self) -> list[Resource]:
        """Everything of SageMaker that an index knows."""
        held = self._index if self.search_lag else self.held
        return [found for found in held.values() if ":sagemaker:" in found.arn]

    @staticmethod
    def _folded(kind: str, name: str) -> str:
        # Endpoint names are one whatever their case, and so are their ARNs.
        return name.lower() if kind == "endpoint" else name

    def _place(self, kind: str, name: str) -> str:
        return f"{kind}/{self._folded(kind, name)}"


def checked_tags(
    held: Mapping[str, str], given: Iterable[Mapping[str, str]] | None
) -> dict[str, str]:
    """Tags with others put over them. Raises Refusal."""
    tags = dict(held)
    for tag in given or ():
        if tag["Key"].startswith("aws:"):
            raise refuse(TAG_PREFIX, key=tag["Key"])
        tags[tag["Key"]] = tag["Value"]
    if len(tags) > 50:
        raise refuse(TAG_LIMIT)
    return tags


def listed_tags(resource: Resource) -> list[Json]:
    """Tags as AWS writes them."""
    return [{"Key": key, "Value": value} for key, value in resource.tags.items()]


def page(
    account: Account,
    found: list[Json],
    request: Json,
    *,
    default: int = 10,
    most: int | None = None,
) -> tuple[list[Json], Json]:
    """One page of a list, and the NextToken that goes with it."""
    size = request.get("MaxResults", default)
    for limit in (most, account.page_limit):
        size = size if limit is None else min(size, limit)
    token = request.get("NextToken")
    start = 0 if token is None else _offset(token)
    if token is None and account.empty_first_page and found:
        return [], {"NextToken": _token(0)}
    end = start + size
    more = {"NextToken": _token(end)} if end < len(found) else {}
    return found[start:end], more


def _token(offset: int) -> str:
    return base64.b64encode(f"page:{offset}".encode()).decode()


def _offset(token: str) -> int:
    try:
        word, _, number = base64.b64decode(token, validate=True).decode().partition(":")
        if word == "page":
            return int(number)
    except (binascii.Error, ValueError):
        pass
    raise refuse(BAD_TOKEN)


def select(
    found: Iterable[Resource], request: Json, *, handled: frozenset[str] = frozenset()
) -> list[Resource]:
    """The filters and the order that all lists of SageMaker have. Raises Refusal for others."""
    known = {"NextToken", "MaxResults", "SortBy", "SortOrder", *_FILTERS, *handled}
    unknown = request.keys() - known
    if unknown:
        raise not_modelled(f"a list by {', '.join(sorted(unknown))}")
    tests = [(_FILTERS[name], value) for name, value in request.items() if name in _FILTERS]
    kept = [one for one in found if all(test(one, value) for test, value in tests)]
    kept.sort(key=lambda one: (_ORDERS[request.get("SortBy", "CreationTime")](one), one.name))
    if request.get("SortOrder", "Descending") == "Descending":
        kept.reverse()
    return kept


_FILTERS: dict[str, Callable[[Resource, Any], bool]] = {
    "NameContains": lambda one, text: text.lower() in one.name.lower(),
    "StatusEquals": lambda one, status: one.status == status,
    "CreationTimeAfter": lambda one, at: one.made > at,
    "CreationTimeBefore": lambda one, at: one.made < at,
    "LastModifiedTimeAfter": lambda one, at: one.changed > at,
    "LastModifiedTimeBefore": lambda one, at: one.changed < at,
}
_ORDERS: dict[str, Callable[[Resource], Any]] = {
    "Name": lambda one: one.name,
    "CreationTime": lambda one: one.made,
    "LastModifiedTime": lambda one: one.changed,
    "Status": lambda one: one.status,
}


def _copy(resource: Resource) -> Resource:
    return replace(resource, tags=dict(resource.tags), state=_copied(resource.state))


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a kind remembers, apart from what is still on its way."""
    return {key: copy(value) for key, value in state.items()}
