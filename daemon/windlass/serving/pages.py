"""What is answered at once: health, metadata, statistics, the repository, numbers.

Outside the eight hops. The Open Inference Protocol v2 with Triton's extensions for statistics,
configuration and the repository; the V1 form's status; SageMaker's ``/ping``.

The repository extension is guarded, since the specs say what is served: it lists and shows, and
``load`` of what is served already is success. What would depart from the specs is refused, with the
field to change.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from windlass.serving.access import credential_of
from windlass.serving.deployments import Deployments
from windlass.serving.http import Head, Reply, json_reply, refusal
from windlass.serving.inference import Inference
from windlass.serving.metrics import Metrics, page_of
from windlass.serving.oip import PLATFORM, model_metadata, server_metadata
from windlass.serving.served import Deployment, Served
from windlass.serving.snapshot import Snapshot, VersionNumbers
from windlass.serving.tensors import TensorSpec

GET = frozenset({"GET", "HEAD"})
POST = frozenset({"POST"})
Answer = Reply | Awaitable[Reply]
"""Of a page that must ask other processes first, a promise."""
Whole = Callable[[], Awaitable[Snapshot]]
"""Gives the numbers of all processes of the Target."""
_TRITON_TYPES = {"FP16": "TYPE_FP16", "BYTES": "TYPE_STRING"}


@dataclass(frozen=True)
class Page:
    """One route that asks no model."""

    answer: Callable[[Head, bytes], Answer]
    methods: frozenset[str] = GET


class Pages:
    """All of them."""

    def __init__(
        self,
        inference: Inference,
        metrics: Metrics,
        version: str,
        whole: Whole | None = None,
    ) -> None:
        """``whole`` is for a process that is one of several."""
        self._inference = inference
        self._deployments = inference.deployments
        self._metrics = metrics
        self._version = version
        self._whole = whole

    def find(self, parts: list[str]) -> Page | None:
        """The page of a path, cut at its slashes."""
        match parts:
            case ["v2"] | ["v2", ""]:
                return _fixed(server_metadata(self._version))
            case ["v2", "health", "live"]:
                return _fixed({"live": True})
            case ["v2", "health", "ready"]:
                return _fixed({"ready": True})
            case ["metrics"]:
                return Page(lambda head, body: self._scrape())
            case ["ping"]:
                return Page(lambda head, body: self._ping())
            case ["v1", "models"]:
                return Page(lambda head, body: self._list())
            case ["v1", "models", name]:
                return Page(lambda head, body: self._v1(name))
            case ["v2", "models", "stats"]:
                return Page(lambda head, body: self._all_statistics())
            case ["v2", "models", name]:
                return self._of_model(name, None, "metadata")
            case ["v2", "models", name, "versions", version]:
                return self._of_model(name, version, "metadata")
            case ["v2", "models", name, "versions", version, "ready" | "stats" | "config" as rest]:
                return self._of_model(name, version, rest)
            case ["v2", "models", name, "ready" | "stats" | "config" as rest]:
                return self._of_model(name, None, rest)
            case ["v2", "repository", "index"]:
                return Page(self._index, POST)
            case ["v2", "repository", "models", name, "load" | "unload" as wish]:
                return Page(lambda head, body: load_or_unload(self._inference, name, wish), POST)
        return None

    def _of_model(self, name: str, version: str | None, rest: str) -> Page:
        views: Mapping[str, Callable[[Deployment, Served], object]] = {
            "metadata": lambda d, s: model_metadata(d.name, s.order.version, s.model.signature),
            "ready": lambda d, s: {"name": d.name, "ready": True},
            "config": configuration,
        }

        def answer(head: Head, body: bytes) -> Answer:
            found = self._inference.find(name, version)
            if isinstance(found, Reply):
                return found
            if rest != "ready":
                key = self._inference.admit(*found, credential_of(head.headers))
                if isinstance(key, Reply):
                    return key
            if rest == "stats":
                served = found[1].order.version
                return self._of_all(lambda now: _statistics_page(now, name, served))
            return json_reply(200, views[rest](*found))

        return Page(answer)

    def _of_all(self, view: Callable[[Snapshot], Reply]) -> Answer:
        """A page of what all processes have counted; at once where there is but this one."""
        if self._whole is None:
            return view(self._metrics.snapshot())
        return _promised(self._whole(), view)

    def _scrape(self) -> Answer:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return self._of_all(lambda now: Reply(200, page_of(now), kind))

    def _ping(self) -> Reply:
        """Ready for SageMaker when something is served."""
        if any(each.served is not None for each in self._deployments.all()):
            return Reply(200, b"")
        return refusal(503, "no model is served yet")

    def _list(self) -> Reply:
        return json_reply(200, {"models": [each.name for each in self._deployments.all()]})

    def _v1(self, name: str) -> Reply:
        found = self._inference.find(name)
        if isinstance(found, Reply):
            return found
        status = {"error_code": "OK", "error_message": ""}
        version = {"version": found[1].order.version, "state": "AVAILABLE", "status": status}
        return json_reply(200, {"name": name, "ready": True, "model_version_status": [version]})

    def _all_statistics(self) -> Answer:
        return self._of_all(_statistics_page)

    def _index(self, head: Head, body: bytes) -> Reply:
        try:
            wish = json.loads(body or b"{}")
            ready_only = bool(wish.get("ready", False))
        except (ValueError, AttributeError):
            return refusal(400, 'the body is no JSON object; send {} or {"ready": true}')
        return json_reply(200, index(self._deployments, ready_only=ready_only))


async def _promised(whole: Awaitable[Snapshot], view: Callable[[Snapshot], Reply]) -> Reply:
    return view(await whole)


def _statistics_page(now: Snapshot, name: str | None = None, version: str = "") -> Reply:
    return json_reply(200, {"model_stats": all_statistics(now, name, version)})


def _fixed(document: object) -> Page:
    reply = json_reply(200, document)
    return Page(lambda head, body: reply)


def index(deployments: Deployments, *, ready_only: bool) -> list[dict[str, str]]:
    """The repository extension's list of what is served."""
    entries = [_entry(each) for each in deployments.all()]
    return [each for each in entries if each["state"] == "READY" or not ready_only]


