"""Small Markdown tables that a step of a pipeline leaves for its page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn.records import read_record, read_table
from odn.report.exports import HEAD, read_exports
from odn.sanitize import markdown
from odn.searching.certified import Evaluation
from odn.searching.outcome import Judged
from odn.searching.results import HistoryRow, SearchNumbers

if TYPE_CHECKING:
    from odn.tracking.registry import Registration

TOLD = "odn table: "  # at the beginning of a line in a step's log


def depth_table(search: Sequence[Judged], *, target: float, unit: str, kept: int | None = None) -> str:
    """Tell of each judged depth, or rung, what it reached on val, what the verdict is, and why the last one has it."""
    rows = []
    for item in search:
        verdict = item.verdict
        low, high = verdict.val_interval
        name = f"**{item.step.kept}** (kept)" if item.step.kept == kept else str(item.step.kept)
        annealed = f"{verdict.val_accuracy:.2%}" if verdict.annealed else "–"
        rows.append((name, f"{verdict.ema_accuracy:.2%}", annealed, f"{low:.2%} to {high:.2%}", f"{item.step.n_params:,}", verdict.shown))
    table = _markdown((unit, "val, EMA", "val, annealed", "interval", "parameters", "verdict"), rows)
    return f"# {unit.capitalize()}s against the target {target:.2%}\n\n{table}\n{markdown(search[-1].verdict.reason)}.\n"


def told(search: Sequence[Judged], *, unit: str, metrics: Path | None = None) -> str:
    """Tell of each judged depth, or rung, in a line of a step's log, by which whoever waits for a run on a cluster knows it.

    `metrics` is that folder of a model that is certified: the last line tells how the search ended, and what is kept.
    """
    lines = [
        f"{unit} {item.step.depth}: {item.verdict.val_accuracy:.2%} on val, {item.step.size_bytes:,} bytes, "
        f"{item.step.cost + item.verdict.cost:.3g} full-network epochs: {item.verdict.shown.replace('_', ' ')}"
        for item in search
    ]
    if metrics is not None:
        found = read_record(SearchNumbers, metrics / "search.json", made_by="truncate")
        kept = read_record(Evaluation, metrics / "evaluation.json", made_by="evaluate")
        exhausted = f"exhausted: no {unit} reaches the target {found.target:.2%}; {unit} {found.depth} is the best"
        how = exhausted if found.verdict == "exhausted" else f"target {found.target:.2%} reached at {unit} {found.depth}"
        interval = f"{kept.test_accuracy_low:.2%} to {kept.test_accuracy_high:.2%}"
        lines.append(f"{how}; kept: {kept.size_bytes:,} bytes, {kept.test_accuracy:.2%} on test ({interval})")
    return "".join(f"{TOLD}{line}\n" for line in lines)


def epoch_table(history: Path, *, title: str, note: str) -> str:
    """Tell of each epoch of a depth's stable phase."""
    epochs = read_table(HistoryRow, history, made_by=f"train@{history.parent.name}")
    rows = [(str(row.epoch), f"{row.train_loss:.3f}", f"{row.val_accuracy:.2%}") for row in epochs]
    return f"# {title}\n\n{_markdown(('epoch', 'train loss', 'val accuracy'), rows)}\n{markdown(note)}.\n"


def split_table(counts: Mapping[str, int]) -> str:
    """Tell how many images each split has."""
    return f"# Images\n\n{_markdown(('split', 'images'), [(split, f'{count:,}') for split, count in counts.items()])}"


def certificate(measured: Mapping[str, Any]) -> str:
    """Tell what `evaluate` measured: accuracy on test with its interval, and the network that was kept beside the whole one."""
    low, high = measured["test_accuracy_low"], measured["test_accuracy_high"]
    lines = [f"**{measured['test_accuracy']:.2%}** of {measured['n_test']:,} test images ({low:.2%} to {high:.2%})."]
    if "test_balanced_accuracy" in measured:
        lines.append(f"Classes are imbalanced: the mean over classes is {measured['test_balanced_accuracy']:.2%}.")
    if "shallower_depth" in measured:
        p = measured["mcnemar_p_shallower"]
        lines.append(
            f"Depth {measured['shallower_depth']}, as it was when it was judged: {measured['test_accuracy_shallower']:.2%} "
            f"(McNemar {'p < 0.0001' if p < 0.0001 else f'p = {p:.4f}'})."
        )
    rows = [
        (name, *(f"{measured[key + end]:,}" for end in ("", "_full")), f"{measured[saved]:.2%}")
        for name, key, saved in (
            ("parameters", "n_params", "params_saved"),
            ("bytes", "size_bytes", "bytes_saved"),
            ("MACs an image", "macs", "macs_saved"),
        )
    ]
    return f"# On test\n\n{' '.join(lines)}\n\n{_markdown(('', 'kept', 'whole network', 'saved'), rows)}"


def export_table(exported: Path, *, latency: Path, weights_sha256: str) -> str:
    """Tell of each file that the model was exported as what it does on test, and what it takes."""
    exports = read_exports(exported, latency=latency, weights_sha256=weights_sha256)
    if exports is None:
        return "# Export\n\nexport.formats names no format.\n"
    table = _markdown(HEAD, [row.cells() for row in exports.rows])
    notes = "".join(f"- {markdown(note)}\n" for note in exports.notes())
    return f"# Export: {exports.n_test:,} test images, each file in its own runtime\n\n{table}\n{notes}"


def registration_note(done: "Registration") -> str:
    """Tell what the model became in the registry."""
    where, why = markdown(done.tracking_uri), markdown(done.reason)
    return f"# {done.name}, version {done.version}\n\n{' and '.join(done.aliases)}, at {where}: {why}.\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
