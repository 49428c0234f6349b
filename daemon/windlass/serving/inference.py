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
import random
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from windlass.serving.access import Keys, credential_of
from windlass.serving.batching import Ask, Batch
from windlass.serving.deployments import Deployments
from windlass.serving.http import JSON_LENGTH, Limits, Reply, refusal, unpack
from windlass.serving.numbers import Requests
from windlass.serving.oip import OipError
from windlass.serving.reading import Question
from windlass.serving.served import Deployment, Served
from windlass.serving.shadow import Copy
from windlass.serving.usage import Usage
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


def _always() -> bool:
    return True


class Caller(NamedTuple):
    """Who asks."""

    answer: Answer
    still: Callable[[], bool] = _always
    """Whether anybody waits for the answer."""
    credential: str | None = None
    """The API key, if there is one."""


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
        "_used",
        "copy",
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
        self.copy: Copy | None = None
        if question.timeout is not None:
            self.expires = self.arrived + question.timeout

    def told(self, begun: float, read: float, caller: Caller, used: list[int]) -> None:
        """Say when the request came, whom to answer, and where to count it."""
        self._begun, self._read, self._used = begun, read, used
        self._reply, self._still = caller.answer, caller.still

    @property
    def wanted(self) -> bool:
        return self._still()

    def done(self, batch: Batch, start: int, stop: int) -> None:
        self._reply(self._form.write(self._served, self._question, batch, start, stop))
        if self.copy is not None:
            self.copy.answered(batch.part(start, stop))
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
        self._used[0] += 1
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
        self._used[1] += 1
        self._deployment.requests.ended(status, seconds)


def _copied(deployment: Deployment, form: Form, body: bytes) -> Copy | None:
    """Send a copy to the version that is watched, if there is one and the draw says so."""
    trial, candidate = deployment.trial, deployment.candidate
    if trial is None or candidate is None or trial.rollout.way != "shadow":
        return None
    if random.random() * 100 >= trial.rollout.weight:
        return None
    try:
        copy = Copy(trial, candidate, form.read(candidate, body))
    except OipError:
        candidate.runs.failed(400, 0.0)
        return None
    candidate.queue.put(copy)
    return copy


class Inference:
    """Finds the version that answers, reads the request for it, and queues it."""

    def __init__(self, deployments: Deployments, limits: Limits, keys: Keys, usage: Usage) -> None:
        self.deployments = deployments
        self.keys = keys
        self.usage = usage
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

            caller = Caller(answer, still, credential_of(headers))
            self.submit(form, (deployment, None), plain, time.perf_counter(), caller)
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
        caller: Caller,
    ) -> None:
        """Answer one request by way of ``caller.answer``, now or later, once; in the event loop.

        ``model`` is a name and, if the client insists, a version; ``begun`` is when the request
        began, by ``time.perf_counter``.
        """
        read = time.perf_counter()
        found = self.find(*model)
        if isinstance(found, Reply):
            self.refused(model[0], found.status, read - begun)
            caller.answer(found)
            return
        deployment, served = found
        key = self.admit(deployment, served, caller.credential)
        if isinstance(key, Reply):
            self.refused(model[0], key.status, read - begun)
            caller.answer(key)
            return
        used = self.usage.of(deployment.name, key)
        try:
            question = form.read(served, body)
        except OipError as error:
            caller.answer(refusal(400, f"model {deployment.name}: {error}"))
            used[1] += 1
            seconds = time.perf_counter() - begun
            served.runs.failed(400, seconds)
            deployment.requests.ended(400, seconds)
            return
        call = Call(deployment, served, form, question)
        call.told(begun, read, caller, used)
        if deployment.trial is not None and served is deployment.served:
            call.copy = _copied(deployment, form, body)
        served.queue.put(call)

    def admit(self, deployment: Deployment, served: Served, credential: str | None) -> str | Reply:
        """The name of the key that may ask, empty where none is needed, or the refusal."""
        if served.order.options.access != "keys":
            return ""
        key = self.keys.check(credential, served.order.key)
        if isinstance(key, Reply):
            self.usage.of(deployment.name, "")[1] += 1
        return key

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
