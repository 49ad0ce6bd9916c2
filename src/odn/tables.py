"""Small Markdown tables that a step of a pipeline leaves for its page."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn.search.outcome import Judged

if TYPE_CHECKING:
    from odn.tracking.registry import Registration


def depth_table(search: Sequence[Judged], *, target: float, kept: int | None = None) -> str:
    """Tell of each judged depth what it reached on val, what the verdict is, and why the last one has it."""
    rows = []
    for item in search:
        verdict = item.verdict
        low, high = verdict.val_interval
        name = f"**{item.step.depth}** (kept)" if item.step.depth == kept else str(item.step.depth)
        probed = f"{verdict.val_accuracy:.2%}" if verdict.probed else "–"
        rows.append((name, f"{verdict.read_out:.2%}", probed, f"{low:.2%} to {high:.2%}", f"{item.step.n_params:,}", verdict.verdict))
    table = _markdown(("depth", "val, read-out", "after a cooldown", "interval", "parameters", "verdict"), rows)
    return f"# Depths against the target {target:.2%}\n\n{table}\n{search[-1].verdict.reason}.\n"


def epoch_table(history: Path, *, title: str, note: str) -> str:
    """Tell of each epoch of a depth's stable phase."""
    with history.open(newline="") as file:
        rows = [(row["epoch"], row["train_loss"], f"{float(row['val_accuracy']):.2%}") for row in csv.DictReader(file)]
    return f"# {title}\n\n{_markdown(('epoch', 'train loss', 'val accuracy'), rows)}\n{note}.\n"


def number_table(numbers: Mapping[str, Any], *, title: str) -> str:
    """Tell flat numbers, a line each."""
    return f"# {title}\n\n{_markdown(('what', 'value'), [(name.replace('_', ' '), _number(value)) for name, value in numbers.items()])}"


def registration_note(done: "Registration") -> str:
    """Tell what the model became in the registry."""
    return f"# {done.name}, version {done.version}\n\n{' and '.join(done.aliases)}, at {done.tracking_uri}: {done.reason}.\n"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
