"""What containers print: read from CloudWatch, page after page, followed, and whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.cloud import Cloud, cloud_in
from rig.cloud_stories import RUNS, run_of
from windlass.api.logs import BOTH, RunLog, latest_run
from windlass_adapters.base import AdapterError, External, ReadsLogs, TerminalError
from windlass_adapters.sagemaker import logs as reading


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an account that holds nothing."""
    async with cloud_in(tmp_path) as world:
        yield world


async def write(cloud: Cloud, group: str, stream: str, lines: Sequence[str], at: int = 0) -> None:
    """A container prints, ``at`` seconds from now."""
    async with cloud.aws.client("logs") as logs:
        for make, names in (
            (logs.create_log_group, {"logGroupName": group}),
            (logs.create_log_stream, {"logGroupName": group, "logStreamName": stream}),
        ):
            try:
                await make(**names)
            except logs.exceptions.ResourceAlreadyExistsException:
                continue
        now = int((cloud.now.timestamp() + at) * 1000)
        events = [{"timestamp": now + i, "message": line} for i, line in enumerate(lines)]
        for first in range(0, len(events), 1000):
            part = events[first : first + 1000]
            await logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=part)
    cloud.aws.calls.clear()


async def adapter_and_run(cloud: Cloud, key: str) -> tuple[ReadsLogs, External]:
    """What ``windlass logs`` looks for."""
    found = await cloud.get(key)
    adapter = (await cloud.target_of(found)).adapter
    assert isinstance(adapter, ReadsLogs)
    record = latest_run(found)
    assert record is not None
    return adapter, record.external


async def told(cloud: Cloud, key: str, *, follow: bool = False) -> str:
    """All that ``windlass logs`` prints."""
    adapter, external = await adapter_and_run(cloud, key)
    log = RunLog(adapter, external, BOTH)
    printed: list[bytes] = []

    async def keep(data: bytes) -> None:
        printed.append(data)

    await log.write(await log.read(), follow, keep)
    return b"".join(printed).decode()


GROUPS = {
    "training": ("TrainingJobs", "algo-1-1700000000"),
    "processing": ("ProcessingJobs", "algo-1-1700000000"),
    "transform": ("TransformJobs", "i-0abc-1700000000"),
}


@pytest.mark.parametrize("kind", RUNS)
async def test_what_a_job_prints_is_told(cloud: Cloud, kind: str) -> None:
    """Each kind of job has a log group of its own; other jobs' lines are not told."""
    cloud.aws.plan("transform", files={"data.csv.out": b"1"})
    await cloud.declare(cloud.target(), cloud.model(), run_of(cloud, kind))
    await cloud.until_ready("Job/run")
    (name,) = cloud.names(f"{kind}-job")
    group, stream = GROUPS[kind]
    await write(cloud, f"/aws/sagemaker/{group}", f"{name}/{stream}", ["one", "two\n", "ü"])
    await write(cloud, f"/aws/sagemaker/{group}", f"{name}0/{stream}", ["another's"])
    assert await told(cloud, "Job/run") == "one\ntwo\nü\n"


async def test_a_long_log_is_read_whole_in_pieces(cloud: Cloud) -> None:
    """Page after page, each line once and in its place, in pieces of 64 KiB at most."""
    await cloud.declare(cloud.target(), run_of(cloud, "training"))
    await cloud.until_ready("Job/run")
    (name,) = cloud.names("training-job")
    lines = [f"line {i} {'x' * 50}" for i in range(3500)]
    await write(cloud, "/aws/sagemaker/TrainingJobs", f"{name}/algo-1-1700000000", lines)
    adapter, run = await adapter_and_run(cloud, "Job/run")
    offset, found = 0, b""
    while True:
        chunk = await adapter.read_log(run, "stdout", offset)
        assert len(chunk.data) <= reading.PIECE
        assert not chunk.data or chunk.data.endswith(b"\n")
        assert chunk.next_offset == offset + len(chunk.data)
        offset, found = chunk.next_offset, found + chunk.data
        if chunk.complete or not chunk.data:
            break
    assert found.decode().splitlines() == lines
    assert cloud.calls()["GetLogEvents"] <= 7
    later = await adapter.read_log(run, "stdout", 1000)  # a place that nobody remembers
    assert later.data == found[1000 : 1000 + len(later.data)]


async def test_lines_of_several_machines_are_told_apart(cloud: Cloud) -> None:
    """In the order of their times, each with its machine."""
    await cloud.declare(cloud.target(), run_of(cloud, "training"))
    await cloud.until_ready("Job/run")
    (name,) = cloud.names("training-job")
    group = "/aws/sagemaker/TrainingJobs"
    await write(cloud, group, f"{name}/algo-2-1700000000", ["b", "d"], at=1)
    await write(cloud, group, f"{name}/algo-1-1700000000", ["a"])
    assert await told(cloud, "Job/run") == "[algo-1] a\n[algo-2] b\n[algo-2] d\n"


