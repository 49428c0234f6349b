"""specs/sagemaker as it stands in the tree: trained here, served there, and one line changed."""

from __future__ import annotations

import asyncio
import difflib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from rig.cloud import IMAGE, Cloud, cloud_in
from windlass.registry import Registry
from windlass.sources.opening import open_source
from windlass.store.base import Document
from windlass.targets import Targets
from windlass_adapters.base import Adapter
from windlass_adapters.local import LocalAdapter
from windlass_schemas import Target, key_of

ROOT = Path(__file__).resolve().parents[2]
STORY = ROOT / "specs/sagemaker"
MORE = ROOT / "specs/sagemaker-jobs"


def test_one_line_differs_from_the_quickstart() -> None:
    """The Deployment's target, and the comment on where to ask."""
    first = (ROOT / "specs/quickstart/wine.yaml").read_text().splitlines()
    second = (STORY / "wine.yaml").read_text().splitlines()
    changed = [line for line in difflib.ndiff(first, second) if line[:2] in ("- ", "+ ")]
    fields = [line[2:].split("#")[0].strip() for line in changed]
    assert [field for field in fields if field] == ["target: local", "target: cloud"]
    for name in ("train.py", "request.json"):
        assert (STORY / name).read_bytes() == (ROOT / "specs/quickstart" / name).read_bytes()


async def test_the_story_comes_to_an_endpoint_in_service(tmp_path: Path) -> None:
    """The Job runs on this machine in earnest; only account, place and keys are the test's."""
    async with cloud_in(tmp_path, images={"onnx": IMAGE}) as cloud:
        kept = cloud.artifacts.put_stream
        source = await open_source(STORY, worktree=True, keep=kept, check=lambda *_: ())
        documents = [_ours(cloud, document) for document in (await source.read()).documents]
        assert len(documents) == 4
        await _with_this_machine(cloud)
        await cloud.declare(*documents)
        for _ in range(600):
            await cloud.after(seconds=1)
            if await _is_ready(cloud, "Model/wine"):
                break
            await asyncio.sleep(0.1)  # a real script is at work
        await cloud.until_ready("Deployment/wine")
        assert cloud.names("endpoint") == ["wine"]


async def test_the_other_examples_run(tmp_path: Path) -> None:
    """Processing, transform, tuning that feeds a training, and a Lambda front: as they stand."""
    async with cloud_in(tmp_path, wire=False) as cloud:
        cloud.aws.plan("transform", files={"clean.csv.out": b"0\n1\n"})
        kept = cloud.artifacts.put_stream
        source = await open_source(MORE, worktree=True, keep=kept, check=lambda *_: ())
        documents = (await source.read()).documents
        await cloud.declare(cloud.target(), cloud.model(), *documents)
        await cloud.until_ready(*(str(key_of(document.resource)) for document in documents))
        (fit,) = [c.request for c in cloud.aws.calls.log if c.operation == "CreateTrainingJob"]
        assert {"rate", "steps"} <= fit["HyperParameters"].keys()
        assert len(cloud.aws.others.functions()) == 1
        cloud.aws.monitor.check()


def test_the_scripts_of_the_other_examples_run(tmp_path: Path) -> None:
    """By hand, as in a container."""
    said = ""
    for words in (["clean.py", str(MORE / "wines.csv")], ["search.py", "--rate", "0.05"]):
        script = [sys.executable, str(MORE / words[0]), *words[1:]]
        said += subprocess.run(
            script, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout
    assert "2 of 3 rows are whole" in said
    assert re.search(r"Testing Loss: ([0-9\.]+)", said)
    assert len((tmp_path / "clean.csv").read_text().splitlines()) == 2


async def _is_ready(cloud: Cloud, text: str) -> bool:
    found = await cloud.get(text)
    return found.status.is_true("Ready", found.generation)


def _ours(cloud: Cloud, document: Document) -> Document:
    if not isinstance(document.resource, Target):
        return document
    params: dict[str, JsonValue] = {**document.resource.spec.params, **cloud.target_params()}
    return replace(document, declares=cloud.target(**params).resource)


async def _with_this_machine(cloud: Cloud) -> None:
    """The real local adapter beside the account."""
    await cloud.targets.close()
    registry = cloud.targets._registry
    adapters: dict[str, type[Adapter]] = {
        "local": LocalAdapter,
        "sagemaker": registry.get("sagemaker"),
    }
    targets = Targets(
        cloud.store,
        Registry(adapters),
        cloud.artifacts,
        cloud.folder / "targets",
        {"port": 0},
        cloud.targets._calls,
    )
    cloud.targets = cloud.reconciler._targets = cloud.reconciler.situations._targets = targets
