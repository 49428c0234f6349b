"""A Deployment on this machine: the adapter and the real serving process, from start to answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import JsonValue

from rig.certificates import make_certificates
from rig.local import PATIENCE, LocalTarget, create_of, end_serving, gone, lives, look, until
from rig.onnx_models import constant
from windlass_adapters.base import (
    Absent,
    Create,
    Desired,
    External,
    Found,
    Owner,
    State,
    TerminalError,
    TransientError,
    Unknown,
    Update,
    WaitingError,
)
from windlass_adapters.local import LocalAdapter
from windlass_schemas import Reason

SLOT = "Model/default/wine:artifact"
REQUEST = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
).encode()
JSON = {"content-type": "application/json"}


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[LocalTarget]:
    target = LocalTarget(tmp_path, {"port": 0})
    yield target
    await end_serving(target)


@pytest.fixture
async def adapter(target: LocalTarget) -> AsyncIterator[LocalAdapter]:
    async with target.adapter() as adapter:
        yield adapter


def serving_pid(target: LocalTarget) -> int:
    """The process that answers now."""
    pid: int = json.loads((target.state / "serving" / "serving.json").read_text())["pid"]
    return pid


def deployment(
    target: LocalTarget, value: float, *, name: str = "wine", uid: str = "u1", **options: JsonValue
) -> Desired:
    """A Deployment of a model that answers one value."""
    path = constant(target.root / "made.onnx", value)
    inputs = {SLOT: target.store.put_file(path, "model.onnx")}
    spec: dict[str, JsonValue] = {"model": "wine", "options": options}
    return target.desired("Deployment", name, spec, inputs=inputs, uid=uid)


async def served(adapter: LocalAdapter, desired: Desired) -> Found:
    """Do as the kernel does, until what is wanted is settled: look, then create or update."""
    create = create_of(adapter, desired)
    wanted = create.wanted
    external = External(wanted.role, wanted.name, wanted.name)
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = await look(adapter, desired.owner, external)
        match seen:
            case Found() if seen.state is State.PROGRESSING and seen.pending_digest:
                pass
            case Found() if wanted.digest in (seen.digest, seen.failed_digest):
                return seen
            case Found():
                await sent(adapter, desired.owner, Update(external, wanted))
            case Absent():
                await sent(adapter, desired.owner, create)
        assert time.monotonic() < deadline, f"never served: {seen}"
        await asyncio.sleep(0.05)


async def sent(adapter: LocalAdapter, owner: Owner, action: Create | Update) -> None:
    """Apply, and take waiting for an answer: the next look asks again."""
    with contextlib.suppress(WaitingError):
        await adapter.apply(owner, action)


async def answer(adapter: LocalAdapter, external: External) -> float:
    """The value that the served model gives."""
    reply = await adapter.infer(external, REQUEST, JSON)
    assert reply.status == 200, reply.body
    outputs = {output["name"]: output["data"] for output in json.loads(reply.body)["outputs"]}
    return float(outputs["a"][0])


async def test_a_deployment_starts_the_serving_process_and_answers(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Absent at first, waited for while nobody serves, live soon, with an address for anybody."""
    desired = deployment(target, 7.0, threads=2)
    create = create_of(adapter, desired)
    assert create.wanted.name == "wine"
    external = External("server", "wine", "wine")
    assert await look(adapter, desired.owner, external) == Absent()
    assert await adapter.find(desired.owner) == []
    begun = time.monotonic()
    with pytest.raises(WaitingError, match="the serving process is starting"):
        await adapter.apply(desired.owner, create)
    assert time.monotonic() - begun < 5
    found = await served(adapter, desired)
    assert (found.state, found.digest) == (State.LIVE, create.wanted.digest)
    assert found.owner_uid == "u1"
    assert found.signature is not None
    assert found.signature.inputs[0].name == "x"
    assert list(await adapter.find(desired.owner)) == [found]
    assert await adapter.apply(desired.owner, create) == found
    assert await answer(adapter, external) == 7.0
    assert found.url is not None
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.post(found.url, content=REQUEST, headers=JSON)
    assert reply.status_code == 200


