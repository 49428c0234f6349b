"""The one way in for inference requests: HTTP, gRPC and the bus all come through here.

Outside the eight hops. ``Inference.infer`` takes a Deployment's name, headers and a body in the
Open Inference Protocol v2, and gives status, headers and body. ``Inference.submit`` is the same
with a callback, for callers that live in the event loop and count microseconds. All requests of a
model meet in its queue, wherever they come from, and share batches.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from windlass.serving.batching import Ask, Batch
from windlass.serving.deployments import Deployment, Deployments, Served
from windlass.serving.http import JSON_LENGTH, Limits, Reply, refusal, unpack
from windlass.serving.numbers import Requests
from windlass.serving.oip import OipError
from windlass.serving.reading import Question
from windlass.serving.writing import written

Answer = Callable[[Reply], None]


class Form(Protocol):
    """How a protocol puts tensors into a body."""

    def read(self, served: Served, body: bytes) -> Question:
        """The tensors of a request. Raises OipError."""

    def write(
        self, served: Served, question: Question, batch: Batch, start: int, stop: int
    ) -> Reply:
        """The answer that lies in these rows of a batch."""


class OipForm:
    """The Open Inference Protocol v2, JSON or with binary tensors behind it."""

    def __init__(self, json_length: int | None = None) -> None:
        self._json_length = json_length

    def read(self, served: Served, body: bytes) -> Question:
        return served.reader.read(body, self._json_length)

    def write(
        self, served: Served, question: Question, batch: Batch, start: int, stop: int
    ) -> Reply:
        return written(served.labels, question, batch, start, stop)


class Call(Ask):
    """One request on its way through a queue."""

    __slots__ = (
        "_begun",
        "_deployment",
        "_form",
        "_question",
        "_read",
        "_reply",
        "_served",
        "_still",
    )

    def __init__(
        self, deployment: Deployment, served: Served, form: Form, question: Question
    ) -> None:
        inputs = question.inputs
        super().__init__(inputs, question.names, served.queue.rows_of(inputs))
        self._deployment = deployment
        self._served = served
        self._form = form
        self._question = question
        if question.timeout is not None:
            self.expires = self.arrived + question.timeout

    def told(self, begun: float, read: float, reply: Answer, still: Callable[[], bool]) -> None:
        """Say when the request came, whom to answer, and how to see that somebody waits."""
        self._begun, self._read, self._reply, self._still = begun, read, reply, still

    @property
    def wanted(self) -> bool:
        return self._still()

    def done(self, batch: Batch, start: int, stop: int) -> None:
        self._reply(self._form.write(self._served, self._question, batch, start, stop))
        now = time.perf_counter()
        runs = self._served.runs
        runs.successes += 1
        runs.rows += stop - start
        seconds = now - self._begun
        runs.seconds += seconds
        runs.reading += self.arrived - self._read
        runs.queue += batch.started - self.arrived
        runs.compute += batch.ended - batch.started
        runs.writing += now - batch.ended
        runs.last = now
        runs.total.add(seconds)
        self._deployment.requests.ended(200, seconds)

    def fail(self, status: int, message: str) -> None:
        headers = {}
        if status == 429:
            wait = self._served.queue.predicted_wait()
            headers["retry_after"] = str(max(1, math.ceil(wait)))
        text = f"model {self._deployment.name}: {message}"
        if not self._still():
            status = 499
        self._reply(refusal(status, text, **headers))
        seconds = time.perf_counter() - self._begun
        self._served.runs.failed(status, seconds)
        self._deployment.requests.ended(status, seconds)


def _always() -> bool:
    return True


class Inference:
    """Finds the version that answers, reads the request for it, and queues it."""

    def __init__(self, deployments: Deployments, limits: Limits) -> None:
        self.deployments = deployments
        self._limits = limits
        self.strangers = Requests()
        """Requests for models that are not here."""

    async def infer(
        self, deployment: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Answer one request in the Open Inference Protocol: (status, headers, body).

        Of the headers, whose names are in lower case, those that say how the body is made count.
        Never raises but for a cancellation, after which the request leaves the queue.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        form = form_of(headers)
        plain = unpack(body, headers.get("content-encoding", ""), self._limits.body)
        if isinstance(form, Reply) or isinstance(plain, Reply):
            reply = form if isinstance(form, Reply) else plain
            assert isinstance(reply, Reply)
        else:

            def answer(reply: Reply) -> None:
                if not future.done():
                    future.set_result(reply)

            def still() -> bool:
                return not future.done()

            self.submit(form, (deployment, None), plain, time.perf_counter(), answer, still)
            reply = await future
        kinds = {"content-type": reply.content_type}
        if reply.json_length is not None:
            kinds[JSON_LENGTH] = str(reply.json_length)
        return reply.status, {**kinds, **(reply.headers or {})}, reply.body

    def submit(
        self,
        form: Form,
        model: tuple[str, str | None],
        body: bytes,
        begun: float,
        answer: Answer,
        still: Callable[[], bool] = _always,
    ) -> None:
        """Answer one request by calling ``answer``, now or later, once; in the event loop.

        ``model`` is a name and, if the client insists, a version; ``begun`` is when the request
        began, by ``time.perf_counter``; ``still`` says whether anybody waits for the answer.
        """
        read = time.perf_counter()
        found = self.find(*model)
        if isinstance(found, Reply):
            self.refused(model[0], found.status, read - begun)
            answer(found)
            return
        deployment, served = found
        try:
            question = form.read(served, body)
        except OipError as error:
            answer(refusal(400, f"model {deployment.name}: {error}"))
            seconds = time.perf_counter() - begun
            served.runs.failed(400, seconds)
            deployment.requests.ended(400, seconds)
            return
        call = Call(deployment, served, form, question)
        call.told(begun, read, answer, still)
        served.queue.put(call)

    def refused(self, name: str, status: int, seconds: float) -> None:
        """Count a request that no version of a model has seen."""
        deployment = self.deployments.get(name)
        (self.strangers if deployment is None else deployment.requests).ended(status, seconds)

    def find(self, name: str, version: str | None = None) -> tuple[Deployment, Served] | Reply:
        """The version that answers, or the reply that says why there is none."""
        deployment = self.deployments.get(name)
        if deployment is None:
            known = ", ".join(each.name for each in self.deployments.all()) or "none"
            text = f"no model {json.dumps(name)} is served here; there are: {known}"
            return refusal(404, text)
        served = deployment.choose(version)
        if served is not None:
            return deployment, served
        if deployment.served is None:
            return self._not_ready(deployment)
        there = deployment.served.order.version
        text = f"model {name} has no version {json.dumps(version)}; {there} serves"
        return refusal(404, text)

    def _not_ready(self, deployment: Deployment) -> Reply:
        name = deployment.name
        if deployment.failure is None:
            text = f"model {name} is being loaded; try again"
        else:
            text = f"model {name} could not be loaded: {deployment.failure.message}"
        return refusal(503, text, retry_after=str(self._limits.retry_after))


_PLAIN = OipForm()


def form_of(headers: Mapping[str, str]) -> OipForm | Reply:
    """How the body of a v2 request is made, by its headers; a refusal if they make no sense."""
    text = headers.get(JSON_LENGTH)
    if text is None:
        return _PLAIN
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        said = json.dumps(text)
        message = f"Inference-Header-Content-Length is {said}; it must be a number of bytes"
        return refusal(400, message)
    return OipForm(int(text))
