"""The HTTP API shows objects as they are stored, and writes down what people ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from rig.api_daemon import ApiDaemon, api_daemon, deployment, job, record
from windlass.api.runtime import Check
from windlass.api.views import Accepted, HistoryList, ObjectList, ObjectView
from windlass_adapters.base import TerminalError, TransientError
from windlass_schemas import Key, Reason


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(tmp_path) as found:
        await found.declare(job("train"), deployment("wine"))
        yield found


@pytest.fixture
async def http(daemon: ApiDaemon) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=daemon.url, trust_env=False) as client:
        yield client


async def test_an_object_is_shown_with_what_was_declared_and_what_was_found(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """Spec and policy are canonical JSON, without the fields that have their default."""
    await daemon.conclude("Job/train", "False", Reason.PROGRESSING, "epoch 3")
    daemon.busy.add(Key.parse("Job/train"))
    response = await http.get("/api/v1/objects/job/default/train")
    view = ObjectView.model_validate_json(response.content)
    assert response.status_code == 200
    assert view.key == "Job/default/train"
    assert view.spec == {"command": ["true"], "timeLimit": "1m30s"}
    assert (view.policy, view.labels) == ({}, {"team": "wine"})
    assert (view.path, view.line, view.revision) == ("specs.yaml", 1, "c0ffee1234567890")
    assert view.pending
    ready = view.status.condition("Ready")
    assert ready is not None
    assert ready.message == "epoch 3"


async def test_objects_are_listed_by_kind_and_namespace(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """Both filters are optional; an unknown kind is refused with the kinds that there are."""

    async def keys(**params: str) -> list[str]:
        response = await http.get("/api/v1/objects", params=params)
        return [view.key for view in ObjectList.model_validate_json(response.content).objects]

    assert await keys() == ["Deployment/default/wine", "Job/default/train"]
    assert await keys(kind="job") == ["Job/default/train"]
    assert await keys(namespace="elsewhere") == []
    refused = await http.get("/api/v1/objects", params={"kind": "pod"})
    assert refused.status_code == 404
    assert "Deployment" in refused.json()["hint"]


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/api/v1/objects/job/default/nothing", 404, "there is no Job/nothing"),
        ("GET", "/api/v1/objects/pod/default/train", 404, "there is no kind 'Pod'"),
        ("GET", "/api/v1/objects/job/default/UPPER", 404, "is no name"),
        ("GET", "/api/v1/objects/job/default/nothing/history", 404, "there is no"),
        ("GET", "/api/v1/objects/job/default/train/logs", 404, "has not run yet"),
        ("GET", "/api/v1/objects/job/default/train/logs?stream=x", 422, "query.stream"),
        ("GET", "/api/v1/events?after=-1", 422, "query.after"),
        ("GET", "/api/v1/events?key=train", 422, "is no key"),
        ("GET", "/nowhere", 404, "GET /nowhere"),
        ("PUT", "/api/v1/objects", 405, "PUT /api/v1/objects"),
        ("POST", "/api/v1/objects/job/default/nothing/sync", 404, "there is no Job/nothing"),
        ("POST", "/api/v1/objects/job/default/train/suspend", 422, "malformed"),
        ("POST", "/api/v1/approve", 422, "malformed"),
        ("DELETE", "/api/v1/objects/job/default/train", 409, "declares it at specs.yaml:1"),
        ("POST", "/v2/models/nothing/infer", 404, "there is no Deployment/nothing"),
        ("POST", "/v2/models/wine/infer", 503, "is not served yet"),
    ],
)
async def test_every_refusal_says_what_and_what_to_do(
    http: httpx.AsyncClient, method: str, path: str, status: int, said: str
) -> None:
    """Errors are ``{"error", "hint"}`` with a fitting status, and never a traceback."""
    response = await http.request(method, path)
    assert response.status_code == status
    answer = response.json()
    assert set(answer) == {"error", "hint"}
    assert said in answer["error"]
    assert answer["hint"]
    assert "Traceback" not in response.text


async def test_suspend_resume_and_sync_are_written_down_and_the_object_is_looked_at(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """Each request wakes the workers, and the history says who asked."""
    path = "/api/v1/objects/job/default/train"
    user = {"X-Windlass-User": "grace"}
    key = Key.parse("Job/train")

    done = await http.post(f"{path}/suspend", json={"reason": "audit"}, headers=user)
    assert done.status_code == 202
    view = ObjectView.model_validate_json((await http.get(path)).content)
    assert view.suspended == "audit"

    refused = await http.post(f"{path}/sync", headers=user)
    assert refused.status_code == 409
    assert refused.json()["error"] == "Job/train is suspended: audit"

    assert (await http.post(f"{path}/resume", headers=user)).status_code == 202
    answer = await http.post(f"{path}/sync", headers=user)
    accepted = Accepted.model_validate_json(answer.content)
    found = await daemon.store.get(key)
    assert found is not None
    assert found.sync_token == accepted.token
    assert daemon.enqueued == [key, key, key]

    history = HistoryList.model_validate_json((await http.get(f"{path}/history")).content)
    asked = [(entry.action, entry.author) for entry in history.entries]
    assert asked[:3] == [
        ("SyncRequested", "grace"),
        ("Resumed", "grace"),
        ("Suspended", "grace"),
    ]


async def test_a_suspension_in_the_document_is_lifted_in_the_document(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """``resume`` says where it is written instead of pretending."""
    await daemon.declare(job("train", suspend={"reason": "frozen"}), revision="c2")
    refused = await http.post("/api/v1/objects/job/default/train/resume")
    assert refused.status_code == 409
    assert "specs.yaml:1" in refused.json()["error"]
    empty = await http.post("/api/v1/objects/job/default/train/suspend", json={"reason": " "})
    assert empty.status_code == 422


async def test_an_object_whose_document_is_gone_can_be_deleted(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """``prune: confirm`` waits for this very request."""
    await daemon.declare(job("train", prune="confirm"), deployment("wine"), revision="c2")
    await daemon.declare(deployment("wine"), revision="c3")
    done = await http.delete("/api/v1/objects/job/default/train")
    assert done.status_code == 202
    found = await daemon.store.get(Key.parse("Job/train"))
    assert found is not None
    assert found.deleting_since is not None


async def test_a_revision_that_deletes_too_much_waits_for_approval(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """Its first characters are enough; an unknown one is refused."""
    await daemon.declare(*[job(f"j{i}") for i in range(8)], revision="c4")
    await daemon.declare(job("j0"), revision="c5feed")
    sources = (await http.get("/api/v1/sources")).json()["sources"]
    assert len(sources[0]["blocked"]) == 7
    assert (await http.post("/api/v1/approve", json={"revision": "dead"})).status_code == 409
    done = await http.post("/api/v1/approve", json={"revision": "c5fe"})
    assert len(done.json()["keys"]) == 7


async def test_logs_are_those_of_the_latest_run(daemon: ApiDaemon, http: httpx.AsyncClient) -> None:
    """Both streams, whole, however long."""
    runs = (
        record("run", "train-a1", completes=True, attempt=1),
        record("run", "train-a2", completes=True, attempt=2),
    )
    await daemon.conclude("Job/train", "False", Reason.FAILED, externals=runs)
    adapter = daemon.back
    adapter.output = {  # type: ignore[attr-defined]  # the rig's own adapter
        ("train-a1", "stdout"): b"old",
        ("train-a2", "stdout"): b"x" * 200_000,
        ("train-a2", "stderr"): b"Traceback of the script",
    }
    path = "/api/v1/objects/job/default/train/logs"
    assert (await http.get(path, params={"stream": "stdout"})).content == b"x" * 200_000
    both = (await http.get(path)).content
    assert sorted(both) == sorted(b"x" * 200_000 + b"Traceback of the script")
    assert (await http.get(path, params={"stream": "stderr"})).text == "Traceback of the script"


async def test_a_target_that_does_not_answer_is_a_503_with_its_words(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """A failing adapter is no fault of the caller, and of nobody's stack."""
    await daemon.conclude(
        "Deployment/wine", "True", Reason.SYNCED, externals=(record("server", "wine"),)
    )
    daemon.back.refusal = TransientError("nobody answers on 8701; wait")  # type: ignore[attr-defined]  # the rig's own adapter
    answer = await http.post("/v2/models/wine/infer", content=b"{}")
    assert answer.status_code == 503
    assert answer.json() == {"error": "nobody answers on 8701", "hint": "wait"}
    daemon.failure = TerminalError("no adapter 'moon'; install it")
    answer = await http.post("/v2/models/wine/infer", content=b"{}")
    assert answer.status_code == 409


