"""What a long pass over images tells of its progress: how it is shown is the caller's."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Tick = Callable[[int], None]  # so many more are done


class Show(Protocol):
    """Show how many of `total` are done while the block lasts."""

    def __call__(self, what: str, /, *, total: int) -> AbstractContextManager[Tick]:
        """Begin with none; each tick adds to them."""


def untold(_n: int) -> None:
    """Tell nobody."""


def silent(_what: str, /, *, total: int) -> AbstractContextManager[Tick]:  # noqa: ARG001 (as `Show` has it)
    """Show nothing."""
    return nullcontext(untold)
