"""Several steps at once: most of a step's time it waits, for a disk's server or the controller."""

from threading import Lock, Thread
from typing import Callable, Iterator, List, Tuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def abreast(step: Callable[[T], R], things: List[T], width: int) -> List[R]:
    """What a step makes of each thing, in their order, at most ``width`` at once.

    Raises what a step raised; what has begun by then is ended, and nothing more is begun.
    """
    found: List[Tuple[int, R]] = []
    raised: List[BaseException] = []
    left: Iterator[Tuple[int, T]] = iter(enumerate(things))
    turn = Lock()

    def work() -> None:
        while not raised:
            with turn:
                number, thing = next(left, (-1, None))
            if thing is None:
                return
            try:
                found.append((number, step(thing)))
            except BaseException as error:  # belongs to the caller, who waits below
                raised.append(error)

    threads = [Thread(target=work) for _ in range(min(width, len(things)) - 1)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:  # the account may have no more threads: then with those that it has
        pass
    work()
    for thread in threads:
        if thread.ident is not None:
            thread.join()
    if raised:
        raise raised[0]
    return [made for _, made in sorted(found, key=lambda pair: pair[0])]
