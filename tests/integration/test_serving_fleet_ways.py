"""What one process does, several do too: gRPC, TLS, shadows, sleep, a memory budget."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path

import grpc
import pytest

from rig import onnx_models
from rig.certificates import make_certificates
from rig.serving import digest_of_file, until
from rig.serving_fleet import Fleet, Load, answered_by, once, one, posted
from windlass.serving.grpc_v2 import inference_pb2 as pb

INFER = "/inference.GRPCInferenceService/ModelInfer"


class GrpcClients:
    """Clients that keep their channels and ask all the time; each answer is checked."""

    def __init__(self, fleet: Fleet, clients: int = 3) -> None:
        self._place = f"127.0.0.1:{fleet.announcement['grpc_port']}"
        self._stop = threading.Event()
        self.answers = 0
        self.faults: list[str] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> GrpcClients:
        for each in self._threads:
            each.start()
        until(lambda: self.answers > 10 or bool(self.faults), "the load is on")
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(60)

    def _ask(self) -> None:
        with grpc.insecure_channel(self._place) as channel:
            while not self._stop.is_set():
                try:
                    assert grpc_answer(channel) == [1.0, 1.0]
                    self.answers += 1
                except (grpc.RpcError, AssertionError) as error:
                    self.faults.append(repr(error))


def grpc_answer(channel: grpc.Channel) -> list[float]:
    """Ask the model ``m`` once."""
    call = channel.unary_unary(
        INFER,
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    row = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])
    row.contents.fp32_contents.extend([0.0, 0.0])
    answer = call(pb.ModelInferRequest(model_name="m", inputs=[row]), timeout=60)
    return list(answer.outputs[0].contents.fp32_contents)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two processes, each with room for two of the three models of the memory's test."""
    state = tmp_path_factory.mktemp("fleet") / "state"
    memory = str(2 * (40 << 20))
    with Fleet(state, 0, "--processes", "2", "--grpc-port", "0", "--memory", memory) as found:
        found.deploy("other", one(found), replicas=2)
        until(lambda: found.processes() == 2, "two processes serve")
        yield found


def test_a_shadow_is_watched_everywhere_and_takes_over_everywhere(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.deploy("m", one(fleet), replicas=2)
    new = onnx_models.constant(tmp_path / "2.onnx", 2)
    words = "otherwise than the old version"
    with Load(fleet) as load:
        rollout = {"way": "shadow", "weight": 100, "duration": 1.5, "min_requests": 1}
        fleet.put("m", new, replicas=2, rollout=rollout)
        until(lambda: words in str(fleet.view("m")["message"]), "it is watched")
        until(lambda: f" 0 {words}" not in str(fleet.view("m")["message"]), "it differs")
        if fleet.view("m")["state"] == "Progressing":
            assert set(load.values) == {(1.0, 1.0)}
        until(lambda: load.values[2.0, 2.0] > 0, "it has taken over")
    assert load.faults == []
    assert fleet.settle("m")["digest"] == digest_of_file(new)


def test_a_model_that_nobody_asks_sleeps_everywhere_and_each_process_wakes_it_up(
    fleet: Fleet,
) -> None:
    policy = {"min": 0, "max": 2, "metric": "requestsPerSecond", "target": 100, "down": 1}
    fleet.admin.delete("/deployments/m", params={"uid": "u1"})
    fleet.deploy("m", one(fleet), autoscaling=policy)
    until(lambda: fleet.log().count('"event": "asleep"') >= 2, "it sleeps in both")
    assert fleet.view("m")["replicas"] == 0
    for _ in range(3):
        assert once(fleet)[0] == 200
    until(lambda: fleet.view("m")["replicas"] == 1, "it is awake")
    assert fleet.view("m")["state"] == "Live"


def test_over_the_budget_the_longest_unused_sleeps_in_its_process(
    fleet: Fleet, tmp_path: Path
) -> None:
    """The budget is shared out evenly: of three models of 16 MiB each process holds two."""
    big = onnx_models.big(tmp_path / "big.onnx", 16, 1.0)
    before = fleet.log().count('"event": "asleep"')
    for name in "abc":
        fleet.deploy(name, big)
    until(lambda: fleet.log().count('"event": "asleep"') >= before + 2, "one sleeps in each")
    for name in "abc":
        assert fleet.view(name)["state"] == "Live"
        fleet.admin.delete(f"/deployments/{name}", params={"uid": "u1"})


def test_grpc_is_answered_by_all_and_a_process_that_retires_fails_no_call(fleet: Fleet) -> None:
    fleet.admin.delete("/deployments/m", params={"uid": "u1"})
    fleet.deploy("m", one(fleet))
    channels: list[grpc.Channel] = []

    def everybody_has_answered() -> bool:
        options = [("grpc.use_local_subchannel_pool", 1)]
        place = f"127.0.0.1:{fleet.announcement['grpc_port']}"
        channels.append(grpc.insecure_channel(place, options))
        assert grpc_answer(channels[-1]) == [1.0, 1.0]
        return all(map(answered_by, fleet.workers().values()))

    until(everybody_has_answered, "both processes answer")
    with GrpcClients(fleet) as load:
        fleet.admin.delete("/deployments/other", params={"uid": "u1"})
        until(lambda: len(fleet.workers()) == 1, "it has gone")
        seen = load.answers
        until(lambda: load.answers > seen + 20, "the other answers")
    assert load.faults == []
    assert [grpc_answer(each) for each in channels] == [[1.0, 1.0]] * len(channels)
    for each in channels:
        each.close()


def test_the_next_supervisor_takes_both_sockets_over(fleet: Fleet) -> None:
    ports = fleet.port, fleet.announcement["grpc_port"]
    workers = set(fleet.workers())
    fleet.process.kill()
    fleet.process.wait()
    fleet.start()
    assert (fleet.port, fleet.announcement["grpc_port"]) == ports
    assert set(fleet.workers()) == workers
    with GrpcClients(fleet, 1) as load:
        pass
    assert load.faults == []


def test_both_serve_by_tls(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "tls")
    more = ("--processes", "2", "--grpc-port", "0", "--tls", str(made.certificate), str(made.key))
    trust = ssl.create_default_context(cafile=str(made.authority))
    with Fleet(tmp_path / "state", 0, *more) as fleet:
        fleet.put("m", one(fleet), replicas=2)
        until(lambda: len(fleet.workers()) == 2, "two processes serve")
        fleet.settle("m")

        def everybody_has_answered() -> bool:
            with closing(
                HTTPSConnection("127.0.0.1", fleet.port, timeout=60, context=trust)
            ) as client:
                assert posted(client)[0] == 200
            return all(map(answered_by, fleet.workers().values()))

        until(everybody_has_answered, "both processes answer")
        place = f"localhost:{fleet.announcement['grpc_port']}"
        secrets = grpc.ssl_channel_credentials(made.authority.read_bytes())
        with grpc.secure_channel(place, secrets) as channel:
            assert grpc_answer(channel) == [1.0, 1.0]
