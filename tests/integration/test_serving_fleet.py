"""Several processes serve one Target: together they are one server, and none is missed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from rig import onnx_models
from rig.serving import until
from rig.serving_fleet import ROW, Fleet, Load, answered, answered_by, once, one, posted

RETIREMENTS = 2


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One for all tests: two processes take a while to start."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "keys.json").write_text(json.dumps({"keys": []}))
    more = ("--processes", "2", "--hung-after", "3", "--keys", str(folder / "keys.json"))
    with Fleet(folder / "state", 0, *more) as found:
        yield found


@pytest.fixture
def both(fleet: Fleet) -> Fleet:
    """A model that two processes serve, whatever the test before has done.

    Another Deployment wants two as well, so that none has to start anew for each test.
    """
    if fleet.process.poll() is not None:
        fleet.start()
    fleet.deploy("other", one(fleet), replicas=2)
    fleet.admin.delete("/deployments/m", params={"uid": "u1"})
    fleet.deploy("m", one(fleet), replicas=2)
    until(lambda: fleet.processes() == 2 and len(fleet.workers()) == 2, "two processes serve")
    return fleet


def counted(fleet: Fleet) -> int:
    """All that were ever answered, as the supervisor knows now."""
    found = fleet.admin.get("/numbers").json()["usage"].get("m", {}).get("", [0, 0])
    return int(found[0])


def usage(fleet: Fleet) -> int:
    """The same by the file that is kept."""
    entries = json.loads((fleet.state / "usage.json").read_text())["usage"]
    return sum(int(e["ok"]) for e in entries if (e["deployment"], e["key"]) == ("m", ""))


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def spread(fleet: Fleet, requests: int = 40) -> None:
    """Ask on a new connection each time."""
    for _ in range(requests):
        assert once(fleet)[0] == 200


def spread_to_all(fleet: Fleet) -> int:
    """Ask until every process has answered, which the kernel promises for no number of times."""
    asked = 0

    def everybody_has_answered() -> bool:
        nonlocal asked
        asked += 1
        spread(fleet, 1)
        return all(map(answered_by, fleet.workers().values()))

    until(everybody_has_answered, "every process answers")
    return asked


class TestTogether:
    def test_one_process_serves_until_a_deployment_wants_more(self, fleet: Fleet) -> None:
        model = one(fleet)
        fleet.deploy("m", model)
        assert fleet.processes() == 1
        order = {"install": "i1", "uid": "u1", "key": "Deployment/default/m"}
        order |= {"model_path": str(model), "artifact": "sha256:" + "a" * 64}
        for replicas, digest in ((5, "b"), (1, "c")):
            body = order | {"digest": "sha256:" + digest * 64, "options": {"replicas": replicas}}
            fleet.admin.put("/deployments/m", json=body)
            until(lambda n=replicas: fleet.processes() == min(n, 2), f"{replicas} replicas")  # type: ignore[misc]  # mypy: default
            assert fleet.settle("m")["state"] == "Live"

    def test_numbers_statistics_and_usage_are_those_of_all(self, both: Fleet) -> None:
        before = counted(both)
        asked = spread_to_all(both)
        assert answered(both) == asked
        assert both.series('nv_inference_request_success{model="m"') == asked
        stats = both.client.get("/v2/models/m/stats").json()["model_stats"]
        assert [each["inference_stats"]["success"]["count"] for each in stats] == [asked]
        assert sum(map(answered_by, both.workers().values())) == asked
        both.process.terminate()
        assert both.process.wait(60) == 0
        assert usage(both) == before + asked

    def test_counts_never_go_back_when_a_process_ends(self, both: Fleet) -> None:
        spread(both)
        assert answered(both) == 40  # which is what the supervisor knows then
        lost = both.view("m")["lost"]
        os.kill(next(iter(both.workers())), signal.SIGKILL)
        until(lambda: both.view("m")["lost"] != lost, "it is missed")
        assert answered(both) == 40

    def test_a_key_has_one_rate_over_all_processes(self, both: Fleet) -> None:
        secret = "wl_abc_" + "x" * 40
        key = {
            "id": "abc",
            "name": "ada",
            "hash": hashlib.sha256(secret.encode()).hexdigest(),
            "namespace": "default",
            "deployment": None,
            "rate": 0.001,
            "expires": None,
        }
        file = both.state.parent / "keys.json"
        file.write_text(json.dumps({"keys": [key]}))
        other = onnx_models.constant(both.state.parent / "2.onnx", 2)
        both.deploy("m", other, replicas=2, access="keys")
        until(lambda: once(both, {"x-api-key": secret})[0] == 200, "the key is known")
        key_sent = {"authorization": f"Bearer {secret}"}
        time.sleep(1.0)  # for the other process to know it too
        answers = Counter(once(both, key_sent)[0] for _ in range(20))
        assert answers == {429: 20}
        file.write_text(json.dumps({"keys": []}))
        time.sleep(1.0)
        assert {once(both, {"x-api-key": secret})[0] for _ in range(10)} == {401}


class TestSwap:
    def test_no_request_fails_or_is_mixed_and_none_is_old_once_it_is_in_force(
        self, both: Fleet, tmp_path: Path
    ) -> None:
        models = [onnx_models.constant(tmp_path / f"{n}.onnx", n) for n in (1, 2)]
        with Load(both) as load:
            for turn in range(6):
                value = (2, 1)[turn % 2]
                both.deploy("m", models[value - 1], replicas=2)
                answers = [json.loads(once(both)[1])["outputs"][0]["data"] for _ in range(10)]
                assert answers == [[value, value]] * 10
        assert load.faults == []
        assert set(load.values) == {(1.0, 1.0), (2.0, 2.0)}

    def test_a_version_that_does_not_load_is_in_force_nowhere(
        self, both: Fleet, tmp_path: Path
    ) -> None:
        (tmp_path / "bad.onnx").write_bytes(b"junk")
        both.put("m", tmp_path / "bad.onnx", replicas=2)
        view = both.settle("m")
        assert (view["state"], view["reason"]) == ("Live", "UpdateFailed")
        assert "no ONNX model" in str(view["message"])
        spread(both, 10)

    def test_a_canary_gets_its_share_everywhere_and_takes_over_everywhere(
        self, both: Fleet, tmp_path: Path
    ) -> None:
        rollout = {"way": "canary", "weight": 50, "duration": 1, "min_requests": 20}
        with Load(both) as load:
            both.put("m", onnx_models.constant(tmp_path / "2.onnx", 2), replicas=2, rollout=rollout)
            until(lambda: "tried as a canary" in str(both.view("m")["message"]), "it is tried")
            view = both.settle("m")
        assert load.faults == []
        assert (view["state"], view["reason"]) == ("Live", None)
        spread(both, 10)
        assert both.infer("m", ROW).json()["outputs"][0]["data"] == [2.0, 2.0]

    def test_a_canary_that_refuses_too_much_goes_everywhere(
        self, both: Fleet, tmp_path: Path
    ) -> None:
        rollout = {"way": "canary", "weight": 50, "duration": 60, "min_requests": 10}
        wide = onnx_models.constant(tmp_path / "wide.onnx", 2, width=3)
        both.put("m", wide, replicas=2, rollout=rollout)
        until(lambda: "tried as a canary" in str(both.view("m")["message"]), "it is tried")
        asked = 0
        while both.view("m")["state"] == "Progressing" and asked < 400:
            asked += 1
            once(both)
        view = both.settle("m")
        assert view["reason"] == "UpdateFailed"
        assert "the canary refused" in str(view["message"])
        spread(both, 20)


class TestLosses:
    def test_a_process_that_is_killed_is_replaced_and_costs_what_it_had_under_way(
        self, both: Fleet
    ) -> None:
        with Load(both) as load:
            victim, lost = next(iter(both.workers())), both.view("m")["lost"]
            os.kill(victim, signal.SIGKILL)
            until(lambda: both.view("m")["lost"] != lost, "it is missed")
            until(lambda: both.processes() == 2, "another serves")
        assert len(load.faults) <= 4, load.faults  # one for each client, at most
        view = both.view("m")
        assert view["state"] == "Live"
        assert f"process {victim} ended by signal 9; 2 of 2 processes serve" in str(view["message"])

    def test_one_that_hangs_is_replaced(self, both: Fleet) -> None:
        victim, lost = next(iter(both.workers())), both.view("m")["lost"]
        os.kill(victim, signal.SIGSTOP)
        until(lambda: both.view("m")["lost"] != lost, "it is missed")
        assert not alive(victim)
        until(lambda: both.processes() == 2, "another serves")
        assert f"process {victim} ended by signal 9" in str(both.view("m")["message"])
        spread(both, 10)

    def test_when_all_are_killed_connections_wait_for_the_next(self, both: Fleet) -> None:
        for pid in both.workers():
            os.kill(pid, signal.SIGKILL)
        status, body = once(both)
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [1.0, 1.0])

    def test_a_killed_supervisor_costs_no_request_and_the_next_takes_the_workers_over(
        self, both: Fleet, tmp_path: Path
    ) -> None:
        workers, port = set(both.workers()), both.port
        before = counted(both)
        with Load(both) as load:
            both.process.kill()
            both.process.wait()
            seen = load.answers
            until(lambda: load.answers > seen + 20, "they serve on")
            both.start()
            assert both.port == port
            assert set(both.workers()) == workers
            assert both.settle("m")["state"] == "Live"
            both.deploy("m", onnx_models.constant(tmp_path / "2.onnx", 2), replicas=2)
        assert load.faults == []
        assert answered(both) == load.answers
        both.process.terminate()
        assert both.process.wait(60) == 0
        assert usage(both) == before + load.answers
        assert not any(alive(pid) for pid in workers)


class TestRetirement:
    @pytest.mark.timeout(1800)
    @pytest.mark.parametrize("retirements", [RETIREMENTS, pytest.param(60, marks=pytest.mark.long)])
    def test_a_process_that_retires_resets_no_connection(
        self, both: Fleet, retirements: int
    ) -> None:
        """New connections all the time, and clients that keep theirs."""
        self._alone(both)
        before = self._retired(both)
        with Load(both) as new, Load(both, keep=True) as kept:
            for turn in range(1, retirements + 1):
                self._retire(both)
                until(lambda n=turn: self._retired(both) == before + n, "it has gone")  # type: ignore[misc]  # mypy: default
        assert (new.faults, kept.faults) == ([], [])
        assert new.answers > retirements * 2

    @staticmethod
    def _alone(fleet: Fleet) -> None:
        """Nobody else wants two processes."""
        fleet.admin.delete("/deployments/other", params={"uid": "u1"})

    @staticmethod
    def _retire(fleet: Fleet) -> None:
        """Down to one process and up to two again."""
        model = one(fleet)
        order = {"install": "i1", "uid": "u1", "key": "Deployment/default/m"}
        order |= {"model_path": str(model), "artifact": "sha256:" + "a" * 64}
        for replicas in (1, 2):
            digest = "sha256:" + os.urandom(32).hex()
            body = order | {"digest": digest, "options": {"replicas": replicas, "threads": 1}}
            fleet.admin.put("/deployments/m", json=body)
            until(lambda n=replicas: fleet.processes() == n, f"{replicas} serve")  # type: ignore[misc]  # mypy: default

    @staticmethod
    def _retired(fleet: Fleet) -> int:
        return fleet.log().count('"event": "retiring"')

    def test_a_client_that_keeps_its_connection_is_told_to_go(self, both: Fleet) -> None:
        clients: list[HTTPConnection] = []

        def everybody_has_some() -> bool:
            """The kernel does not promise to share them out: go on until it has."""
            clients.append(HTTPConnection("127.0.0.1", both.port, timeout=60))
            assert posted(clients[-1])[0] == 200
            return all(map(answered_by, both.workers().values()))

        until(everybody_has_some, "both processes have connections")
        assert all(client.sock is not None for client in clients), "nobody was told to go"
        self._alone(both)
        self._retire_one(both)
        assert [posted(client)[0] for client in clients] == [200] * len(clients)
        gone = [client for client in clients if client.sock is None]
        assert 0 < len(gone) < len(clients)
        for client in clients:
            client.close()

    @staticmethod
    def _retire_one(fleet: Fleet) -> None:
        order = {"install": "i1", "uid": "u1", "key": "Deployment/default/m"}
        order |= {"model_path": str(one(fleet))}
        body = order | {"digest": "sha256:" + "d" * 64, "options": {"replicas": 1, "threads": 1}}
        before = TestRetirement._retired(fleet)
        fleet.admin.put("/deployments/m", json=body)
        until(lambda: TestRetirement._retired(fleet) > before, "one retires")