def load_or_unload(inference: Inference, name: str, wish: str) -> Reply:
    """The repository extension's orders: success where nothing would change, else refused."""
    found = inference.find(name)
    if isinstance(found, Reply):
        return found
    if wish == "load":
        return json_reply(200, {})
    text = "is served because its spec says so; remove the document to end that"
    return refusal(403, f"model {name} {text}")


def _entry(deployment: Deployment) -> dict[str, str]:
    served, failure = deployment.served, deployment.failure
    if served is not None:
        state, version = "READY", served.order.version
    else:
        state, version = "LOADING" if failure is None else "UNAVAILABLE", ""
    reason = failure.message if failure is not None else ""
    return {"name": deployment.name, "version": version, "state": state, "reason": reason}


def all_statistics(
    now: Snapshot, name: str | None = None, version: str = ""
) -> list[dict[str, object]]:
    """Triton's statistics of every version, or of one."""
    return [
        statistics(model, each, numbers)
        for model, deployment in now.deployments.items()
        for each, numbers in deployment.versions.items()
        if name is None or (model, each) == (name, version)
    ]


def statistics(name: str, version: str, numbers: VersionNumbers) -> dict[str, object]:
    """Triton's statistics of one version; times in nanoseconds."""
    runs = numbers.runs

    def part(count: int, seconds: float) -> dict[str, int]:
        return {"count": count, "ns": round(seconds * 1e9)}

    ok = runs.successes
    return {
        "name": name,
        "version": version,
        "last_inference": numbers.last_answer_ms(),
        "inference_count": runs.rows,
        "execution_count": numbers.executions,
        "inference_stats": {
            "success": part(ok, runs.seconds),
            "fail": part(runs.failures, runs.failed_seconds),
            "queue": part(ok, runs.queue),
            "compute_input": part(ok, runs.reading),
            "compute_infer": part(ok, runs.compute),
            "compute_output": part(ok, runs.writing),
            "cache_hit": part(0, 0),
            "cache_miss": part(0, 0),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": part(int(count), 0),
                "compute_infer": part(int(count), seconds),
                "compute_output": part(int(count), 0),
            }
            for rows, (count, seconds) in sorted(numbers.batches.items())
        ],
    }


def configuration(deployment: Deployment, served: Served) -> dict[str, object]:
    """What Triton calls a model's configuration, as far as there is one here."""
    model, most = served.model, served.queue.most
    batched = most > 1

    def tensor(spec: TensorSpec) -> dict[str, object]:
        shape = spec.shape[1:] if batched else spec.shape
        name = _TRITON_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}")
        return {"name": spec.name, "data_type": name, "dims": list(shape)}

    return {
        "name": deployment.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": most if batched else 0,
        "input": [tensor(spec) for spec in model.signature.inputs],
        "output": [tensor(spec) for spec in model.signature.outputs],
        "dynamic_batching": {},
        "instance_group": [
            {"name": deployment.name, "kind": "KIND_CPU", "count": served.queue.lanes}
        ],
    }
