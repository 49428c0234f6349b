"""Routes for what backends hold and no object declares: look at it, and remove what is named."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from windlass.api.problems import ProblemError
from windlass.api.runtime import Runtime
from windlass.api.views import OrphanList, OrphanName, OrphanView, Problem
from windlass_adapters.base import Orphan


def routes(runtime: Runtime) -> APIRouter:
    """``/api/v1/orphans``."""
    router = APIRouter(prefix="/api/v1", tags=["orphans"], responses={503: {"model": Problem}})
    problems: dict[int | str, dict[str, Any]] = {
        404: {"model": Problem},
        409: {"model": Problem},
    }

    @router.get("/orphans")
    async def list_orphans() -> OrphanList:
        """Everything of this installation that no object declares, on each open target."""
        report = await runtime.orphans.find()
        return OrphanList(
            orphans=tuple(_view(target, orphan) for target, orphan in report.left),
            unasked=dict(report.unasked),
        )

    @router.post("/orphans/remove", status_code=202, responses=problems)
    async def remove(body: OrphanName) -> OrphanView:
        """Remove or stop one of them; looked for again before, so that nothing declared goes."""
        try:
            found = await runtime.orphans.remove(body.target, body.role, body.name)
        except LookupError as error:
            raise ProblemError(
                404,
                str(error) or f"{body.role}/{body.name} is not left behind on {body.target}",
                "see what is: windlass orphans",
            ) from error
        return _view(body.target, found)

    return router


def _view(target: str, orphan: Orphan) -> OrphanView:
    return OrphanView(
        target=target,
        role=orphan.role,
        name=orphan.name,
        made_for=orphan.ref,
        since=orphan.since,
        cost=orphan.cost,
        dollars_an_hour=orphan.hourly,
        free=orphan.free,
    )
