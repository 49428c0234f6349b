"""What ``windlass validate`` says of fields that an adapter reads: the place, and what to write."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from specs_text import Keeper
from windlass.checks import adapter_check
from windlass.registry import Registry
from windlass.sources.foldertree import FolderTree
from windlass.sources.loader import Loader

TARGET = """\
apiVersion: windlass/v1
kind: Target
metadata: {name: hpc}
spec:
  adapter: slurm
  params:
    host: login
    remoteRoot: /scratch/ada/windlass
"""
JOB = """\
---
apiVersion: windlass/v1
kind: Job
metadata: {name: j}
spec:
  target: hpc
  command: [x]
"""


def faults(folder: Path, params: str = "", job: str = "") -> list[str]:
    """Of a Target with more params, and of a Job on it with more of a spec."""
    params, job = textwrap.indent(params, "    "), textwrap.indent(job, "  ")
    text = "\n".join(part.rstrip("\n") for part in (TARGET, params, JOB, job) if part)
    (folder / "a.yaml").write_text(text + "\n")
    loaded = Loader(Keeper(), adapter_check(Registry())).load(FolderTree(folder))
    return [str(fault) for fault in loaded.faults]


def test_a_good_target_and_job_have_no_faults(tmp_path: Path) -> None:
    assert faults(tmp_path) == []
    params = "defaults: {partition: cpu, nodes: 2-4}"
    options = "options: {nodes: 2, gpus: a100:1, mem: 4G, signal: USR1@60, time: 2h}\ntimeLimit: 1h"
    assert faults(tmp_path, params, options) == []


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("options: {cpus: 0}", "16:19 spec.options.cpus: is 0; write a number of at least 1"),
        ("options: {nodes: 0}", "16:20 spec.options.nodes: is 0; write a number of at least 1"),
        ("options: {gpus: a b}", "16:19 spec.options.gpus: must be one word, without blanks,"),
        ("options: {mem: lots}", "16:18 spec.options.mem: must be a whole number with K, M, G"),
        ("options: {extraArgs: [--nice=1, --wrap=x]}", "16:35 spec.options.extraArgs[1]: --wrap"),
        ("options: {signal: HUP@9}", "16:21 spec.options.signal: must be USR1, USR2 or TERM, @"),
        ("options: {memory: 1G}", "16:21 spec.options.memory: is no known field; remove it, or"),
        ("options: {partion: x}", "16:22 spec.options.partion: is no known field; write partition"),
        (
            "options: {container: {runtime: docker}}",
            '16:34 spec.options.container.runtime: "docker" is not possible here; write apptainer',
        ),
        (
            "options: {time: 1m}\ntimeLimit: 1h",
            "16:19 spec.options.time: is shorter than timeLimit; remove one of them",
        ),
        ("image: python", "16:10 spec.image: python is no image here; write a path on the"),
        (
            "array: {indices: 0-200000}",
            "16:10 spec.array: 200001 elements are more than 100000; use less",
        ),
    ],
)
def test_a_wrong_job_is_told_before_it_is_sent(tmp_path: Path, job: str, said: str) -> None:
    """One fault each, at the value, in words that say what to write."""
    (fault,) = faults(tmp_path, job=job)
    assert fault.startswith(f"a.yaml:{said}")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("prot: 22", "9:11 spec.params.prot: is no known field; write port, or one of: host, port"),
        (
            "defaults: {partitions: cpu}",
            "9:28 spec.params.defaults.partitions: is no known field; write partition, or one of:"
            " partition, account, qos",
        ),
        ("port: x", "9:11 spec.params.port: must be a whole number; write for example 3"),
        ("limits: {poll: 0s}", "9:13 spec.params.limits: poll must be at least 100ms"),
        ("key: PRIVATE KEY", "7:5 spec.params: key: write file:/path or env:NAME, never the key"),
    ],
)
def test_a_wrong_target_is_told_before_it_is_used(tmp_path: Path, params: str, said: str) -> None:
    """Also inside of its defaults for Jobs: those have fields of their own."""
    (fault,) = faults(tmp_path, params)
    assert fault.startswith(f"a.yaml:{said}")


def test_what_is_missing_is_told_with_its_meaning(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TARGET.replace("    host: login\n", ""))
    loaded = Loader(Keeper(), adapter_check(Registry())).load(FolderTree(tmp_path))
    (fault,) = map(str, loaded.faults)
    assert "spec.params.host: is missing; add it (The login node, or a" in fault
