"""Show how far a count is, and how long the rest takes: a progress bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST, RAREST = 5.0, 60.0  # seconds before the first line, and between two of them at most


@contextmanager
def counted(what: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """Yield what adds to a count of `total`, shown with the time that is left; nothing stays of it, and nothing comes where it is quick."""
    if not sys.stderr.isatty():
        yield _CountedLines(what, total).tick
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda n: progress.advance(task, n)


class _CountedLines:
    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.n, self.started = what, total, 0, time.monotonic()
        self.due = self.started + FIRST

    def tick(self, n: int) -> None:
        self.n += n
        now = time.monotonic()
        if now < self.due or not self.n:
            return
        took = now - self.started
        left = took * (self.total - self.n) / self.n
        sys.stderr.write(f"odn: {self.what}: {self.n:,} of {self.total:,}, {took:.0f} s, {left:.0f} s left\n")
        sys.stderr.flush()
        self.due = now + min(RAREST, max(FIRST, took))
