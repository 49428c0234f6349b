"""The command line as a process: quick to start, quiet when stopped, plain in a pipe."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rig.api_daemon import ApiDaemon, api_daemon, deployment, job, until
from rig.command_line import start
from windlass_schemas import Reason


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(tmp_path) as found:
        await found.declare(job("train"), deployment("wine"))
        yield found


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode()


async def _end(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Exit code and stderr."""
    async with asyncio.timeout(20):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


async def _runs_well(code: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    ended, err = await _end(process)
    assert ended == 0, err


@pytest.mark.parametrize("words", [["--help"], ["get", "--server", "127.0.0.1:9"]])
async def test_a_client_command_loads_neither_server_nor_runtime(words: list[str]) -> None:
    """That is what keeps it quick: these imports alone take longer than a command may."""
    code = (
        "import sys\n"
        "from windlass.cli.root import run\n"
        f"run({words!r})\n"
        "heavy = {'fastapi', 'uvicorn', 'onnxruntime', 'numpy', 'starlette'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)\n"
    )
    await _runs_well(code)


async def test_a_daemon_begins_before_its_server_is_loaded() -> None:
    """An edit that waits at a start waits neither for the API nor for adapters that nobody uses."""
    code = (
        "import sys\n"
        "import windlass.app\n"
        "late = {'fastapi', 'uvicorn', 'aio_pika', 'asyncpg', 'asyncssh', 'botocore', 'numpy'}\n"
        "sys.exit(', '.join(sorted(late & set(sys.modules))) or 0)\n"
    )
    await _runs_well(code)


async def test_watching_shows_each_change_until_it_is_stopped(daemon: ApiDaemon) -> None:
    """Ctrl-C is quiet: nothing on stderr, exit code 130."""
    process = await start("get", "-w", "--server", daemon.url)
    assert (await _line(process)).startswith("KIND/NAME")
    assert [(await _line(process)).split()[0] for _ in "ab"] == ["Deployment/wine", "Job/train"]
    await until(lambda: len(daemon.readers) == 1)
    await daemon.conclude("Job/train", "True", Reason.SUCCEEDED, "done")
    assert (await _line(process)).split()[:2] == ["Job/train", "True"]
    await daemon.remove("Job/train")
    assert (await _line(process)).split()[-1] == "deleted"
    process.send_signal(signal.SIGINT)
    assert await _end(process) == (130, "")


async def test_following_events_survives_a_restart_of_the_daemon(
    daemon: ApiDaemon, tmp_path: Path
) -> None:
    """No event is lost and none comes twice, though it happened while nobody answered."""
    folder = tmp_path / "second"
    async with api_daemon(folder) as first:
        port = int(first.url.rpartition(":")[2])
        await first.declare(job("train"))
        await first.conclude("Job/train", "False", Reason.PROGRESSING, "one")
        process = await start("events", "-w", "--server", first.url)
        assert (await _line(process)).startswith("TIME")
        assert (await _line(process)).split()[-1] == "one"
    async with api_daemon(folder, port=port) as second:
        await second.conclude("Job/train", "False", Reason.PROGRESSING, "two")
        assert (await _line(process)).split()[-1] == "two"
        process.send_signal(signal.SIGINT)
        code, err = await _end(process)
    assert code == 130
    assert "went away; waiting" in err
    assert "Traceback" not in err


async def test_a_reader_that_has_enough_is_no_error(daemon: ApiDaemon) -> None:
    """As with ``| head -1``: the pipe breaks, and nothing is said about it."""
    for number in range(60):
        await daemon.conclude("Job/train", "False", Reason.PROGRESSING, str(number) * 2000)
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from windlass.cli import main; main()",
        "events",
        "--server",
        daemon.url,
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    await asyncio.to_thread(os.read, reading, 10)
    os.close(reading)
    _, err = await _end(process)
    assert err == ""


async def test_a_request_may_come_from_a_pipe(daemon: ApiDaemon) -> None:
    """``-d -`` reads it."""
    process = await start("infer", "wine", "-d", "-", "--server", daemon.url)
    async with asyncio.timeout(20):
        _, err = await process.communicate(b"not JSON")
    assert process.returncode == 1
    assert b"the request is not JSON" in err


async def test_completion_knows_the_commands() -> None:
    """What the shell asks for when somebody presses Tab."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from windlass.cli import main; main()",
        env=os.environ
        | {"_WINDLASS_COMPLETE": "complete_bash", "COMP_WORDS": "windlass de", "COMP_CWORD": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        out, _ = await process.communicate()
    assert out.decode().split() == ["describe", "delete"]
