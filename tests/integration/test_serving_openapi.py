"""The corrected OpenAPI document of the Open Inference Protocol, with schemathesis as the judge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rig import onnx_models
from rig.serving import Serving

DOCUMENT = Path(__file__).resolve().parents[1] / "data/oip/openapi.yaml"
CHECKS = ",".join(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
        "unsupported_method",
        "negative_data_rejection",
    ]
)


def test_every_answer_is_one_that_the_document_knows(tmp_path: Path) -> None:
    with Serving(tmp_path / "state") as serving:
        serving.deploy("m", onnx_models.identity(tmp_path / "m.onnx"))
        command = [sys.executable, "-m", "schemathesis.cli", "run", str(DOCUMENT)]
        options = ["--checks", CHECKS, "--max-examples", "15", "--generation-database", "none"]
        options += ["--phases", "examples,coverage,fuzzing"]
        done = subprocess.run(
            [*command, *options, "--url", f"http://127.0.0.1:{serving.port}", "--seed", "1"],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