async def test_the_children_of_a_sweep_are_told_apart(cloud: Cloud) -> None:
    """A tuning job prints nothing itself."""
    spec: dict[str, JsonValue] = {
        "entrypoint": "run.py",
        "target": "cloud",
        "timeLimit": "1h",
        "ranges": {"rate": {"min": 0.1, "max": 0.5}},
        "objective": {"metric": "loss", "regex": "loss: ([0-9.]+)"},
        "maxJobs": 2,
    }
    sweep = cloud.document("Sweep", "search", spec, {"run.py": b"print(1)\n"})
    await cloud.declare(cloud.target(), sweep)
    await cloud.until_ready("Sweep/search")
    for number, child in enumerate(cloud.names("training-job"), start=1):
        stream = f"{child}/algo-1-1700000000"
        await write(cloud, "/aws/sagemaker/TrainingJobs", stream, [f"loss: {number}"], number)
    lines = (await told(cloud, "Sweep/search")).splitlines()
    assert [line.partition("] ")[2] for line in lines] == ["loss: 1", "loss: 2"]
    assert len({line.partition("]")[0] for line in lines}) == 2


async def test_a_log_is_followed_to_the_end_of_its_job(cloud: Cloud) -> None:
    """First that there is nothing yet, then what comes, then the end; few questions meanwhile."""
    await cloud.declare(cloud.target(), run_of(cloud, "training"))
    await cloud.after(seconds=30)
    (name,) = cloud.names("training-job")
    adapter, run = await adapter_and_run(cloud, "Job/run")
    log = RunLog(adapter, run, BOTH)
    note = (await log.read()).data.decode()
    assert note.startswith(f"windlass: {name} has not printed anything yet")
    assert "/aws/sagemaker/TrainingJobs" in note
    await write(cloud, "/aws/sagemaker/TrainingJobs", f"{name}/algo-1-1700000000", ["first"])
    cloud.now += timedelta(seconds=20)
    assert (await log.read()).data == b"first\n"
    assert (await log.read()).data == b""
    asked = len(cloud.aws.calls.log)
    for _ in range(20):  # asked many times a second, and AWS only when a pause is over
        assert await log.read() == (b"", 0, False)
    assert len(cloud.aws.calls.log) == asked
    stream = f"{name}/algo-1-1700000000"
    found, seconds = b"", 0
    while not (chunk := await log.read()).complete:
        found, seconds = found + chunk.data, seconds + 5
        assert seconds < 600
        if seconds == 25:
            await write(cloud, "/aws/sagemaker/TrainingJobs", stream, ["second"])
        cloud.now += timedelta(seconds=5)
    assert found == b"second\n"


async def test_a_job_without_a_log_says_so(cloud: Cloud) -> None:
    """It ended before its container began, for example."""
    cloud.aws.plan("training", fail="ClientError: no such image")
    await cloud.declare(cloud.target(), run_of(cloud, "training"))
    await cloud.after(minutes=10)
    said = await told(cloud, "Job/run", follow=True)
    assert "has left no log" in said
    assert "/aws/sagemaker/TrainingJobs" in said


async def test_the_log_of_an_endpoint_is_that_of_the_last_hour(cloud: Cloud) -> None:
    """By variant and machine; what a Model prints is nothing, and said."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    assert "has printed anything" in await told(cloud, "Deployment/wine")
    group = "/aws/sagemaker/Endpoints/wine"
    await write(cloud, group, "AllTraffic/i-1", ["old"], at=-7200)
    await write(cloud, group, "AllTraffic/i-1", ["loaded", "GET /ping"], at=-60)
    assert await told(cloud, "Deployment/wine") == "loaded\nGET /ping\n"
    with pytest.raises(TerminalError, match="prints nothing"):
        await told(cloud, "Model/wine")


@pytest.mark.parametrize("kind", ["throttle", "unavailable", "reset", "html"])
@pytest.mark.parametrize("operation", ["DescribeLogStreams", "GetLogEvents"])
async def test_a_fault_loses_no_line(cloud: Cloud, kind: str, operation: str) -> None:
    """The reader hears of it and asks again at the same place."""
    await cloud.declare(cloud.target(), run_of(cloud, "training"))
    await cloud.until_ready("Job/run")
    (name,) = cloud.names("training-job")
    await write(cloud, "/aws/sagemaker/TrainingJobs", f"{name}/algo-1-1700000000", ["a", "b"])
    adapter, run = await adapter_and_run(cloud, "Job/run")
    cloud.aws.faults.add(kind, operation)
    with pytest.raises(AdapterError):
        await adapter.read_log(run, "stdout", 0)
    assert (await adapter.read_log(run, "stdout", 0)).data == b"a\nb\n"
    assert (await adapter.read_log(run, "stderr", 0)).complete


async def test_a_log_that_may_not_be_read_names_the_action(cloud: Cloud) -> None:
    """And where the policy is."""
    await cloud.declare(cloud.target(), run_of(cloud, "training"))
    await cloud.until_ready("Job/run")
    adapter, run = await adapter_and_run(cloud, "Job/run")
    cloud.aws.faults.add("denied", "DescribeLogStreams")
    with pytest.raises(AdapterError, match=r"DescribeLogStreams.*docker/iam"):
        await adapter.read_log(run, "stdout", 0)
