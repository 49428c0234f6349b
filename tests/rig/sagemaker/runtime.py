"""Inference: InvokeEndpoint on endpoints of the account, answered by what a test serves there."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rig.sagemaker import rollouts
from rig.sagemaker.account import Account
from rig.sagemaker.refusals import Refusal, not_modelled, refuse, rule
from rig.sagemaker.rollouts import ENDPOINT
from rig.sagemaker.shapes import service_model
from rig.sagemaker.wire import Reply

NO_ENDPOINT = rule(
    "invoke.absent",
    "issue",
    "ValidationError",
    "Endpoint {name} of account {account} not found.",
    "aws/sagemaker-python-sdk, issues about names",
)
NO_VARIANT = rule(
    "invoke.variant", "guess", "ValidationError", "Variant {variant} not found for {name}"
)
TOO_LARGE = rule(
    "invoke.size", "guess", "ValidationError", "the body is larger than {most} bytes", status=413
)
SERVERLESS_LIMIT = 4 << 20
"""Bytes of a request to a serverless endpoint."""


@dataclass(frozen=True)
class Invoked:
    """One request to a model."""

    endpoint: str
    body: bytes
    content_type: str
    accept: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What a container answers; a status other than 200 becomes a ModelError."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200


Container = Callable[[Invoked], Answer]


@dataclass
class Runtime:
    """The containers of an account, by a glob over endpoint names."""

    account: Account
    containers: list[tuple[str, Container]] = field(default_factory=list)
    invocations: list[Invoked] = field(default_factory=list)

    def invoke(self, request: Invoked) -> Reply:
        """Answer an inference request. Raises Refusal."""
        endpoint = self.account.get(ENDPOINT, request.endpoint)
        if endpoint is None or endpoint.name != request.endpoint or endpoint.status in _DOWN:
            raise refuse(NO_ENDPOINT, name=request.endpoint, account=self.account.number)
        variants = rollouts.of(endpoint).variants
        named = request.headers.get("x-amzn-sagemaker-target-variant")
        if named is not None and named not in variants:
            raise refuse(NO_VARIANT, variant=named, name=request.endpoint)
        serverless = any(v.serverless for v in variants.values())
        most = service_model("sagemaker-runtime").shape_for("BodyBlob").metadata["max"]
        most = SERVERLESS_LIMIT if serverless else most
        if len(request.body) > most:
            raise refuse(TOO_LARGE, most=most)
        self.invocations.append(request)
        for pattern, container in self.containers:
            if fnmatch.fnmatchcase(request.endpoint, pattern):
                return self._reply(container(request), request, named or self._draw(variants))
        raise not_modelled(f"a container for {request.endpoint}: serve one")

    def _draw(self, variants: Mapping[str, rollouts.Variant]) -> str:
        weights = [variant.weight for variant in variants.values()]
        return self.account.random.choices(list(variants), weights)[0]

    def _reply(self, answer: Answer, request: Invoked, variant: str) -> Reply:
        if answer.status == 200:
            headers = {
                "Content-Type": answer.content_type,
                "x-Amzn-Invoked-Production-Variant": variant,
            }
            return Reply(200, answer.body, headers)
        text = answer.body.decode("utf-8", "replace")
        logs = (
            f"https://{self.account.region}.console.aws.amazon.com/cloudwatch/home?region="
            f"{self.account.region}#logEventViewer:group=/aws/sagemaker/Endpoints/"
            f"{request.endpoint} in account {self.account.number}"
        )
        raise Refusal(
            "ModelError",
            f'Received client error ({answer.status}) from {variant} with message "{text}". '
            f"See {logs} for more information.",
            424,
            "invoke.model",
            OriginalStatusCode=answer.status,
            OriginalMessage=text,
            LogStreamArn=f"/aws/sagemaker/Endpoints/{request.endpoint}",
        )


_DOWN = frozenset({"Creating", "Failed", "Deleting", "OutOfService"})
