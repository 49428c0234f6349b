"""A Lambda function in front of an endpoint: hops 5 and 7 for it and for its role.

The role may invoke that one endpoint and nothing else. Clients call the alias ``live``; its
description says what it stands for, so that one look tells whether it is as wanted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

from windlass_adapters.base import (
    Absent,
    External,
    Found,
    Observation,
    Owner,
    State,
    TransientError,
    WaitingError,
    Wanted,
)
from windlass_adapters.sagemaker import fronted
from windlass_adapters.sagemaker.answers import Answer, count, part, tags_of, text
from windlass_adapters.sagemaker.deployments import ENDPOINT_ROLE, Json
from windlass_adapters.sagemaker.errors import AbsentError, ExistsError
from windlass_adapters.sagemaker.immutables import Backend
from windlass_adapters.sagemaker.names import conflict, hashed, short_hash, tag_list
from windlass_adapters.sagemaker.params import Front
from windlass_schemas import Reason, digest_of

FUNCTION_ROLE = "function"
ALIAS = "live"
POLICY = "invoke"
RUNTIME = "python3.12"
_BEGIN, _END = "windlass-", "-front"
"""How a role's name begins, and how it and its function's end: the policy speaks of them."""
_LONGEST = 64 - len(_BEGIN)
"""Characters of a name, so that its role has one of at most 64."""
Check = Callable[[dict[str, str]], None]
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


def wanted_function(endpoint: Wanted, front: Front) -> Wanted:
    """The function in front of an endpoint."""
    begin, room = endpoint.name, _LONGEST - len(_END)
    if len(begin) > room:
        begin = hashed(begin, short_hash(6, begin), room)
    name = f"{begin}{_END}"
    body: Json = {
        "endpoint": endpoint.name,
        "concurrency": front.concurrency,
        "maxBody": front.max_body,
        "code": fronted.checksum(),
        "tags": endpoint.body["tags"],
    }
    told = {key: value for key, value in body.items() if key != "tags"}
    return Wanted(FUNCTION_ROLE, name, digest_of(told), body)


def role_of(function: str) -> str:
    """The name of a function's role."""
    return f"{_BEGIN}{function}"


def function_of(role: str) -> str | None:
    """The function whose role would have that name; None for a role that is none of these."""
    if role.startswith(_BEGIN) and role.endswith(_END):
        return role.removeprefix(_BEGIN)
    return None