async def test_two_deployments_share_one_serving_process_and_go_one_by_one(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Even when both are asked for at the same moment."""
    first = deployment(target, 1.0, name="one", uid="u1")
    second = deployment(target, 2.0, name="two", uid="u2")
    one, two = await asyncio.gather(served(adapter, first), served(adapter, second))
    assert await answer(adapter, one.external) == 1.0
    assert await answer(adapter, two.external) == 2.0
    other = first.owner._replace(uid="stranger")
    with pytest.raises(TerminalError, match="belongs to uid u1"):
        await adapter.delete(other, one.external)
    with pytest.raises(TerminalError, match="belongs to uid u1"):
        await adapter.apply(other, create_of(adapter, first))
    await gone(adapter, first.owner, one.external)
    await adapter.delete(first.owner, one.external)
    assert await answer(adapter, two.external) == 2.0
    assert lives(serving_pid(target))


async def test_a_new_version_takes_over_and_a_bad_one_leaves_the_old_in_force(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """The failed digest and the reason are there for the kernel to tell."""
    await served(adapter, deployment(target, 1.0))
    second = await served(adapter, deployment(target, 2.0))
    assert await answer(adapter, second.external) == 2.0
    bad = deployment(target, 3.0)
    lost = target.store.put(b"no model", "model.onnx")
    bad = Desired(bad.owner, bad.resource, {}, {SLOT: lost})
    found = await served(adapter, bad)
    assert (found.state, found.digest) == (State.LIVE, second.digest)
    assert found.reason is Reason.UPDATE_FAILED
    assert found.failed_digest == create_of(adapter, bad).wanted.digest
    assert await answer(adapter, second.external) == 2.0


async def test_the_serving_process_outlives_the_adapter_and_is_found_again(
    target: LocalTarget,
) -> None:
    """Closing an adapter stops no request; the next one finds what is served."""
    desired = deployment(target, 4.0)
    async with target.adapter() as first:
        found = await served(first, desired)
    pid = serving_pid(target)
    assert os.getsid(pid) == pid
    async with target.adapter() as second:
        assert list(await second.find(desired.owner)) == [found]
        assert await answer(second, found.external) == 4.0
    assert serving_pid(target) == pid


async def test_a_killed_serving_process_means_absent_and_the_next_create_starts_another(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Positive knowledge: the process is dead. Meanwhile a request is told so."""
    desired = deployment(target, 5.0)
    found = await served(adapter, desired)
    pid = serving_pid(target)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not lives(pid), "the end of the serving process")
    assert await look(adapter, desired.owner, found.external) == Absent()
    with pytest.raises(TransientError, match="no serving process lives"):
        await adapter.infer(found.external, REQUEST, JSON)
    await adapter.delete(desired.owner, found.external)
    again = await served(adapter, desired)
    assert await answer(adapter, again.external) == 5.0


