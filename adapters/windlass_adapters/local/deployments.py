"""A Deployment as this machine must serve it: the local adapter's share of ``normalise``; pure.

And its hops 5 and 7, by way of the serving process. ``Deployments`` starts that process when
something must be served and none lives, and never waits for it: the next look finds it ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import httpx
from pydantic import JsonValue

from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import (
    Absent,
    Create,
    Desired,
    External,
    Found,
    InferReply,
    Observation,
    Owner,
    State,
    TerminalError,
    TransientError,
    Unknown,
    Update,
    WaitingError,
    Wanted,
)
from windlass_adapters.bundle import BundleError, model_file
from windlass_adapters.local.admin import Admin, View
from windlass_adapters.local.offers import refuse_what_is_not_offered
from windlass_adapters.local.params import DeploymentOptions, LocalParams
from windlass_adapters.local.records import BrokenRecordError
from windlass_adapters.local.servers import Listening, Server
from windlass_schemas import (
    DEFAULT_NAMESPACE,
    Autoscaling,
    Deployment,
    DeploymentSpec,
    Frozen,
    Key,
    Reason,
    Rollout,
    digest_of,
    references_of,
)

SERVER_ROLE = "server"
INFER_TIMEOUT = 60.0
"""Seconds for one inference."""
_HOP_HEADERS = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "proxy-authorization", "proxy-authenticate", "authorization"}
)
_DECODED_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class DeploymentBody(Frozen):
    """``Wanted.body`` of a served model: what, and how."""

    artifact: str
    options: dict[str, JsonValue]
    """In the words of the serving process."""


def wanted_server(desired: Desired, deployment: Deployment, params: LocalParams) -> Wanted:
    """The one served model of a Deployment.

    Raises WaitingError while it has no artifact, TerminalError for what this machine does not do.
    """
    refuse_what_is_not_offered(deployment, params)
    artifact = None
    for reference in references_of(deployment):
        if reference.output is not None:
            artifact = desired.inputs.get(reference.slot)
    if artifact is None:
        raise WaitingError(
            f"Model/{deployment.spec.model} has no artifact yet",
            reason=Reason.DEPENDENCY_NOT_READY,
        )
    body = DeploymentBody(
        artifact=artifact.digest, options=serving_options(deployment.spec)
    ).model_dump(mode="json")
    return Wanted(
        role=SERVER_ROLE,
        name=served_name(desired.owner.key),
        # Where it is served counts: a Target that moves takes its Deployments along.
        digest=digest_of(
            body | {"target": params.model_dump(mode="json", exclude={"python", "grace"})}
        ),
        body=body,
    )


def serving_options(spec: DeploymentSpec) -> dict[str, JsonValue]:
    """How a Deployment wants to be served, in the words of the serving process."""
    options = DeploymentOptions.model_validate(spec.options)
    delay, scaling = options.max_delay, spec.autoscaling
    return {
        "threads": options.threads or spec.resources.cpus or 1,
        "replicas": max(scaling.min, 1) if scaling is not None else spec.replicas or 1,
        "autoscaling": _autoscaling(scaling),
        "rollout": _rollout(spec.rollout),
        "access": spec.access or "public",
        "max_batch": options.max_batch,
        "max_delay": delay.total_seconds() if delay is not None else None,
        "max_waiting": options.max_waiting,
        "max_run": options.max_run.total_seconds(),
        "providers": list(options.providers),
        "prepack": options.prepack,
    }


def _autoscaling(scaling: Autoscaling | None) -> JsonValue:
    if scaling is None:
        return None
    return {
        "min": scaling.min,
        "max": scaling.max,
        "metric": scaling.metric,
        "target": scaling.target,
        "up": scaling.stabilisation.up.total_seconds(),
        "down": scaling.stabilisation.down.total_seconds(),
    }


def _rollout(rollout: Rollout) -> JsonValue:
    if (canary := rollout.canary) is not None:
        return {
            "way": "canary",
            "weight": canary.weight,
            "duration": canary.duration.total_seconds(),
            "min_requests": canary.min_requests,
            "max_error_rate": canary.max_error_rate,
            "max_latency_ratio": canary.max_latency_ratio,
        }
    if (shadow := rollout.shadow) is not None:
        duration = shadow.duration.total_seconds()
        return {"way": "shadow", "weight": shadow.weight, "duration": duration, "min_requests": 1}
    return None


def served_name(key: Key) -> str:
    """The model's name in the protocol."""
    return key.name if key.namespace == DEFAULT_NAMESPACE else f"{key.namespace}.{key.name}"


