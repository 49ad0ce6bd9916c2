"""Read and write what passes between the stages of the search, as JSON and CSV; no torch."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from odn.errors import MissingInputError
from odn.files import read_json, write_json, write_text
from odn.search.convergence import DepthStep, Verdict
from odn.search.outcome import Judged

if TYPE_CHECKING:
    from odn.training.loop import EpochRow

SKIPPED = {"skipped": True}  # what a depth behind a closed gate leaves, beside its number
HISTORY = ("depth", "phase", "epoch", "lr", "train_loss", "train_accuracy", "val_accuracy", "val_loss")


@dataclass(frozen=True)
class Gate:
    """Say whether the search goes on; it holds no number, so that an open gate does not change with the target."""

    verdict: Literal["expand", "target_reached", "exhausted"]
    accepted: int | None = None  # depth, where the target is reached

    @property
    def is_open(self) -> bool:
        """Return whether the next depth is to be trained."""
        return self.verdict == "expand"


def write_gate(path: Path, gate: Gate) -> None:
    """Write a gate atomically."""
    write_json(path, asdict(gate))


def read_gate(path: Path, *, made_by: str) -> Gate:
    """Read a gate.

    Raises:
        MissingInputError: there is none, or it is damaged.
    """
    return Gate(**read_json(path, made_by=made_by))


def read_depth_step(folder: Path) -> DepthStep | None:
    """Read a trained depth's record; None for a depth that was skipped.

    Raises:
        MissingInputError: the depth has no record, or it is damaged.
    """
    content = read_json(folder / "metrics.json", made_by=f"train@{folder.name}")
    return None if content.get("skipped") else _typed(DepthStep, content, folder / "metrics.json")


def read_verdict(folder: Path) -> Verdict | None:
    """Read a judged depth's verdict; None for a depth that was skipped.

    Raises:
        MissingInputError: the depth has no verdict, or it is damaged.
    """
    content = read_json(folder / "verdict.json", made_by=f"check@{folder.name}")
    return None if content.get("skipped") else _typed(Verdict, content, folder / "verdict.json")


def _typed(kind: Any, content: dict[str, Any], path: Path) -> Any:
    names = {field.name for field in fields(kind)}
    if set(content) != names:
        raise MissingInputError(f"{path} was written by another version of odn; run 'dvc repro -f' to write it anew")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})


def known_timing(path: Path, identity: Mapping[str, Any], *, made_by: str) -> dict[str, Any] | None:
    """Read what this kind of machine has measured of the same networks before; None where it has not, or an older odn has.

    Raises:
        MissingInputError: the record is damaged.
    """
    if not path.exists():
        return None
    before = read_json(path, made_by=made_by)
    is_same = {name: before.get(name) for name in identity} == identity
    return before if is_same and isinstance(before.get("busy"), bool) and isinstance(before.get("spread"), float) else None


def steadier(before: dict[str, Any] | None, measured: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured now, unless the machine was busy and what it measured before is at least as steady."""
    return before if before is not None and measured["busy"] and measured["spread"] >= before["spread"] else measured


def history_rows(rows: Iterable["EpochRow"]) -> list[dict[str, Any]]:
    """Return one line an epoch; no wall times, so that the table repeats to the byte."""
    return [{name: getattr(row, name) for name in HISTORY} for row in rows]


def read_search(schedule: Sequence[int], *, depths: Path, checks: Path) -> list[Judged]:
    """Read the judged depths of a search, shallow to deep, without those that were skipped.

    Raises:
        MissingInputError: a record is missing or damaged.
    """
    search = []
    for depth in schedule:
        step, verdict = read_depth_step(depths / str(depth)), read_verdict(checks / str(depth))
        if step is not None and verdict is not None:
            search.append(Judged(step=step, verdict=verdict))
    return search


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] | None = None) -> None:
    """Write rows of the same keys as CSV; `columns` names them where there may be no row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns or rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6f}" if isinstance(value, float) else value for name, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def join_histories(
    path: Path, search: Sequence[Judged], *, depths: Path, checks: Path, last: Sequence["EpochRow"], first: Sequence[Path] = ()
) -> None:
    """Write the histories of all depths and probes, that of a teacher first and the `last` rows behind, in the order of training."""
    rows: list[dict[str, Any]] = []
    files = list(first)
    for item in search:
        folders = [depths, checks] if item.verdict.probed else [depths]
        files += [folder / str(item.step.depth) / "history.csv" for folder in folders]
    for history in files:
        with history.open(newline="") as file:
            rows.extend(csv.DictReader(file))
    rows.extend(history_rows(last))
    write_table(path, rows)
