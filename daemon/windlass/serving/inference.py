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
from collections.abc import Mapping
from typing import Protocol

from windlass.serving.access import Keys, credential_of
from windlass.serving.batch import Ask, Batch, Caller
from windlass.serving.deployments import Deployments
from windlass.serving.http import JSON_LENGTH, Limits, Reply, refusal, unpack
from windlass.serving.numbers import Requests
from windlass.serving.oip import OipError
from windlass.serving.reading import Question
from windlass.serving.served import Deployment, Served
from windlass.serving.shadow import Copy
from windlass.serving.usage import Usage
from windlass.serving.writing import written


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
        if self._json_length is None:
            return served.reader.read_json(body)
        return served.reader.read(body, self._json_length)

    def write(
        self, served: Served, question: Question, batch: Batch, start: int, stop: int
    ) -> Reply:
        return written(served.labels, question, batch, start, stop)


class Waiting:
    """A caller that is a coroutine."""

    def __init__(self) -> None:
        self._reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    @property
    def gone(self) -> bool:
        return self._reply.done()

    def reply(self, reply: Reply) -> None:
        if not self._reply.done():
            self._reply.set_result(reply)

    async def answer(self) -> Reply:
        """The answer, when it is there. Whoever cancels this is gone."""
        return await self._reply


class Call(Ask):
    """One request on its way through a queue."""

    __slots__ = (
        "_deployment",
        "_form",
        "_served",
        "_used",
        "begun",
        "copy",
        "read",
    )

    def __init__(
        self,
        deployment: Deployment,
        served: Served,
        form: Form,
        question: Question,
        caller: Caller,
        used: list[int],
        begun: float,
        read: float,
    ) -> None:
        Ask.__init__(self, question, served.queue.gathers, time.perf_counter(), caller)
        self._deployment = deployment
        self._served = served
        self._form = form
        self._used = used
        self.begun = begun
        """When the request came, by ``time.perf_counter`` as ``read``: when its reading began."""
        self.read = read
        self.copy: Copy | None = None
        timeout = question.wish.timeout
        if timeout is not None:
            self.expires = self.arrived + timeout

    def done(self, batch: Batch, start: int, stop: int) -> None:
        assert self.caller is not None
        self.caller.reply(self._form.write(self._served, self.question, batch, start, stop))
        self._used[0] += 1
        batch.answered.append(self)
        if self.copy is not None:
            self.copy.answered(batch.part(start, stop))

    def count(self, batch: Batch) -> None:
        now = time.perf_counter()
        calls = [call for call in batch.answered if isinstance(call, Call)]
        begun = [call.begun for call in calls]
        arrived = sum([call.arrived for call in calls])
        number = len(calls)
        runs = self._served.runs
        runs.successes += number
        runs.rows += sum([call.rows or 1 for call in calls])
        runs.reading += arrived - sum([call.read for call in calls])
        runs.queue += number * batch.started - arrived
        runs.compute += number * (batch.ended - batch.started)
        runs.writing += number * (now - batch.ended)
        runs.last = now
        spent = [now - each for each in begun]
        runs.seconds += sum(spent)
        runs.total.add_all(spent)
        self._deployment.requests.answered(spent)

    def fail(self, status: int, message: str) -> None:
        headers = {}
        if status == 429:
            wait = self._served.queue.predicted_wait()
            headers["retry_after"] = str(max(1, math.ceil(wait)))
        text = f"model {self._deployment.name}: {message}"
        assert self.caller is not None
        if self.caller.gone:
            status = 499
        self.caller.reply(refusal(status, text, **headers))
        seconds = time.perf_counter() - self.begun
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
        form = form_of(headers)
        plain = unpack(body, headers.get("content-encoding", ""), self._limits.body)
        if isinstance(form, Reply) or isinstance(plain, Reply):
            reply = form if isinstance(form, Reply) else plain
            assert isinstance(reply, Reply)
        else:
            waiting, key = Waiting(), credential_of(headers)
            self.submit(form, (deployment, None), plain, time.perf_counter(), waiting, key)
            reply = await waiting.answer()
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
        credential: str | None,
    ) -> None:
        """Answer one request by way of ``caller.reply``, now or later, once; in the event loop.

        ``model`` is a name and, if the client insists, a version; ``begun`` is when the request
        began, by ``time.perf_counter``; ``credential`` is the API key, if there is one.
        """
        read = time.perf_counter()
        name, version = model
        deployment = self.deployments.get(name)
        served = None
        if deployment is not None and deployment.candidate is None and version is None:
            served = deployment.served  # as nearly all find it
        if deployment is None or served is None:
            found = self.find(name, version)
            if isinstance(found, Reply):
                self.refused(name, found.status, read - begun)
                caller.reply(found)
                return
            deployment, served = found
        key = self.admit(deployment, served, credential) if served.guarded else ""
        if isinstance(key, Reply):
            self.refused(name, key.status, read - begun)
            caller.reply(key)
            return
        used = self.usage.of(name, key)
        try:
            question = form.read(served, body)
        except OipError as error:
            caller.reply(refusal(400, f"model {deployment.name}: {error}"))
            used[1] += 1
            seconds = time.perf_counter() - begun
            served.runs.failed(400, seconds)
            deployment.requests.ended(400, seconds)
            return
        call = Call(deployment, served, form, question, caller, used, begun, read)
        if deployment.trial is not None and served is deployment.served:
            call.copy = _copied(deployment, form, body)
        served.queue.put(call)

    def admit(self, deployment: Deployment, served: Served, credential: str | None) -> str | Reply:
        """The name of the key that may ask, empty where none is needed, or the refusal."""
        if not served.guarded:
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
        if deployment is not None:
            served = deployment.choose(version)
            if served is not None:
                return deployment, served
        else:
            known = ", ".join(each.name for each in self.deployments.all()) or "none"
            text = f"no model {json.dumps(name)} is served here; there are: {known}"
            return refusal(404, text)
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