async def test_a_serving_process_that_does_not_answer_is_unknown_and_not_absent(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """It lives, so that nothing may be started in its place."""
    desired = deployment(target, 6.0)
    found = await served(adapter, desired)
    (target.state / "serving" / "admin.sock").unlink()
    seen = await look(adapter, desired.owner, found.external)
    assert isinstance(seen, Unknown)
    assert "does not answer" in seen.message
    with pytest.raises(TransientError, match=r"serving\.log"):
        await adapter.find(desired.owner)


async def test_a_port_in_use_is_said_and_healed_when_the_port_is_free(
    target: LocalTarget,
) -> None:
    """The condition stays as long as the cause does; no second command is needed."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        target.params["port"] = port
        desired = deployment(target, 8.0)
        async with target.adapter() as adapter:
            create = create_of(adapter, desired)
            refused = await first_refusal(adapter, desired.owner, create)
            assert refused.reason is Reason.PORT_IN_USE
            assert f"another program holds 127.0.0.1:{port}" in str(refused)
            holder.close()
            found = await served(adapter, desired)
            assert found.url == f"http://127.0.0.1:{port}/v2/models/wine/infer"


async def first_refusal(adapter: LocalAdapter, owner: Owner, create: Create) -> WaitingError:
    """Create again and again until more than a start is waited for."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            await adapter.apply(owner, create)
        except WaitingError as error:
            if error.reason is not Reason.PROGRESSING:
                return error
        await asyncio.sleep(0.05)
    raise AssertionError("never refused")


@pytest.mark.parametrize("others", [{"processes": 3}, {"processes": 1}])
async def test_what_changes_on_the_target_is_said_and_several_processes_answer_all_the_time(
    target: LocalTarget, others: dict[str, JsonValue]
) -> None:
    """Only from several processes to several can the next supervisor take over what serves."""
    inputs = {SLOT: target.store.put_file(constant(target.root / "made.onnx", 3.0), "model.onnx")}
    spec: dict[str, JsonValue] = {"model": "wine", "replicas": 2}
    desired = target.desired("Deployment", "wine", spec, inputs=inputs, uid="u1")
    target.params |= {"processes": 2}
    async with target.adapter() as adapter:
        before = await served(adapter, desired)
    assert before.url is not None
    pid = serving_pid(target)
    target.params |= others
    with Asking(before.url) as asking:
        async with target.adapter() as adapter:
            said = "the serving process starts anew for params.processes of the Target"
            with pytest.raises(WaitingError, match=said) as refused:
                await adapter.apply(desired.owner, create_of(adapter, desired))
            after = await served(adapter, desired)
    assert serving_pid(target) != pid
    if others == {"processes": 3}:
        assert "requests are answered all the time" in str(refused.value)
        assert (after.url, asking.faults) == (before.url, [])
        assert asking.answers
    else:
        assert "nobody answers requests meanwhile" in str(refused.value)


async def test_another_certificate_is_taken_and_one_that_cannot_be_used_is_refused_in_time(
    target: LocalTarget,
) -> None:
    """What serves is not ended for one that could not serve."""
    first, second = (make_certificates(target.root / name) for name in ("first", "second"))
    missing = str(target.root / "missing.pem")
    desired = deployment(target, 8.0)
    target.params["tls"] = {"certificate": str(first.certificate), "key": str(first.key)}
    async with target.adapter() as adapter:
        before = await served(adapter, desired)
    assert str(before.url).startswith("https://")
    pid = serving_pid(target)
    target.params["tls"] = {"certificate": missing, "key": str(first.key)}
    async with target.adapter() as adapter:
        with pytest.raises(WaitingError, match=f"cannot use {missing} .*mend params.tls") as error:
            await adapter.apply(desired.owner, create_of(adapter, desired))
        assert error.value.reason is Reason.BACKEND_REFUSED
    assert serving_pid(target) == pid
    assert lives(pid)
    target.params["tls"] = {"certificate": str(second.certificate), "key": str(second.key)}
    async with target.adapter() as adapter:
        with pytest.raises(WaitingError, match=r"params\.tls\.certificate of the Target"):
            await adapter.apply(desired.owner, create_of(adapter, desired))
        after = await served(adapter, desired)
    trust = ssl.create_default_context(cafile=str(second.authority))
    async with httpx.AsyncClient(verify=trust) as client:
        answer = await client.post(str(after.url), content=REQUEST, headers=JSON)
    assert answer.status_code == 200


class Asking:
    """A client that asks all the time, on a new connection each time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers = 0
        self.faults: list[str] = []

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                reply = httpx.post(self._url, content=REQUEST, timeout=60, trust_env=False)
                assert reply.status_code == 200, reply.text
                self.answers += 1
            except (httpx.HTTPError, AssertionError) as error:
                self.faults.append(repr(error))


async def test_another_port_on_the_target_moves_what_is_served(target: LocalTarget) -> None:
    """Same state folder, new params: the digest differs, so that the kernel updates."""
    desired = deployment(target, 9.0)
    async with target.adapter() as adapter:
        before = await served(adapter, desired)
    pid = serving_pid(target)
    with socket.create_server(("127.0.0.1", 0)) as free:
        target.params["port"] = free.getsockname()[1]
    async with target.adapter() as adapter:
        after = await served(adapter, desired)
        assert after.url == f"http://127.0.0.1:{target.params['port']}/v2/models/wine/infer"
        assert after.url != before.url
        assert await answer(adapter, after.external) == 9.0
    assert not lives(pid)


async def test_a_namespace_is_part_of_the_served_name_and_a_missing_model_is_waited_for(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Two namespaces may each have a Deployment of one name."""
    desired = deployment(target, 1.0)
    key = desired.owner.key._replace(namespace="team")
    moved = Desired(desired.owner._replace(key=key), desired.resource, {}, desired.inputs)
    assert create_of(adapter, moved).wanted.name == "team.wine"
    with pytest.raises(WaitingError, match="Model/wine has no artifact yet"):
        adapter.normalise(Desired(desired.owner, desired.resource))


async def test_a_wrong_request_gets_the_serving_processs_own_words(
    target: LocalTarget, adapter: LocalAdapter
) -> None:
    """Status and body pass through unchanged."""
    found = await served(adapter, deployment(target, 1.0))
    reply = await adapter.infer(found.external, b"{}", JSON)
    assert reply.status == 400
    assert "error" in json.loads(reply.body)