class Functions:
    """The fronts of one Target."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: dict[str, tuple[float, Found]] = {}

    async def _lambda(self, operation: str, name: str, **arguments: object) -> Answer:
        return await self._backend.api.call("lambda", operation, FunctionName=name, **arguments)

    async def look(self, owner: Owner, external: External) -> Observation:
        held = self._known.get(external.name)
        if held is not None and self._backend.api.now() - held[0] < _FRESH:
            return held[1]
        found = await self._look(owner, external)
        if isinstance(found, Found) and found.state is State.LIVE and found.digest:
            self._known[external.name] = (self._backend.api.now(), found)
        return found

    async def _look(self, owner: Owner, external: External) -> Observation:
        name = external.name
        try:
            answer = await self._lambda("GetFunction", name)
        except AbsentError:
            return await self._look_at_role(owner, external)
        tags = {k: str(v) for k, v in part(answer, "Tags").items()}
        uid = self._backend.identity.owner_uid(owner, tags) or "nobody"
        config = part(answer, "Configuration")
        waits = _under_way(config)
        if waits:
            return Found(external, uid, State.PROGRESSING, message=waits)
        try:
            alias = await self._lambda("GetAlias", name, Name=ALIAS)
        except AbsentError:
            return Found(external, uid, State.LIVE, message="its alias is not there")
        state, reason, message = await self._provisioned(name)
        detail: Json = {
            "function": {
                "alias": text(alias, "AliasArn"),
                "version": text(alias, "FunctionVersion"),
                "endpoint": text(part(part(config, "Environment"), "Variables"), "ENDPOINT_NAME"),
            }
        }
        digest = text(alias, "Description") or None
        return Found(external, uid, state, digest, reason=reason, message=message, detail=detail)

    async def _look_at_role(self, owner: Owner, external: External) -> Observation:
        """The function is not there; is its role?"""
        try:
            await self._backend.api.call("iam", "GetRole", RoleName=role_of(external.name))
        except AbsentError:
            return Absent()
        return Found(external, owner.uid, State.LIVE, message="only its role is there")

    async def _provisioned(self, name: str) -> tuple[State, Reason | None, str]:
        try:
            answer = await self._lambda("GetProvisionedConcurrencyConfig", name, Qualifier=ALIAS)
        except AbsentError:
            return State.LIVE, None, ""
        status = text(answer, "Status")
        if status == "IN_PROGRESS":
            return State.PROGRESSING, None, "its provisioned concurrency is being made"
        if status == "FAILED":
            said = text(answer, "StatusReason")
            return State.DEGRADED, Reason.BACKEND_REFUSED, f"provisioned concurrency: {said}"
        return State.LIVE, None, ""

    async def create(self, owner: Owner, wanted: Wanted) -> Found:
        """Step by step; each may have been done before. Raises WaitingError in between."""
        name, body = wanted.name, wanted.body
        self._known.pop(name, None)
        role = await self._role(owner, name, str(body["endpoint"]), _tags(wanted))
        try:
            answer = await self._lambda("GetFunction", name)
        except AbsentError:
            await self._make(wanted, role)
            answer = await self._lambda("GetFunction", name)
        tags = {k: str(v) for k, v in part(answer, "Tags").items()}
        if not self._backend.identity.owns(owner, tags):
            raise conflict(f"function {name}", tags)
        await self._configure(wanted, part(answer, "Configuration"))
        await self._publish(wanted)
        seen = await self._look(owner, External(FUNCTION_ROLE, name, name))
        if not isinstance(seen, Found):
            raise TransientError(f"function {name} is not shown yet; looking again")
        return seen

    async def update(self, owner: Owner, external: External, wanted: Wanted) -> Found:
        return await self.create(owner, wanted)

    async def _role(self, owner: Owner, name: str, endpoint: str, tags: dict[str, str]) -> str:
        api = self._backend.api
        try:
            answer = await api.call("iam", "GetRole", RoleName=role_of(name))
        except AbsentError:
            with suppress(ExistsError):
                await api.call(
                    "iam",
                    "CreateRole",
                    RoleName=role_of(name),
                    AssumeRolePolicyDocument=json.dumps(_TRUST),
                    Tags=tag_list(tags),
                )
            answer = await api.call("iam", "GetRole", RoleName=role_of(name))
        role = part(answer, "Role")
        held = tags_of(role)
        if not self._backend.identity.owns(owner, held):
            raise conflict(f"role {name}", held)
        where = await self._arn(endpoint)
        statement = {"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint", "Resource": where}
        document = {"Version": "2012-10-17", "Statement": [statement]}
        await api.call(
            "iam",
            "PutRolePolicy",
            RoleName=role_of(name),
            PolicyName=POLICY,
            PolicyDocument=json.dumps(document),
        )
        return text(role, "Arn")

    async def _arn(self, endpoint: str) -> str:
        known = (await self._backend.inventory.endpoints.get()).get(endpoint)
        if known is None:
            raise TransientError(f"{ENDPOINT_ROLE} {endpoint} is not there; looking again")
        return text(known.answer, "EndpointArn")

    async def _make(self, wanted: Wanted, role: str) -> None:
        with suppress(ExistsError):
            await self._lambda(
                "CreateFunction",
                wanted.name,
                Runtime=RUNTIME,
                Role=role,
                Handler="index.handler",
                Code={"ZipFile": fronted.archive()},
                Timeout=70,
                MemorySize=256,
                Environment={"Variables": _environment(wanted)},
                Tags=_tags(wanted),
            )

    async def _configure(self, wanted: Wanted, config: Answer) -> None:
        _wait_for(config)
        held = part(part(config, "Environment"), "Variables")
        if dict(held) != _environment(wanted):
            environment = {"Variables": _environment(wanted)}
            config = await self._lambda(
                "UpdateFunctionConfiguration", wanted.name, Environment=environment
            )
            _wait_for(config)
        if text(config, "CodeSha256") != wanted.body["code"]:
            config = await self._lambda(
                "UpdateFunctionCode", wanted.name, ZipFile=fronted.archive()
            )
            _wait_for(config)

    async def _publish(self, wanted: Wanted) -> None:
        """A version of what there is now, the alias on it, and its concurrency."""
        name = wanted.name
        version = text(await self._lambda("PublishVersion", name), "Version")
        alias = {"Name": ALIAS, "FunctionVersion": version, "Description": wanted.digest}
        try:
            await self._lambda("UpdateAlias", name, **alias)
        except AbsentError:
            await self._lambda("CreateAlias", name, **alias)
        wish = wanted.body["concurrency"]
        if wish:
            await self._lambda(
                "PutProvisionedConcurrencyConfig",
                name,
                Qualifier=ALIAS,
                ProvisionedConcurrentExecutions=wish,
            )
        else:
            with suppress(AbsentError):
                await self._lambda("DeleteProvisionedConcurrencyConfig", name, Qualifier=ALIAS)

    async def delete(self, owner: Owner, external: External) -> None:
        """The function with its versions, then its role, which may be another's by now."""
        name = external.name

        def check(tags: dict[str, str]) -> None:
            if not self._backend.identity.owns(owner, tags):
                raise conflict(f"function {name}", tags)

        await self._delete_function(name, check)
        tags = await self.role_tags(role_of(name))
        if tags is not None and self._backend.identity.owns(owner, tags):
            await self._delete_role(role_of(name))

    async def take_away(self, name: str, check: Check) -> None:
        """A function with its versions and aliases, and its role. ``check`` refuses by tags."""
        await self._delete_function(name, check)
        await self.take_away_role(role_of(name), check)

    async def _delete_function(self, name: str, check: Check) -> None:
        self._known.pop(name, None)
        with suppress(AbsentError):
            answer = await self._lambda("GetFunction", name)
            check({k: str(v) for k, v in part(answer, "Tags").items()})
            await self._lambda("DeleteFunction", name)

    async def take_away_role(self, role: str, check: Check) -> None:
        """A role. ``check`` refuses by tags."""
        tags = await self.role_tags(role)
        if tags is not None:
            check(tags)
            await self._delete_role(role)

    async def _delete_role(self, role: str) -> None:
        api = self._backend.api
        with suppress(AbsentError):
            await api.call("iam", "DeleteRolePolicy", RoleName=role, PolicyName=POLICY)
        with suppress(AbsentError):
            await api.call("iam", "DeleteRole", RoleName=role)

    async def role_tags(self, role: str) -> dict[str, str] | None:
        """The tags of a role; None when it is not there."""
        try:
            answer = await self._backend.api.call("iam", "GetRole", RoleName=role)
        except AbsentError:
            return None
        return tags_of(part(answer, "Role"))

    async def config(self, name: str) -> Answer | None:
        """What AWS says of a function; None when it is not there."""
        try:
            return part(await self._lambda("GetFunction", name), "Configuration")
        except AbsentError:
            return None

    async def endpoint(self, config: Answer) -> str | None:
        """The endpoint that a function stands in front of; None when that is gone."""
        name = text(part(part(config, "Environment"), "Variables"), "ENDPOINT_NAME")
        with suppress(AbsentError):
            await self._backend.api.sagemaker("DescribeEndpoint", EndpointName=name)
            return name
        return None

    async def provisioned(self, name: str) -> int:
        """How many of a function are kept warm, which costs."""
        try:
            answer = await self._lambda("GetProvisionedConcurrencyConfig", name, Qualifier=ALIAS)
        except AbsentError:
            return 0
        return count(answer, "RequestedProvisionedConcurrentExecutions") or 0


_FRESH = 3600.0
"""Seconds for which a settled function is taken to be as it was."""


def _environment(wanted: Wanted) -> dict[str, str]:
    return {"ENDPOINT_NAME": str(wanted.body["endpoint"]), "MAX_BODY": str(wanted.body["maxBody"])}


def _tags(wanted: Wanted) -> dict[str, str]:
    held = wanted.body["tags"]
    assert isinstance(held, dict)
    return {key: str(value) for key, value in held.items()}


def _under_way(config: Answer) -> str:
    if text(config, "State") == "Pending":
        return "AWS is making the function"
    if text(config, "LastUpdateStatus") == "InProgress":
        return "AWS is changing the function"
    return ""


def _wait_for(config: Answer) -> None:
    waits = _under_way(config)
    if waits:
        raise WaitingError(f"{waits}; waiting until it is done")
