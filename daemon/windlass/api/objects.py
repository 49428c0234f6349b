"""Routes for objects: read them, and write down what a person asks for."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query

from windlass.api.problems import ProblemError, check_kind, key_from, split_hint
from windlass.api.runtime import Runtime
from windlass.api.views import (
    Accepted,
    ApproveBody,
    HistoryList,
    ObjectList,
    ObjectView,
    Problem,
    SuspendBody,
    TransferBody,
    suspension_of,
    view_entry,
    view_object,
)
from windlass.clock import utc_now
from windlass.store.base import (
    Approve,
    Delete,
    Object,
    Request,
    ResumeObject,
    StoreError,
    SuspendObject,
    SyncObject,
    Transfer,
)
from windlass_schemas import Key

User = Annotated[str, Header(alias="X-Windlass-User", description="Who asks, for the history.")]
ObjectKey = Annotated[Key, Depends(key_from)]


async def find(runtime: Runtime, key: Key) -> Object:
    """The object of that key. Raises ProblemError (404)."""
    found = await runtime.store.get(key)
    if found is None:
        raise ProblemError(404, f"there is no {key.short}", "see what there is: windlass get")
    return found


def routes(runtime: Runtime) -> APIRouter:
    """Everything below ``/api/v1/objects``, and ``/api/v1/approve``."""
    router = APIRouter(
        prefix="/api/v1",
        tags=["objects"],
        responses={404: {"model": Problem}, 503: {"model": Problem}},
    )
    _reading(router, runtime)
    _asking(router, runtime)
    return router


def _reading(router: APIRouter, runtime: Runtime) -> None:
    one = "/objects/{kind}/{namespace}/{name}"

    def view(found: Object) -> ObjectView:
        return view_object(found, pending=found.due or runtime.pending(found.key), now=utc_now())

    @router.get("/objects")
    async def list_objects(kind: str | None = None, namespace: str | None = None) -> ObjectList:
        """All objects in the order of their keys."""
        if kind is not None:
            kind = kind[:1].upper() + kind[1:].lower()
            check_kind(kind)
        found = await runtime.store.list(kind, namespace)
        return ObjectList(objects=tuple(view(each) for each in found))

    @router.get(one)
    async def get_object(key: ObjectKey) -> ObjectView:
        """One object."""
        return view(await find(runtime, key))

    @router.get(f"{one}/history")
    async def get_history(
        key: ObjectKey, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> HistoryList:
        """What happened to an object, newest first; also after its deletion."""
        entries = await runtime.store.history(key, limit)
        if not entries:
            await find(runtime, key)
        return HistoryList(entries=tuple(view_entry(entry) for entry in entries))


def _asking(router: APIRouter, runtime: Runtime) -> None:
    one = "/objects/{kind}/{namespace}/{name}"

    async def ask(request: Request, token: str | None = None) -> Accepted:
        """Write the request down durably, then wake the workers."""
        try:
            keys = await runtime.store.request(request, utc_now())
        except StoreError as error:
            # A request that the store cannot write for want of space is told apart by nothing
            # but its words; to the caller both mean: not done, and this is what to do.
            raise ProblemError(409, *split_hint(str(error))) from error
        runtime.enqueue(keys)
        return Accepted(keys=tuple(str(key) for key in keys), token=token)

    conflict: dict[int | str, dict[str, Any]] = {409: {"model": Problem}}

    @router.post(f"{one}/sync", status_code=202, responses=conflict)
    async def sync(key: ObjectKey, user: User = "api") -> Accepted:
        """Look at the object now; a failed one gets another try."""
        found = await find(runtime, key)
        reason = suspension_of(found, utc_now())
        if reason:
            raise ProblemError(
                409, f"{key.short} is suspended: {reason}", f"windlass resume {key.short}"
            )
        token = uuid.uuid4().hex
        return await ask(SyncObject(key, token, user), token)

    @router.post(f"{one}/suspend", status_code=202, responses=conflict)
    async def suspend(key: ObjectKey, body: SuspendBody, user: User = "api") -> Accepted:
        """Stop acting on the object until it is resumed; observing goes on."""
        if not body.reason.strip():
            raise ProblemError(422, "a suspension needs a reason", "say why, for those who find it")
        await find(runtime, key)
        return await ask(SuspendObject(key, body.reason.strip(), user))

    @router.post(f"{one}/resume", status_code=202, responses=conflict)
    async def resume(key: ObjectKey, user: User = "api") -> Accepted:
        """Act on the object again."""
        found = await find(runtime, key)
        if not found.suspended and suspension_of(found, utc_now()):
            raise ProblemError(
                409,
                f"{key.short} is suspended by its own policy.suspend at {found.path}:{found.line}",
                "remove it there and commit",
            )
        return await ask(ResumeObject(key, user))

    @router.post(f"{one}/transfer", status_code=202, responses=conflict)
    async def transfer(key: ObjectKey, body: TransferBody, user: User = "api") -> Accepted:
        """Let another source that declares the object own it."""
        await find(runtime, key)
        accepted = await ask(Transfer(key, body.to, user))
        await runtime.transferred(body.to)
        return accepted

    @router.delete(one, status_code=202, responses=conflict)
    async def delete(key: ObjectKey, user: User = "api") -> Accepted:
        """Delete an object whose document is gone; refused while a source declares it."""
        await find(runtime, key)
        return await ask(Delete(key, user))

    @router.post("/approve", status_code=202, responses=conflict)
    async def approve(body: ApproveBody, user: User = "api") -> Accepted:
        """Let a revision prune what the breaker held back."""
        return await ask(Approve(body.revision, user))
