"""What is answered at once: health, metadata, statistics, the repository, numbers.

Outside the eight hops. The Open Inference Protocol v2 with Triton's extensions for statistics,
configuration and the repository; the V1 form's status; SageMaker's ``/ping``.

The repository extension is guarded, since the specs say what is served: it lists and shows, and
``load`` of what is served already is success. What would depart from the specs is refused, with the
field to change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from windlass.serving.deployments import Deployment, Deployments, Served
from windlass.serving.http import Head, Reply, json_reply, refusal
from windlass.serving.inference import Inference
from windlass.serving.metrics import Metrics
from windlass.serving.oip import PLATFORM, model_metadata, server_metadata
from windlass.serving.tensors import TensorSpec

GET = frozenset({"GET", "HEAD"})
POST = frozenset({"POST"})
_TRITON_TYPES = {"FP16": "TYPE_FP16", "BYTES": "TYPE_STRING"}


@dataclass(frozen=True)
class Page:
    """One route that is answered at once."""

    answer: Callable[[Head, bytes], Reply]
    methods: frozenset[str] = GET


class Pages:
    """All of them."""

    def __init__(self, inference: Inference, metrics: Metrics, version: str) -> None:
        self._inference = inference
        self._deployments = inference.deployments
        self._metrics = metrics
        self._version = version

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
            "stats": lambda d, s: {"model_stats": [statistics(d, s)]},
            "config": configuration,
        }
        view = views[rest]

        def answer(head: Head, body: bytes) -> Reply:
            found = self._inference.find(name, version)
            return found if isinstance(found, Reply) else json_reply(200, view(*found))

        return Page(answer)

    def _scrape(self) -> Reply:
        return Reply(200, self._metrics.page(), "text/plain; version=0.0.4; charset=utf-8")

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

    def _all_statistics(self) -> Reply:
        stats = [
            statistics(deployment, version)
            for deployment in self._deployments.all()
            for version in deployment.versions()
        ]
        return json_reply(200, {"model_stats": stats})

    def _index(self, head: Head, body: bytes) -> Reply:
        try:
            wish = json.loads(body or b"{}")
            ready_only = bool(wish.get("ready", False))
        except (ValueError, AttributeError):
            return refusal(400, 'the body is no JSON object; send {} or {"ready": true}')
        return json_reply(200, index(self._deployments, ready_only=ready_only))


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
    text = "is served because its spec says so; remove the document, or suspend it"
    return refusal(403, f"model {name} {text}")


def _entry(deployment: Deployment) -> dict[str, str]:
    served, failure = deployment.served, deployment.failure
    if served is not None:
        state, version = "READY", served.order.version
    else:
        state, version = "LOADING" if failure is None else "UNAVAILABLE", ""
    reason = failure.message if failure is not None else ""
    return {"name": deployment.name, "version": version, "state": state, "reason": reason}


def statistics(deployment: Deployment, served: Served) -> dict[str, object]:
    """Triton's statistics of one version; times in nanoseconds."""
    runs, queue = served.runs, served.queue

    def part(count: int, seconds: float) -> dict[str, int]:
        return {"count": count, "ns": round(seconds * 1e9)}

    ok = runs.successes
    return {
        "name": deployment.name,
        "version": served.order.version,
        "last_inference": served.last_answer_ms(),
        "inference_count": runs.rows,
        "execution_count": queue.executions,
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
                "compute_input": part(count, 0),
                "compute_infer": part(count, seconds),
                "compute_output": part(count, 0),
            }
            for rows, (count, seconds) in sorted(queue.batches.items())
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
