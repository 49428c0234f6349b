"""Models whose weights lie beside them: served from the file, and never in the memory twice."""

from __future__ import annotations

import http.server
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rig.serving import Serving, digest_of_file, tensor, until
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.bundle import BundleError, collect, files_below, model_file, pack
from windlass_adapters.local.inspection import inspect_order
from windlass_adapters.local.models import ModelBody, ModelOrder
from windlass_adapters.local.storage import save
from windlass_schemas import Reason

WIDTH = 1024
MIB = 1 << 20


def layers(folder: Path, megabytes: int, *, beside: bool = True) -> Path:
    """A model of matrices that each give back their input, with weights beside it or inside."""
    folder.mkdir(parents=True, exist_ok=True)
    count = megabytes * MIB // (WIDTH * WIDTH * 4)
    weights = np.eye(WIDTH, dtype=np.float32)
    path = folder / "model.onnx"
    names = ["x", *(f"h{number}" for number in range(count))]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[n], f"w{n}"], [names[n + 1]]) for n in range(count)],
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDTH])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [None, WIDTH])],
        [numpy_helper.from_array(weights * (1 + n / 100), f"w{n}") for n in range(count)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path, save_as_external_data=beside, location="model.onnx.data")
    return path


def memory(serving: Serving, field: str) -> int:
    """Bytes, by the system's books of the process."""
    lines = Path(f"/proc/{serving.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@contextmanager
def behind_an_address(folder: Path) -> Iterator[str]:
    """A web server for the files of a folder."""
    kind = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


SIZES = [64, pytest.param(1024, marks=pytest.mark.long)]
"""MiB of weights."""


class TestMemory:
    @pytest.mark.timeout(600)
    @pytest.mark.parametrize("size", SIZES)
    def test_a_load_takes_no_second_copy(self, tmp_path: Path, size: int) -> None:
        model = layers(tmp_path / "m", size)
        with Serving(tmp_path / "state") as serving:
            before = memory(serving, "VmRSS")
            serving.deploy("m", model)
            peak = memory(serving, "VmHWM") - before
            row = {"inputs": [tensor("x", "FP32", [1, WIDTH], [1.0] + [0.0] * (WIDTH - 1))]}
            assert serving.infer("m", row).status_code == 200
            taken = memory(serving, "VmRSS") - before
        assert peak < 1.3 * size * MIB + 24 * MIB, f"{peak / MIB:.0f} MiB at the peak"
        assert taken < 1.1 * size * MIB + 24 * MIB, f"{taken / MIB:.0f} MiB afterwards"

    @pytest.mark.timeout(600)
    @pytest.mark.parametrize("size", SIZES)
    def test_without_prepacking_weights_stay_in_the_files_pages(
        self, tmp_path: Path, size: int
    ) -> None:
        model = layers(tmp_path / "m", size)
        with Serving(tmp_path / "state") as serving:
            before = memory(serving, "RssAnon")
            serving.deploy("m", model, prepack=False)
            row = {"inputs": [tensor("x", "FP32", [1, WIDTH], [1.0] + [0.0] * (WIDTH - 1))]}
            assert serving.infer("m", row).status_code == 200
            own = memory(serving, "RssAnon") - before
        assert own < 0.2 * size * MIB + 24 * MIB, f"{own / MIB:.0f} MiB of its own"

    def test_the_budget_counts_weights_that_lie_beside_the_model(self, tmp_path: Path) -> None:
        with Serving(tmp_path / "state", 0, "--memory", str(40 * MIB)) as serving:
            serving.deploy("a", layers(tmp_path / "a", 32))
            serving.deploy("b", layers(tmp_path / "b", 28))
            until(lambda: serving.view("a")["replicas"] == 0, "the older one sleeps")
            assert serving.view("b")["replicas"] == 1


class TestThroughTheProduct:
    """The look at an artifact, as the prepare process does it, on a real store."""

    def inspect(self, tmp_path: Path, body: ModelBody) -> tuple[Reason | str, str, str | None]:
        order = tmp_path / "order.json"
        save(order, ModelOrder(store=str(tmp_path / "store"), body=body))
        found = inspect_order(order)
        return found.reason, found.message, found.artifact.digest if found.artifact else None

    def test_a_folder_beside_the_spec_becomes_one_artifact_that_loads(self, tmp_path: Path) -> None:
        model = layers(tmp_path / "m", 8)
        store = ArtifactStore(tmp_path / "store")
        files = {
            name: store.put_file(path, name) for name, path in files_below(model.parent).items()
        }
        body = ModelBody(artifact=None, files=files, url=None, digest=None, format="onnx")
        reason, message, digest = self.inspect(tmp_path, body)
        assert (reason, message) == ("", "")
        assert digest is not None
        assert self.inspect(tmp_path, body)[2] == digest, "the same files are the same artifact"
        served = model_file(store.root, digest)
        with Serving(tmp_path / "state") as serving:
            serving.put("m", served)
            assert serving.settle("m")["digest"] == digest_of_file(served)

    def test_an_archive_that_is_compressed_works_too(self, tmp_path: Path) -> None:
        model = layers(tmp_path / "m", 4)
        with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as archive:
            archive.add(model.parent, "anything")
        store = ArtifactStore(tmp_path / "store")
        artifact = store.put_file(tmp_path / "m.tar.gz", "m.tar.gz")
        body = ModelBody(artifact=artifact, url=None, digest=None, format="onnx")
        assert self.inspect(tmp_path, body) == ("", "", artifact.digest)

    def test_an_archive_behind_an_address_works_too(self, tmp_path: Path) -> None:
        model = layers(tmp_path / "m", 4)
        with tarfile.open(tmp_path / "m.tar", "w") as archive:
            archive.add(model.parent, "m")
        body = ArtifactStore(tmp_path / "other").put_file(tmp_path / "m.tar", "m.tar")
        with behind_an_address(tmp_path) as url:
            asked = ModelBody(artifact=None, url=f"{url}/m.tar", digest=None, format="onnx")
            assert self.inspect(tmp_path, asked) == ("", "", body.digest)
        with Serving(tmp_path / "state") as serving:
            served = model_file(tmp_path / "store", body.digest)
            serving.put("m", served)
            assert serving.settle("m")["digest"] == digest_of_file(served)

    def test_what_was_unpacked_is_collected_when_nobody_serves_from_it(
        self, tmp_path: Path
    ) -> None:
        """A model that sleeps is loaded again from there: it counts as served."""
        store = ArtifactStore(tmp_path / "store")
        digests = []
        for name in ("served", "forgotten", "young"):
            model = layers(tmp_path / name, 4)
            (model.parent / "name").write_text(name)
            with tarfile.open(tmp_path / "a.tar", "w") as archive:
                archive.add(model.parent, "m")
            digests.append(store.put_file(tmp_path / "a.tar", "a.tar").digest)
        served, forgotten, young = (model_file(store.root, digest) for digest in digests)
        cut_off = store.root / "unpacked" / ".draft-cut"
        cut_off.mkdir()
        policy = {"min": 0, "max": 1, "metric": "requestsPerSecond", "target": 9, "down": 0.5}
        row = {"inputs": [tensor("x", "FP32", [1, WIDTH], [1.0] + [0.0] * (WIDTH - 1))]}
        with Serving(tmp_path / "state") as serving:
            serving.deploy("m", served, autoscaling=policy)
            until(lambda: serving.view("m")["replicas"] == 0, "it sleeps")
            for folder in (served.parents[1], forgotten.parents[1], cut_off):
                os.utime(folder, (0, 0))
            collect(store.root)
            assert [each.exists() for each in (served, forgotten, young)] == [True, False, True]
            assert not cut_off.exists()
            assert serving.infer("m", row).status_code == 200
        os.utime(served.parents[1], (0, 0))
        collect(store.root)
        assert not served.exists()
        assert model_file(store.root, digests[0]).exists(), "it is unpacked again when wanted"

    def test_a_model_without_its_weights_is_refused_with_what_to_do(self, tmp_path: Path) -> None:
        model = layers(tmp_path / "m", 4)
        store = ArtifactStore(tmp_path / "store")
        artifact = store.put_file(model, "model.onnx")
        body = ModelBody(artifact=artifact, url=None, digest=None, format="onnx")
        reason, message, _ = self.inspect(tmp_path, body)
        assert reason is Reason.INVALID_ARTIFACT
        assert "or a folder or tar archive where the weights lie beside it" in message

    def test_an_archive_that_leads_elsewhere_or_holds_no_model_is_refused(
        self, tmp_path: Path
    ) -> None:
        store = ArtifactStore(tmp_path / "store")
        (tmp_path / "model.onnx").write_bytes(b"x")
        for name, words in (("../out.onnx", "cannot be unpacked"), ("read.me", "it holds none")):
            with tarfile.open(tmp_path / "a.tar", "w") as archive:
                archive.add(tmp_path / "model.onnx", name)
            digest = store.put_file(tmp_path / "a.tar", "a.tar").digest
            with pytest.raises(BundleError, match=words):
                model_file(store.root, digest)
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            member = tarfile.TarInfo("model.onnx")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
        digest = store.put_file(tmp_path / "a.tar", "a.tar").digest
        with pytest.raises(BundleError, match="no regular file"):
            model_file(store.root, digest)
        assert not list((store.root / "unpacked").glob(".draft-*"))

    def test_a_packed_folder_is_the_same_whatever_its_times_and_modes(self, tmp_path: Path) -> None:
        packed = []
        for mode in (0o600, 0o755):
            path = tmp_path / str(mode) / "a"
            path.parent.mkdir()
            path.write_text("a")
            path.chmod(mode)
            os.utime(path, (mode, mode))
            with (tmp_path / "out").open("wb") as out:
                pack(files_below(path.parent), out)
            packed.append((tmp_path / "out").read_bytes())
        assert packed[0] == packed[1]
