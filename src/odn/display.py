"""Show a phase of training: a progress bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PHASES = {
    "warm-up": "warm-up",
    "stable": "train",
    "anneal": "train",
    "trial": "trial anneal",
    "finish": "finish",
    "supernet": "supernet",
    "refine": "refine",
    "gates": "gates",
}


class PhaseDisplay(Protocol):
    """Show ticks within an epoch and a row at its end."""

    def tick(self, *, epoch: int, step: int, steps: int) -> None:
        """Show how far the epoch is."""

    def row(self, *, epoch: int, val_accuracy: float, train_loss: float) -> None:
        """Show an epoch's result."""


@contextmanager
def phase_display(*, depth: int, phase: str, epochs: int, unit: str = "depth") -> Iterator[PhaseDisplay]:
    """Yield the display that suits standard error: `epochs` is the most that the phase may take."""
    title = f"{unit} {depth} {PHASES.get(phase, phase)}"
    if not sys.stderr.isatty():
        yield _Lines(title, epochs)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}  loss {task.fields[loss]}  val {task.fields[val]}"),
        TextColumn("at most"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=float(epochs), epoch=1, epochs=epochs, loss="–", val="–")

        class Bar:
            def tick(self, *, epoch: int, step: int, steps: int) -> None:
                progress.update(task, completed=epoch - 1 + step / steps, epoch=epoch)

            def row(self, *, epoch: int, val_accuracy: float, train_loss: float) -> None:
                progress.update(task, completed=float(epoch), epoch=epoch, loss=f"{train_loss:.3f}", val=f"{val_accuracy:.2%}")

        yield Bar()


class _Lines:
    def __init__(self, title: str, epochs: int) -> None:
        self.title, self.epochs, self.started = title, epochs, time.monotonic()

    def tick(self, *, epoch: int, step: int, steps: int) -> None:
        pass

    def row(self, *, epoch: int, val_accuracy: float, train_loss: float) -> None:
        took = time.monotonic() - self.started
        left = (self.epochs - epoch) * took / epoch
        print(
            f"{self.title}  epoch {epoch}/{self.epochs}  loss {train_loss:.3f}  val {val_accuracy:.2%}"
            f"  {took:.0f} s, at most {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
