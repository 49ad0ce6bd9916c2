"""Call a function for many items on several threads, and yield the results in the items' order, however many items there are."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4  # what bounds the memory


def in_order(function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int = AHEAD) -> Iterator[Result]:
    """Yield `function(item)` for each item in order; the first that raises, in that order, ends it.

    At most `ahead` items a thread are begun and not yet asked for.
    Threads and not processes: Pillow's decoders and filters run without Python's lock, and a library may be called from any script.
    """
    if threads == 1:
        yield from map(function, items)
        return
    begun: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                begun.append(pool.submit(function, item))
                if len(begun) >= ahead * threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
