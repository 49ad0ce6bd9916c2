"""Read and write what passes between the stages of the search, as JSON and CSV; no torch."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from odn.files import write_json, write_text
from odn.records import Count, Fraction, Positive, Record, Sha256, damaged, read_known, read_record, read_table
from odn.searching.folder import SearchFolder
from odn.searching.outcome import Judged
from odn.searching.results import HistoryRow, read_depth_step, read_verdict

if TYPE_CHECKING:
    from odn.training.fit import EpochRow

SKIPPED = {"skipped": True}  # what a depth leaves that is not trained since the search has ended, beside its number
HISTORY = tuple(field.name for field in fields(HistoryRow))


@dataclass(frozen=True)
class Decision(Record):
    """Say whether the search goes on; it holds no number, so that a decision to go on does not change with the target."""

    verdict: Literal["expand", "target_reached", "exhausted"]
    accepted: Positive | None = None  # depth, where the target is reached

    @property
    def goes_on(self) -> bool:
        """Return whether the next depth is to be trained."""
        return self.verdict == "expand"

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.accepted is not None) != (self.verdict == "target_reached"):
            raise ValueError(f"accepted: {self.accepted} contradicts the verdict {self.verdict}")
        return self


@dataclass(frozen=True, kw_only=True)
class SupernetCard(Record):
    """Say what was trained together, on which data: the content of a supernet's card.json."""

    depths: tuple[Positive, ...]
    widths: tuple[Fraction, ...]
    seed: Count
    data_sha256: dict[str, Sha256]


@dataclass(frozen=True, kw_only=True)
class RegisteredWeights(Record):
    """Say which weights are registered under which name: the content of registered.json."""

    name: str
    weights_sha256: Sha256


def write_decision(path: Path, decision: Decision) -> None:
    """Write a decision atomically."""
    write_json(path, asdict(decision))


def read_decision(path: Path, *, made_by: str) -> Decision:
    """Read a decision.

    Raises:
        MissingInputError: there is none.
        DataError: it is damaged.
    """
    return read_record(Decision, path, made_by=made_by)


def known_timing(kind: Any, path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read what this kind of machine has measured of the same networks before, as a record of `kind`; None where it has not.

    A record that is damaged is left out, with a line that says so: the times are measured anew.
    """
    if read_known(kind, path, otherwise="times are measured anew") is None:
        return None
    before: dict[str, Any] = json.loads(path.read_bytes())
    return before if {name: before.get(name) for name in identity} == identity else None


def steadier(before: dict[str, Any] | None, measured: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured now, unless the machine was busy and what it measured before is at least as steady."""
    return before if before is not None and measured["busy"] and measured["spread"] >= before["spread"] else measured


def history_rows(rows: Iterable["EpochRow"]) -> list[dict[str, Any]]:
    """Return one line an epoch; no wall times, so that the table repeats to the byte."""
    return [{name: getattr(row, name) for name in HISTORY} for row in rows]


def read_search(schedule: Sequence[int], *, folder: SearchFolder) -> list[Judged]:
    """Read the judged depths of a search, shallow to deep, without those that were skipped.

    Raises:
        MissingInputError: a record is missing.
        DataError: a record is damaged, or a verdict is not on what was trained.
    """
    search = []
    for depth in schedule:
        step, verdict = read_depth_step(folder.trained(depth)), read_verdict(folder.judged(depth))
        if step is not None and verdict is not None:
            if verdict.ema_accuracy != step.val_accuracy:
                why = f"ema_accuracy {verdict.ema_accuracy!r} is not the accuracy of the depth that was trained, {step.val_accuracy!r}"
                raise damaged(folder.judged(depth) / "verdict.json", why, made_by=f"check@{depth}")
            search.append(Judged(step=step, verdict=verdict))
    return search


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] | None = None) -> None:
    """Write rows of the same keys as CSV; `columns` names them where there may be no row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns or rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6f}" if isinstance(value, float) else value for name, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def join_histories(path: Path, search: Sequence[Judged], *, folder: SearchFolder, last: Sequence["EpochRow"]) -> None:
    """Write the histories of all depths and trial anneals, and the `last` rows behind, in the order of training."""
    files = []
    for item in search:
        depth = item.step.depth
        files.append((folder.trained(depth) / "history.csv", f"train@{depth}"))
        if item.verdict.annealed:
            files.append((folder.judged(depth) / "history.csv", f"check@{depth}"))
    rows = [asdict(row) for history, made_by in files for row in read_table(HistoryRow, history, made_by=made_by)]
    write_table(path, rows + history_rows(last), columns=HISTORY)


def step_records(search: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return what search.json says of each depth."""
    entries = []
    for item in search:
        verdict = item.verdict
        trial = {"annealed_accuracy": verdict.val_accuracy, "annealed_interval": verdict.val_interval} if verdict.annealed else {}
        judged = {"verdict": verdict.shown, "reason": verdict.reason, "annealed": verdict.annealed}
        step = {name: value for name, value in asdict(item.step).items() if name != "left"}
        entries.append(step | _of_depth(item) | judged | {"annealed_accuracy": None, "annealed_interval": None} | trial)
    return entries


def _of_depth(item: Judged) -> dict[str, Any]:
    """Return the depth of the network that training left, and, where it was pruned, the depth that it began with."""
    return {"depth": item.step.kept, "pruned_from": item.step.depth if item.step.left is not None else None}


def depth_rows(search: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return the rows of plots/depths.csv."""
    return [
        {
            "depth": item.step.kept,
            "ema_accuracy": item.verdict.ema_accuracy,
            "val_accuracy": item.verdict.val_accuracy,
            "annealed": int(item.verdict.annealed),
            "verdict": item.verdict.shown,
            "n_params": item.step.n_params,
            "size_bytes": item.step.size_bytes,
            "macs": item.step.macs,
            "full_network_epochs": item.step.cost + item.verdict.cost,
        }
        for item in search
    ]
