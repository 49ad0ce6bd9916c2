"""What a long pass over images tells of its progress: how it is shown is the caller's."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Tick = Callable[[int], None]  # so many more are done


class Show(Protocol):
    """Show how many of `total` are done while the block lasts."""

    def __call__(self, what: str, *, total: int) -> AbstractContextManager[Tick]:
        """Begin with none; each tick adds to them."""


@contextmanager
def silent(what: str, *, total: int) -> Iterator[Tick]:
    """Show nothing."""
    yield lambda n: None
