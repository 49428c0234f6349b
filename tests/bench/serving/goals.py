"""The goals that compare two servers, or a server and the runtime alone: who against whom."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.serving.contenders import CONTENDERS, Contender
from bench.serving.load import Running, wrk
from bench.serving.pairs import Gate, Pair, Side, in_turns, looping
from bench.serving.payloads import Loop, Payload
from bench.serving.servers import running, wait_for_right_answer

Payloads = Mapping[str, Payload]
_BY_NAME = {each.name: each for each in CONTENDERS}


@contextmanager
def _up(payload: Payload, *names: str) -> Iterator[dict[str, tuple[Contender, Running]]]:
    """All of them at the same time, each asked once and warm. Who does not start is left out."""
    found = {}
    with ExitStack() as stack:
        for name in names:
            contender = _BY_NAME[name]
            with ExitStack() as own:
                place = own.enter_context(running(contender, payload))
                try:
                    wait_for_right_answer(contender, payload, place.port)
                except TimeoutError as error:
                    if name.startswith("Windlass"):
                        raise
                    print(f"left out, with every goal that it is part of: {error}", flush=True)
                    continue
                stack.push(own.pop_all())
            wrk(contender, payload, place, 8, 1)
            found[name] = contender, place
        yield found


def _side(
    up: Mapping[str, tuple[Contender, Running]],
    payload: Payload,
    name: str,
    connections: int,
    seconds: float = 1.0,
) -> Side:
    contender, place = up[name]
    return Side(name, partial(wrk, contender, payload, place, connections), seconds)


def json(payloads: Payloads, rounds: int) -> list[Gate]:
    """The small model with many clients: what a server costs beside the model."""
    payload = payloads["small"]
    wanted = (("FastAPI", 10.0), ("Triton", 5.0), ("mosec batching", 1.75))
    with _up(payload, "Windlass", *(name for name, _ in wanted)) as up, Loop(payload, 1) as loop:
        ours = _side(up, payload, "Windlass", 64)
        pairs = [
            Pair(
                f"small, 64 connections: rate over that of {name}",
                ours,
                _side(up, payload, name, 64),
                ">=",
                goal,
            )
            for name, goal in wanted
            if name in up
        ]
        text = "small, 64: rate over `session.run` row by row"
        pairs.append(Pair(text, ours, looping(loop, 1), ">=", 0.5))
        in_turns(pairs, rounds)
    return [*(pair.gate() for pair in pairs), _failed("small, 64", [ours])]


def binary(payloads: Payloads, rounds: int) -> list[Gate]:
    """The same with binary tensors."""
    payload = payloads["small"]
    with _up(payload, "Windlass binary", "Triton binary") as up:
        if "Triton binary" not in up:
            return []
        ours, theirs = (_side(up, payload, name, 64) for name in up)
        text = "small, 64, binary tensors: rate over that of Triton"
        pair = Pair(text, ours, theirs, ">=", 4.0)
        in_turns([pair], rounds)
    return [pair.gate(), _failed("small, 64, binary", [ours])]


def one(payloads: Payloads, rounds: int) -> list[Gate]:
    """One client: how long an answer takes, and that batching does not make it longer."""
    payload = payloads["small"]
    with _up(payload, "Windlass", "Windlass unbatched", "FastAPI", "Triton", "mosec") as up:
        ours = _side(up, payload, "Windlass", 1)
        against = {
            name: Pair(
                f"p50 over that of {name}", ours, _side(up, payload, name, 1), "<=", 0.0, "p50"
            )
            for name in up
            if not name.startswith("Windlass")
        }
        text = "small, 1: rate with batching over the rate without"
        unbatched = _side(up, payload, "Windlass unbatched", 1)
        batching = Pair(text, ours, unbatched, ">=", 0.9)
        in_turns([*against.values(), batching], rounds)
    found = [batching.gate(), _failed("small, 1", [ours, unbatched])]
    if "FastAPI" in against:
        ratios = tuple(against["FastAPI"].ratios)
        found.append(Gate("small, 1 connection: p50 over that of FastAPI", "<=", 0.4, ratios))
    if against:
        # The best peer is the one that we are least ahead of.
        best = max(against, key=lambda name: against[name].gate().got)
        text = f"small, 1: p50 over that of the best peer, {best}"
        found.append(Gate(text, "<=", 0.75, tuple(against[best].ratios)))
    return found


def deep(payloads: Payloads, rounds: int) -> list[Gate]:
    """A model that memory limits, and that gains by batching."""
    payload = payloads["deep"]
    with _up(payload, "Windlass") as up, Loop(payload, 32) as loop:
        ours = _side(up, payload, "Windlass", 64, 4.0)
        text = "deep (memory-bound), 64: rate over `session.run` in batches of 32"
        pair = Pair(text, ours, looping(loop, 32, 2.0), ">=", 0.88)
        in_turns([pair], rounds)
    return [pair.gate(), _failed("deep", [ours])]


def conv(payloads: Payloads, rounds: int) -> list[Gate]:
    """A model that computing limits: fair, and no slower than the runtime is at its best."""
    payload = payloads["conv"]
    with _up(payload, "Windlass") as up, Loop(payload, 1) as single, Loop(payload, 32) as batched:
        ours = _side(up, payload, "Windlass", 64, 4.0)
        text = "conv (compute-bound), 64: rate over `session.run`"
        limits = looping(single, 1, 4.0), looping(batched, 32, 2.0)
        pairs = [Pair(text, ours, limit, ">=", 0.9) for limit in limits]
        in_turns(pairs, (rounds + 1) // 2)
    spread = tuple(cell.p99 / cell.p50 for cell in ours.cells)
    limit = statistics.median(single.spreads[1:])  # the first one was to warm up
    text = (
        f"conv, 64: p99 over p50 ({limit:.3g} in front of `session.run` alone, one after the other)"
    )
    return [
        min((pair.gate() for pair in pairs), key=lambda gate: gate.got),
        Gate(text, "<=", 1.15, spread),
        _failed("conv", [ours]),
    ]


def _failed(text: str, sides: Sequence[Side]) -> Gate:
    bad = sum(cell.bad for side in sides for cell in side.cells)
    return Gate(f"{text}: failed requests", "<=", 0, (float(bad),))


GOALS: Mapping[str, Callable[[Payloads, int], list[Gate]]] = {
    "json": json,
    "binary": binary,
    "one": one,
    "deep": deep,
    "conv": conv,
}