class Deployments:
    """The served models of one Target."""

    def __init__(self, install: str, store: ArtifactStore, server: Server) -> None:
        self._install = install
        self._store = store
        self._server = server
        self._admin = Admin(server.folder / "admin.sock")
        self._starting = asyncio.Lock()
        self._client = httpx.AsyncClient(timeout=INFER_TIMEOUT, trust_env=False, verify=False)

    async def close(self) -> None:
        """Close the connections; the serving process goes on."""
        await self._client.aclose()

    async def observe(self, externals: Sequence[External]) -> Mapping[External, Observation]:
        """What the serving process says of each; without one, nothing is served for certain."""
        try:
            live = await asyncio.to_thread(self._server.look)
            if not isinstance(live, Listening):
                return {external: Absent() for external in externals}
            views = {view.name: view for view in await self._admin.list()}
        except (BrokenRecordError, TransientError, OSError) as error:
            return {external: Unknown(str(error)) for external in externals}
        return {
            external: self._found(views[external.name], live)
            if external.name in views
            else Absent()
            for external in externals
        }

    async def find(self, owner: Owner) -> list[Found]:
        """Everything served for an owner. Raises TransientError."""
        live = await asyncio.to_thread(self._server.look)
        if not isinstance(live, Listening):
            return []
        views = await self._admin.list()
        return [
            self._found(view, live)
            for view in views
            if view.uid == owner.uid and view.install == owner.install
        ]

    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        """Have it served. Raises WaitingError while there is nobody to serve it yet."""
        wanted = action.wanted
        live = await self._ensure_server()
        if live is None:
            raise WaitingError("the serving process is starting", reason=Reason.PROGRESSING)
        body = DeploymentBody.model_validate(wanted.body)
        if not await asyncio.to_thread(self._store.has, body.artifact):
            raise TransientError(
                f"{body.artifact} is not in the artifact store; the Model brings it back"
            )
        try:
            model = await asyncio.to_thread(model_file, self._store.root, body.artifact)
        except BundleError as error:
            raise TerminalError(f"Model of {owner.key}: {error}") from None
        if isinstance(action, Create):
            for found in await self.find(owner):
                if found.external.name == wanted.name:
                    return found
        view = await self._admin.put(
            wanted.name,
            {
                "install": owner.install,
                "uid": owner.uid,
                "key": str(owner.key),
                "digest": wanted.digest,
                "artifact": body.artifact,
                "model_path": str(model.absolute()),
                "options": body.options,
            },
        )
        return self._found(view, live)

    async def delete(self, owner: Owner, external: External) -> None:
        """Stop serving it. Without a serving process there is nothing to stop."""
        live = await asyncio.to_thread(self._server.look)
        if isinstance(live, Listening):
            await self._admin.delete(external.name, owner.uid)

    async def infer(
        self, external: External, body: bytes, headers: Mapping[str, str]
    ) -> InferReply:
        """Pass one request on to the serving process."""
        live = await asyncio.to_thread(self._server.look)
        if not isinstance(live, Listening):
            raise TransientError("no serving process lives; Windlass starts one, try again")
        passed = {n: v for n, v in headers.items() if n.lower() not in _HOP_HEADERS}
        try:
            reply = await self._client.post(_url(live, external.name), content=body, headers=passed)
        except httpx.HTTPError as error:
            raise TransientError(
                f"{_url(live, external.name)} does not answer: {str(error) or type(error).__name__}"
            ) from None
        kept = {n: v for n, v in reply.headers.items() if n.lower() not in _DECODED_HEADERS}
        return InferReply(reply.status_code, kept, reply.content)

    async def _ensure_server(self) -> Listening | None:
        """The serving process that the Target asks for, or None while it is not ready.

        Raises WaitingError as long as the last one gave up, for a port in use say; another is
        started all the same, so that it works as soon as the cause is gone.
        """
        async with self._starting:
            live = await asyncio.to_thread(self._server.look)
            if isinstance(live, Listening):
                changed = self._server.differences(live)
                if not changed:
                    await asyncio.to_thread(self._server.forget_refusal)
                    return live
                if trouble := await asyncio.to_thread(self._server.trouble):
                    text = f"{trouble}; what serves now serves on"
                    raise WaitingError(text, reason=Reason.BACKEND_REFUSED)
                await asyncio.to_thread(self._server.stop, live)
                names = ", ".join(f"params.{name}" for name in sorted(changed))
                gap = "requests are answered all the time"
                if not self._server.hands_over(live):
                    gap = "nobody answers requests meanwhile"
                raise WaitingError(
                    f"the serving process starts anew for {names} of the Target; {gap}",
                    reason=Reason.PROGRESSING,
                )
            if live is None:
                await asyncio.to_thread(self._server.start)
                live = await asyncio.to_thread(self._server.look)
            refusal = await asyncio.to_thread(self._server.refusal)
            if refusal is not None:
                raise WaitingError(refusal.message, reason=refusal.reason)
            if live is None:
                log = self._server.folder / "serving.log"
                raise TransientError(f"the serving process ended at once; {log} says why")
            return None

    def _found(self, view: View, live: Listening) -> Found:
        failed = view.state == "Failed" and view.digest is None
        ours = view.install == self._install
        return Found(
            external=External(SERVER_ROLE, view.name, view.name),
            owner_uid=view.uid if ours else f"{view.install}/{view.uid}",
            state=State.FAILED if failed else _STATES[view.state],
            digest=view.digest,
            pending_digest=view.pending_digest,
            failed_digest=view.failed_digest,
            reason=view.reason,
            message=view.message or "",
            signature=view.signature,
            url=_url(live, view.name),
            detail=_detail(view, live),
        )


def _detail(view: View, live: Listening) -> dict[str, JsonValue]:
    """What else ``describe`` shows: where gRPC answers, and how the replicas are."""
    detail: dict[str, JsonValue] = {"replicas": view.replicas}
    if view.hung:
        detail["replaced"] = f"{view.hung} replicas hung and were replaced"
    if view.lost:
        detail["lost"] = f"{view.lost} processes ended without being asked, and were replaced"
    if live.grpc_port:
        detail["grpc"] = _place(live, live.grpc_port)
    return detail


# A failed change leaves what was served before in force.
_STATES = {
    "Progressing": State.PROGRESSING,
    "Live": State.LIVE,
    "Failed": State.LIVE,
    "Degraded": State.DEGRADED,
}


def _url(live: Listening, name: str) -> str:
    scheme = "https" if live.tls else "http"
    return f"{scheme}://{_place(live, live.port)}/v2/models/{name}/infer"


def _place(live: Listening, port: int) -> str:
    host = _ANYWHERE.get(live.host, live.host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