async def test_the_gateway_passes_requests_on_unread(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """Name and namespace.name lead to the Deployment's server; headers of the protocol go along."""
    await daemon.declare(deployment("wine", "lab"), deployment("wine"), revision="c2")
    for key in ("Deployment/wine", "Deployment/lab/wine"):
        name = key.replace("/", "-").lower()
        await daemon.conclude(key, "True", Reason.SYNCED, externals=(record("server", name),))
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": "9"}
    for model in ("wine", "lab.wine"):
        answer = await http.post(
            f"/v2/models/{model}/infer", content=b"\x00raw\xff", headers=headers
        )
        assert (answer.status_code, answer.content) == (200, b"\x00raw\xff")
    asked = daemon.back.asked  # type: ignore[attr-defined]  # the rig's own adapter
    assert [external.name for external, _, _ in asked] == [
        "deployment-wine",
        "deployment-lab-wine",
    ]
    assert asked[0][2]["inference-header-content-length"] == "9"


async def test_health_readiness_metrics_and_facts(
    daemon: ApiDaemon, http: httpx.AsyncClient
) -> None:
    """A daemon that lives may yet not be ready, and says which part is not."""
    await daemon.conclude("Deployment/wine", "True", Reason.SYNCED)
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.get("/readyz")).json()["ready"] is True
    daemon.checks.append(Check("source", False, "no commit yet; commit something"))
    response = await http.get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"][1]["message"] == "no commit yet; commit something"
    daemon.said.append("2 files are not committed")
    facts = (await http.get("/api/v1/doctor")).json()
    assert facts["notes"] == ["2 files are not committed"]
    assert facts["install"] == daemon.store.install
    metrics = (await http.get("/metrics")).text
    assert 'windlass_objects{kind="Deployment",ready="True"} 1.0' in metrics
    assert 'windlass_objects{kind="Job",ready="Unknown"} 1.0' in metrics
    assert "windlass_outbox_lag_seconds" in metrics


async def test_the_openapi_page_takes_nothing_from_the_internet(http: httpx.AsyncClient) -> None:
    """Every file that it names is served by the daemon itself."""
    page = (await http.get("/docs")).text
    assert "https://" not in page
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs/assets/{name}" in page
        assert (await http.get(f"/docs/assets/{name}")).status_code == 200
    assert "ObjectView" in (await http.get("/openapi.json")).json()["components"]["schemas"]
