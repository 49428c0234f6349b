"""Public HTTP: which request is whose. Outside the eight hops.

This is the way of inference requests, and the daemon has no part in it. Routing and admission only;
``http`` speaks to sockets, ``inference`` answers.

Choices where the protocol is silent: a version is the first 12 hex digits of the digest in force,
or ``1``, which stands for whatever is in force; any other is 404. A model that is not ready answers
503, an unknown one 404. A process without a Deployment is ready: it can serve.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import unquote

import structlog

from windlass.serving.access import credential_of
from windlass.serving.connection import Exchange
from windlass.serving.http import Head, Limits, Reply, refusal, unpack
from windlass.serving.inference import Form, Inference, form_of
from windlass.serving.metrics import Metrics
from windlass.serving.pages import Answer, Pages
from windlass.serving.rows import CSV, TEXT, LinesForm, RowsForm

_UNSAID = "application/x-www-form-urlencoded"
"""What curl says of any body."""

Page = Callable[[Head, bytes], Answer]

log = structlog.get_logger()


@dataclass(frozen=True)
class Route:
    """What a path and a method mean."""

    page: Page | None = None
    """Answers at once; None for an inference."""
    model: tuple[str, str | None] = ("", None)
    """Of an inference: the name and, if the client insists, the version."""
    form: Form | Reply | None = None
    """Of an inference: how the body is made, or what is wrong; None if the body shows it."""
    credential: str | None = None
    """Of an inference: the API key in the head."""
    plain: Form | None = None
    """Of an inference: the form, if the head says everything and the body is not packed."""


class Front:
    """The routes, and how many requests are let in."""

    def __init__(
        self, inference: Inference, pages: Pages, metrics: Metrics, limits: Limits
    ) -> None:
        self._inference = inference
        self._pages = pages
        self._metrics = metrics
        self._limits = limits
        self._promises: set[asyncio.Future[None]] = set()

    def begin(self, exchange: Exchange) -> None:
        """Find the route, and count an inference in."""
        head = exchange.head
        route = head.route
        if not isinstance(route, Route):
            head.route = route = self._route(head)
        if route.page is None:
            if self._metrics.under_way >= self._limits.under_way:
                return
            self._metrics.under_way += 1
            exchange.begun = time.perf_counter()

    def take(self, exchange: Exchange, body: bytes) -> None:
        """Answer, now or later, a request whose body came with its head."""
        route, metrics = exchange.head.route, self._metrics
        if (
            not isinstance(route, Route)
            or not route.plain
            or metrics.under_way >= self._limits.under_way
        ):
            self.begin(exchange)
            self.answer(exchange, body)
            return
        metrics.under_way += 1
        exchange.begun = now = time.perf_counter()
        try:
            self._inference.submit(route.plain, route.model, body, now, exchange, route.credential)
        except Exception as error:
            self._fault(exchange, error)

    def abandon(self, exchange: Exchange) -> None:
        """The client has gone, or was refused, before its body was there."""
        if exchange.begun:
            route = exchange.head.route
            assert isinstance(route, Route)
            self._metrics.under_way -= 1
            seconds = time.perf_counter() - exchange.begun
            self._inference.refused(route.model[0], 499, seconds)
            exchange.begun = 0.0

    def answer(self, exchange: Exchange, body: bytes) -> None:
        """Answer, now or later."""
        route = exchange.head.route
        assert isinstance(route, Route)
        try:
            if route.page is not None:
                page = route.page(exchange.head, body)
                if isinstance(page, Reply):
                    exchange.reply(page)
                else:
                    self._promise(exchange, page)
            else:
                self._infer(exchange, route, body)
        except Exception as error:
            self._fault(exchange, error)

    def _promise(self, exchange: Exchange, page: Awaitable[Reply]) -> None:
        async def keep() -> None:
            try:
                exchange.reply(await page)
            except Exception as error:
                self._fault(exchange, error)

        task = asyncio.ensure_future(keep())
        self._promises.add(task)
        task.add_done_callback(self._promises.discard)

    def _fault(self, exchange: Exchange, error: Exception) -> None:
        log.error("fault", path=exchange.head.path, exc_info=error)
        text = "a fault in Windlass; the log of the serving process has the details"
        exchange.reply(refusal(500, text))

    def ended(self, exchange: Exchange, reply: Reply) -> None:
        """An inference has its answer."""
        self._metrics.under_way -= 1
        if self._limits.logged and random.random() < self._limits.logged:
            model = self._model_of(exchange.head)[0]
            _log(exchange, model, reply)

    def _infer(self, exchange: Exchange, route: Route, body: bytes) -> None:
        if not exchange.begun:
            text = f"{self._metrics.under_way} requests are waiting already; try again"
            self._inference.refused(route.model[0], 503, 0.0)
            exchange.reply(refusal(503, text, retry_after=str(self._limits.retry_after)))
            return
        head = exchange.head
        model = self._model_of(head)
        plain: bytes | Reply = body
        if "content-encoding" in head.headers:
            plain = unpack(body, head.headers["content-encoding"], self._limits.body)
        form = plain if isinstance(plain, Reply) else route.form or self._seen(head, plain)
        if isinstance(form, Reply) or isinstance(plain, Reply):
            reply = form if isinstance(form, Reply) else refusal(400, "the body has no form")
            seconds = time.perf_counter() - exchange.begun
            self._inference.refused(model[0], reply.status, seconds)
            exchange.reply(reply)
            return
        self._inference.submit(form, model, plain, exchange.begun, exchange, route.credential)

    def _model_of(self, head: Head) -> tuple[str, str | None]:
        """SageMaker's routes name no model: the one that is there, or the header says which."""
        if isinstance(head.route, Route) and head.route.model[0]:
            return head.route.model
        names = [each.name for each in self._inference.deployments.all()]
        named = head.headers.get("x-amzn-sagemaker-target-model")
        return (named or (names[0] if len(names) == 1 else ""), None)

    def _seen(self, head: Head, body: bytes) -> Form | Reply:
        """The form of a body at a route that takes several."""
        kind, _, parameters = head.headers.get("content-type", "").partition(";")
        kind = kind.strip().lower()
        if kind in (CSV, TEXT):
            return LinesForm(kind)
        if kind == "application/vnd.sagemaker-triton.binary+json":
            name, _, size = parameters.strip().partition("=")
            if name != "json-header-size":
                return refusal(400, f"Content-Type {kind} needs ;json-header-size=BYTES")
            return form_of({"inference-header-content-length": size})
        said = kind not in ("", _UNSAID) and "json" not in kind
        if head.path == "/invocations" and (said or b'"datatype"' in body):
            return form_of(head.headers)
        return RowsForm()

    def _route(self, head: Head) -> Route:
        """What the path and the method mean; also what is wrong with them."""
        parts = [unquote(part) for part in head.path.split("/")[1:]]
        if not head.path.startswith("/"):
            parts = [""]
        found = self._infers(head, parts)
        if found is not None:
            if head.method == "POST":
                clear = found.model[0] and "content-encoding" not in head.headers
                plain = None if isinstance(found.form, Reply) or not clear else found.form
                return replace(found, credential=credential_of(head.headers), plain=plain)
            return _not_allowed(head, "POST")
        page = self._pages.find(parts)
        if page is None:
            return _no_route(head)
        if head.method not in page.methods:
            return _not_allowed(head, ", ".join(sorted(page.methods)))
        return Route(page=page.answer)

    def _infers(self, head: Head, parts: list[str]) -> Route | None:
        match parts:
            case ["v2", "models", name, "infer"]:
                return Route(model=(name, None), form=form_of(head.headers))
            case ["v2", "models", name, "versions", version, "infer"]:
                return Route(model=(name, version), form=form_of(head.headers))
            case ["v1", "models", action] if action.endswith(":predict") and len(action) > 8:
                return Route(model=(action.removesuffix(":predict"), None))
            case ["invocations"]:
                return Route()
        return None


def _log(exchange: Exchange, model: str, reply: Reply) -> None:
    """One line of the access log, with the trace that the client belongs to, if it says so."""
    log.info(
        "request",
        model=model,
        status=reply.status,
        seconds=round(time.perf_counter() - exchange.begun, 6),
        bytes=len(reply.body),
        traceparent=exchange.head.headers.get("traceparent", "")[:55],
    )


def _not_allowed(head: Head, allowed: str) -> Route:
    text = f"{head.path} takes {allowed}, not {head.method}"
    reply = refusal(405, text, allow=allowed)
    return Route(page=lambda head, body: reply)


def _no_route(head: Head) -> Route:
    path = json.dumps(head.path)[1:-1][:200]
    reply = refusal(
        404, f"there is no {path} here; see /v2, /v2/models/NAME and /v2/models/NAME/infer"
    )
    return Route(page=lambda head, body: reply)
