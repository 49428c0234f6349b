"""What is shipped to the cluster, and how many questions become one."""

from __future__ import annotations

import ast
import asyncio
import io
import re
import threading
import zipfile
from collections.abc import Sequence

import pytest

from windlass_adapters.base import AdapterError, AmbiguousError, TransientError
from windlass_adapters.slurm.connection import Slots
from windlass_adapters.slurm.gathering import Gathering
from windlass_adapters.slurm.login import parse_answer
from windlass_adapters.slurm.program import START, job_script, remote_program
from windlass_adapters.slurm.remote.abreast import abreast


def test_the_program_is_old_python_and_needs_nothing() -> None:
    """Python 3.6, its standard library, and its own modules."""
    allowed = {"windlass_adapters", "base64", "contextlib", "errno", "functools", "hashlib", "io"}
    allowed |= {
        "json",
        "os",
        "re",
        "shutil",
        "stat",
        "subprocess",
        "sys",
        "tarfile",
        "threading",
        "time",
    }
    allowed |= {"typing"}
    with zipfile.ZipFile(io.BytesIO(remote_program().content)) as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist()}
    assert START in sources
    for name, source in sources.items():
        tree = ast.parse(source, name, feature_version=(3, 6))
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert {each.partition(".")[0] for each in names} <= allowed, name
            assert not isinstance(node, ast.NamedExpr), name


def test_its_name_says_its_content() -> None:
    """The same sources, the same bytes."""
    first = remote_program()
    remote_program.cache_clear()
    assert remote_program() == first
    assert re.fullmatch("remote-[0-9a-f]{12}", first.name)
    assert job_script().content.startswith(b"#!/bin/bash\n")


async def test_questions_that_come_together_are_asked_together() -> None:
    """In pieces of bounded size; each gets its own answer or its own error."""
    asked: list[Sequence[int]] = []

    async def ask(numbers: Sequence[int]) -> Sequence[int | AdapterError]:
        asked.append(numbers)
        await asyncio.sleep(0)
        return [TransientError("odd") if n % 2 else n * 10 for n in numbers]

    gathering = Gathering(ask, 4, 0.0)
    found = await asyncio.gather(*(gathering(n) for n in range(10)), return_exceptions=True)
    assert [f for f in found if isinstance(f, int)] == [0, 20, 40, 60, 80]
    assert sum(isinstance(f, TransientError) for f in found) == 5
    assert sum(map(len, asked)) == 10
    assert max(map(len, asked)) == 4


async def test_who_is_gone_asks_nothing_and_leaves_nobody_waiting() -> None:
    """The one who asks for all may be cancelled: the others know that they know nothing."""
    started, go = asyncio.Event(), asyncio.Event()
    asked: list[int] = []

    async def ask(numbers: Sequence[int]) -> Sequence[int | AdapterError]:
        asked.extend(numbers)
        started.set()
        await go.wait()
        return list(numbers)

    gathering = Gathering(ask, 10, 0.0)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(gathering, n)) for n in range(2)]
        await started.wait()
        waiting = group.create_task(_outcome(gathering, 7))
        await asyncio.sleep(0)
        waiting.cancel()
        tasks[0].cancel()
        go.set()
    assert isinstance(tasks[1].result(), AmbiguousError)
    assert 7 not in asked


async def _outcome(gathering: Gathering[int, int], number: int) -> int | AdapterError:
    try:
        return await gathering(number)
    except AdapterError as error:
        return error


async def test_a_bound_that_is_made_narrower_holds() -> None:
    """The server allows fewer channels than one had hoped for."""
    slots, held, most = Slots(4), 0, 0

    async def use() -> None:
        nonlocal held, most
        async with slots:
            held += 1
            most = max(most, held)
            await asyncio.sleep(0)
            held -= 1

    async with slots, slots:
        assert slots.narrow()
    assert slots.limit == 1
    await asyncio.gather(*(use() for _ in range(5)))
    assert most == 1
    async with slots:
        assert not slots.narrow()


@pytest.mark.parametrize("noise", [b"", b"Welcome!\n", b"\xff\xfe motd\n"])
def test_what_a_login_prints_does_not_disturb(noise: bytes) -> None:
    """Only what stands between the marks counts, and only when it is whole."""
    whole = noise + b'\nn0\n{"ok": {"a": 1}}\nn0\n' + noise
    assert parse_answer(whole, "n0") == {"a": 1}
    with pytest.raises(AmbiguousError, match="broke off"):
        parse_answer(whole[: len(noise) + 12], "n0")


def test_steps_side_by_side_keep_their_order_and_their_bound() -> None:
    """At most so many at once, and so many when there is enough to do."""
    together, most, lock = threading.Barrier(3, timeout=10), 0, threading.Lock()
    held = 0

    def step(number: int) -> int:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        together.wait()
        with lock:
            held -= 1
        return 10 * number

    assert abreast(step, list(range(9)), 3) == [10 * n for n in range(9)]
    assert most == 3
    assert abreast(step, [], 3) == []


def test_a_step_that_fails_is_heard_of_and_nothing_more_begins() -> None:
    """Those under way are waited for."""
    begun: list[int] = []

    def step(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        abreast(step, list(range(100)), 1)
    assert begun == [0]


def test_an_account_without_threads_goes_on_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Login nodes bound how many processes an account has."""

    def refused(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert abreast(lambda n: n + 1, [1, 2, 3], 8) == [2, 3, 4]
