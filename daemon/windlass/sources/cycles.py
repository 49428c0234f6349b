"""Dependency cycles between the documents of one source (hop 1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from windlass_schemas import Key

Graph = Mapping[Key, Sequence[Key]]


def find_cycles(graph: Graph) -> Mapping[Key, tuple[Key, ...]]:
    """For each key that needs itself: the shortest way from it back to it, both ends included."""
    left = _leftover(graph)
    cyclic = {key: [need for need in graph[key] if need in left] for key in sorted(left)}
    found: dict[Key, tuple[Key, ...]] = {}
    for key in cyclic:
        if key not in found:
            way = _way_back(key, cyclic)
            for i, member in enumerate(way[:-1]):
                found.setdefault(member, way[i:-1] + way[: i + 1])
    return found


def _leftover(graph: Graph) -> set[Key]:
    """Keys that lie on a cycle or between two: peel off what nothing needs or needs nothing."""
    left = set(graph)
    for edges in (graph, _reversed(graph)):
        count = {key: sum(1 for n in edges[key] if n in left) for key in left}
        back = _reversed({key: [n for n in edges[key] if n in left] for key in left})
        free = deque(key for key, number in count.items() if number == 0)
        while free:
            key = free.popleft()
            left.discard(key)
            for other in back.get(key, ()):
                count[other] -= 1
                if count[other] == 0:
                    free.append(other)
    return left


def _reversed(graph: Graph) -> dict[Key, list[Key]]:
    back: dict[Key, list[Key]] = {key: [] for key in graph}
    for key, needs in graph.items():
        for need in needs:
            if need in back:
                back[need].append(key)
    return back


def _way_back(start: Key, graph: Graph) -> tuple[Key, ...]:
    """The shortest way from a key to itself; empty when it only lies between cycles."""
    came_from: dict[Key, Key] = {}
    queue = deque([start])
    while queue:
        key = queue.popleft()
        for need in graph[key]:
            if need == start:
                way = [start]
                while key != start:
                    way.append(key)
                    key = came_from[key]
                return (start, *reversed(way)) if len(way) > 1 else (start, start)
            if need not in came_from:
                came_from[need] = key
                queue.append(need)
    return ()
