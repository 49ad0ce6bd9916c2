"""Work on several threads: results in order, a bounded number ahead, the first error in order."""

import threading
import time
from collections.abc import Iterator

import pytest

from odn.data.in_order import AHEAD, in_order


@pytest.mark.parametrize("threads", [1, 4])
def test_results_come_in_order(threads: int) -> None:
    """Whichever is done first."""

    def slow_when_even(item: int) -> int:
        time.sleep(0.002 * (item % 2 == 0))
        return item * item

    assert list(in_order(slow_when_even, range(50), threads=threads)) == [item * item for item in range(50)]


def test_several_threads_work_at_once() -> None:
    """Each of three waits for the two others."""
    barrier = threading.Barrier(3, timeout=10)
    assert len(list(in_order(lambda _: barrier.wait(), range(3), threads=3))) == 3


def test_only_a_few_are_begun_ahead() -> None:
    """Items are taken as results are: memory does not grow with their number."""
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    results = in_order(lambda item: item, items(), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= 3 + 2 * AHEAD
    results.close()  # type: ignore[attr-defined]  # a generator, whose pool ends with it


def test_the_first_error_in_order_is_raised() -> None:
    """Not the one that happened first, so that the same file is named each time."""

    def fail(item: int) -> int:
        time.sleep(0.05 * (item == 3))
        if item >= 3:
            raise ValueError(f"item {item}")
        return item

    with pytest.raises(ValueError, match="item 3"):
        list(in_order(fail, range(20), threads=4))
