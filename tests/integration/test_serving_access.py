"""Who may ask a served model: keys, limits, revocation, TLS; and what is remembered of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rig import onnx_models
from rig.certificates import Certificates, make_certificates
from rig.serving import Serving, tensor, until
from windlass.keys import KeyFile, UnknownKeyError

ROW = {"inputs": [tensor("x", "FP32", [1, 2], [1, 2])]}


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path)


@pytest.fixture
def serving(tmp_path: Path, keys: KeyFile) -> Iterator[Serving]:
    arguments = ("--keys", str(tmp_path / "keys.json"), "--grpc-port", "0")
    with Serving(tmp_path / "state", 0, *arguments) as process:
        model = onnx_models.identity(tmp_path / "m.onnx")
        process.deploy("guarded", model, access="keys")
        process.deploy("open", model)
        yield process


def ask(serving: Serving, key: str | None = None, model: str = "guarded") -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key is not None else {}
    return serving.infer(model, ROW, headers)


def become(serving: Serving, key: str, status: int) -> None:
    """Wait until a key is answered so."""
    until(lambda: ask(serving, key).status_code == status, f"{status} for the key")


class TestKeys:
    def test_without_a_key_or_with_a_wrong_one_it_is_a_401_never_a_200(
        self, serving: Serving, keys: KeyFile
    ) -> None:
        good = keys.create("ada", "default", None, None)
        become(serving, good, 200)
        wrong = ("x", good[:-1], good + "x", "wl_", "wl__", "é", "wl_" + "0" * 12 + "_x")
        for key in (None, *wrong):
            header = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
            response = serving.client.post(
                "/v2/models/guarded/infer", content=json.dumps(ROW), headers=header
            )
            assert response.status_code == 401, key
            assert response.headers["www-authenticate"] == "Bearer"
        assert ask(serving, None, "open").status_code == 200

    def test_a_new_key_opens_at_once(self, serving: Serving, keys: KeyFile) -> None:
        for name in ("ada", "eve"):
            assert ask(serving, keys.create(name, "default", None, None)).status_code == 200
        assert ask(serving, keys.rotate("ada", overlap=60.0)).status_code == 200

    def test_a_key_goes_in_either_header(self, serving: Serving, keys: KeyFile) -> None:
        key = keys.create("ada", "default", "guarded", None)
        become(serving, key, 200)
        assert serving.infer("guarded", ROW, {"x-api-key": key}).status_code == 200

    def test_metadata_and_numbers_are_guarded_too(self, serving: Serving, keys: KeyFile) -> None:
        key = keys.create("ada", "default", "guarded", None)
        become(serving, key, 200)
        for rest in ("", "/config", "/stats"):
            path = f"/v2/models/guarded{rest}"
            assert serving.client.get(path).status_code == 401
            assert serving.client.get(path, headers={"x-api-key": key}).status_code == 200
        assert serving.client.get("/v2/models/guarded/ready").status_code == 200

    def test_a_key_for_something_else_is_a_403(self, serving: Serving, keys: KeyFile) -> None:
        keys.create("other", "lab", None, None)
        good = keys.create("ada", "default", "guarded", None)
        lab, one = keys.create("lab", "lab", None, None), keys.create("one", "default", "x", None)
        become(serving, good, 200)
        assert [ask(serving, key).status_code for key in (lab, one)] == [403, 403]

    def test_a_revoked_key_is_refused_within_a_second(
        self, serving: Serving, keys: KeyFile
    ) -> None:
        key = keys.create("ada", "default", None, None)
        become(serving, key, 200)
        keys.revoke("ada")
        until(lambda: ask(serving, key).status_code == 401, "it is refused", 10)
        with pytest.raises(UnknownKeyError, match="there is no key ada; there are: none"):
            keys.revoke("ada")

    def test_after_a_rotation_both_hold_for_a_while(self, serving: Serving, keys: KeyFile) -> None:
        old = keys.create("ada", "default", None, None)
        new = keys.rotate("ada", overlap=3.0)
        become(serving, new, 200)
        end = time.time() + 3.0
        if time.time() < end - 2:
            assert ask(serving, old).status_code == 200
        become(serving, old, 401)
        assert ask(serving, new).status_code == 200

    def test_a_key_over_its_rate_is_a_429_that_says_when(
        self, serving: Serving, keys: KeyFile
    ) -> None:
        key = keys.create("ada", "default", None, 0.1)
        become(serving, key, 200)
        response = ask(serving, key)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1

    def test_only_hashes_are_written_and_nothing_is_logged(
        self, serving: Serving, keys: KeyFile, tmp_path: Path
    ) -> None:
        key = keys.create("ada", "default", None, None)
        become(serving, key, 200)
        ask(serving, key + "x")
        secret = key.split("_", 2)[2]
        assert secret not in (tmp_path / "keys.json").read_text()
        assert secret not in serving.log()
        assert secret not in serving.client.get("/metrics").text
        assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0

    def test_a_damaged_file_lets_nobody_in_and_a_mended_one_does_again(
        self, serving: Serving, keys: KeyFile, tmp_path: Path
    ) -> None:
        key = keys.create("ada", "default", None, None)
        become(serving, key, 200)
        text = (tmp_path / "keys.json").read_text()
        (tmp_path / "keys.json").write_text("{")
        become(serving, key, 401)
        (tmp_path / "keys.json").write_text(text)
        become(serving, key, 200)

    def test_grpc_asks_for_the_same_keys(self, serving: Serving, keys: KeyFile) -> None:
        key = keys.create("ada", "default", None, None)
        become(serving, key, 200)
        place = f"127.0.0.1:{serving.announcement['grpc_port']}"
        with grpc.insecure_channel(place) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            # Field 1, the model's name; no input: the model is asked, and refuses.
            body = b"\x0a\x07guarded"
            for given, code in ((None, "UNAUTHENTICATED"), (key, "INVALID_ARGUMENT")):
                metadata = [("authorization", f"Bearer {given}")] if given else []
                with pytest.raises(grpc.RpcError) as caught:
                    call(body, metadata=metadata, timeout=20)
                assert caught.value.code().name == code


class TestUsage:
    def test_it_is_counted_by_key_and_kept_through_a_restart(
        self, serving: Serving, keys: KeyFile
    ) -> None:
        key = keys.create("ada", "default", None, None)
        ask(serving, None)
        for _ in range(5):
            ask(serving, key)
        serving.infer("guarded", {}, {"x-api-key": key})
        ask(serving, None, "open")
        serving.process.send_signal(signal.SIGTERM)
        serving.process.wait(20)
        file = serving.state / "usage.json"
        before = {(e["deployment"], e["key"]): e for e in json.loads(file.read_text())["usage"]}
        assert before["guarded", "ada"]["ok"] == 5
        assert before["guarded", "ada"]["refused"] == 1
        assert before["guarded", ""]["refused"] == 1
        assert before["open", ""]["ok"] == 1
        serving.start()
        serving.process.send_signal(signal.SIGTERM)
        serving.process.wait(20)
        assert {
            (e["deployment"], e["key"]): e for e in json.loads(file.read_text())["usage"]
        } == before


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "windlass test")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, secret = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return chain, secret


class TestTls:
    def test_it_serves_by_tls_and_plain_text_gets_nothing(
        self, tmp_path: Path, certificate: tuple[Path, Path]
    ) -> None:
        with Serving(tmp_path / "state", 0, "--tls", *map(str, certificate)) as serving:
            serving.deploy("m", onnx_models.identity(tmp_path / "m.onnx"))
            trust = ssl.create_default_context(cafile=str(certificate[0]))
            url = f"https://127.0.0.1:{serving.port}/v2/models/m/infer"
            for _ in range(2):
                assert httpx.post(url, json=ROW, verify=trust).status_code == 200
            with socket.create_connection(("127.0.0.1", serving.port), timeout=20) as client:
                client.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
                client.settimeout(20)
                with contextlib.suppress(ConnectionResetError):
                    assert not client.recv(100).startswith(b"HTTP")

    def test_files_that_do_not_go_together_are_said_to_be_so(
        self, tmp_path: Path, certificate: tuple[Path, Path]
    ) -> None:
        (tmp_path / "bad.pem").write_text("junk")
        command = [sys.executable, "-m", "windlass.serving", "--state", str(tmp_path / "s")]
        done = subprocess.run(
            [*command, "--port=0", "--tls", str(certificate[0]), str(tmp_path / "bad.pem")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert "mend params.tls" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_renewed_certificate_holds_from_the_next_connection_on(self, tmp_path: Path) -> None:
        """Half a renewal changes nothing, and nobody who is connected notices anything."""
        first, second = (make_certificates(tmp_path / name) for name in ("first", "second"))
        chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
        shutil.copy(first.certificate, chain)
        shutil.copy(first.key, key)
        arguments = ("--grpc-port", "0", "--tls", str(chain), str(key))
        with Serving(tmp_path / "state", 0, *arguments) as serving:
            serving.deploy("m", onnx_models.identity(tmp_path / "m.onnx"))
            url = f"https://127.0.0.1:{serving.port}/v2/models/m/infer"
            grpc_place = f"localhost:{serving.announcement['grpc_port']}"

            def answers(made: Certificates) -> bool:
                trust = ssl.create_default_context(cafile=str(made.authority))
                try:
                    return httpx.post(url, json=ROW, verify=trust, timeout=20).status_code == 200
                except httpx.ConnectError:
                    return False

            trust = ssl.create_default_context(cafile=str(first.authority))
            with httpx.Client(verify=trust) as connected:
                assert connected.post(url, json=ROW).status_code == 200
                shutil.copy(second.certificate, chain)
                until(lambda: "certificate not renewed" in serving.log(), "half is seen")
                assert answers(first)
                shutil.copy(second.key, key)
                until(lambda: answers(second), "the new one holds")
                assert not answers(first)
                assert connected.post(url, json=ROW).status_code == 200
            for made, known in ((second, True), (first, False)):
                secrets = grpc.ssl_channel_credentials(made.authority.read_bytes())
                with grpc.secure_channel(grpc_place, secrets) as channel:
                    ready = grpc.channel_ready_future(channel)
                    if known:
                        ready.result(20)
                    else:
                        with pytest.raises(grpc.FutureTimeoutError):
                            ready.result(1)
