"""What a search leaves in files, as types: its depths, the cards of its model, its numbers, its tables; no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Discriminator, Field, Tag, model_validator

from odn.records import Amount, Count, Fraction, Interval, Positive, Record, Sha256, damaged, read_record
from odn.searching.convergence import DepthStep, Verdict
from odn.searching.outcome import LedgerEntry, LedgerPhase, Refinement

Ending = Literal["target_reached", "exhausted"]

T = TypeVar("T", DepthStep, Verdict)


@dataclass(frozen=True, kw_only=True)
class Skipped(Record):
    """Be the marker of a depth that was not needed, and of depth 0, which may hold what all depths depend on."""

    depth: Count
    skipped: Literal[True]
    schedule: tuple[Positive, ...] | None = None


def read_depth_step(folder: Path) -> DepthStep | None:
    """Read a trained depth's record; None for a depth that was skipped.

    Raises:
        MissingInputError: the depth has no record.
        DataError: it is damaged, or of another depth.
    """
    return _unless_skipped(DepthStep, folder / "metrics.json", made_by=f"train@{folder.name}")


def read_verdict(folder: Path) -> Verdict | None:
    """Read a judged depth's verdict; None for a depth that was skipped.

    Raises:
        MissingInputError: the depth has no verdict.
        DataError: it is damaged, or of another depth.
    """
    return _unless_skipped(Verdict, folder / "verdict.json", made_by=f"check@{folder.name}")


def _unless_skipped(kind: type[T], path: Path, *, made_by: str) -> T | None:
    either: Any = Annotated[Annotated[kind, Tag("<done>")] | Annotated[Skipped, Tag("<skipped>")], Discriminator(_tag)]
    record: T | Skipped = read_record(either, path, made_by=made_by)
    if str(record.depth) != path.parent.name:
        raise damaged(path, f"depth must be that of its folder; got {record.depth}", made_by=made_by)
    return None if isinstance(record, Skipped) else record


def _tag(content: Any) -> str:
    return "<skipped>" if isinstance(content, dict) and "skipped" in content else "<done>"


@dataclass(frozen=True, kw_only=True)
class HistoryRow(Record):
    """Hold a line of history.csv."""

    depth: Positive
    phase: LedgerPhase
    epoch: Positive
    lr: Amount
    train_loss: float
    train_accuracy: Fraction
    val_accuracy: Fraction
    val_loss: float


@dataclass(frozen=True, kw_only=True)
class Card(Record):
    """Say what the model is: the content of its card.json."""

    verdict: Ending
    reason: str
    depth: Positive
    val_accuracy: Fraction
    val_interval: Interval
    weights_from: LedgerPhase
    target: Fraction
    source: str
    classes: tuple[str, ...]
    channels: Positive
    height: Positive
    width: Positive
    mean: tuple[Fraction, ...]
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    duplicates: dict[str, Count] = field(default_factory=dict)  # as in dataset.json
    data_sha256: dict[str, Sha256]
    seed: Count

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if set(self.data_sha256) != {"train", "val", "test"}:
            raise ValueError(f"data_sha256: expected train, val and test; got {', '.join(self.data_sha256) or 'none'}")
        return self


@dataclass(frozen=True, kw_only=True)
class JudgedStep(Record):
    """Hold what training a depth left, and what was judged of it."""

    depth: Positive  # of the network that training left
    after: Count
    epochs: Count
    stopped: Literal["flat", "ceiling", "max_epochs", "supernet"]
    why: str
    val_accuracy: Fraction
    val_correct: Count
    n_val: Positive
    curve: tuple[Fraction, ...]
    n_params: Positive
    size_bytes: Positive
    macs: Positive
    macs_full: Positive
    cost: Amount
    threads: Positive
    pruned_from: Positive | None
    verdict: Literal["expand", "target_reached", "exhausted"]
    reason: str
    annealed: bool
    annealed_accuracy: Fraction | None
    annealed_interval: Interval | None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.val_correct > self.n_val:
            raise ValueError(f"val_correct: {self.val_correct} of {self.n_val}")
        if not self.annealed == (self.annealed_accuracy is not None) == (self.annealed_interval is not None):
            raise ValueError(f"annealed: {self.annealed} contradicts annealed_accuracy and annealed_interval")
        return self


@dataclass(frozen=True, kw_only=True)
class SearchLog(Record):
    """Tell the whole search: the content of the model's search.json."""

    verdict: Ending
    reason: str
    depth: Positive
    val_accuracy: Fraction
    val_interval: Interval
    steps: tuple[JudgedStep, ...]
    ledger: tuple[LedgerEntry, ...]
    full_network_epochs: Amount
    refinements: tuple[Refinement, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SearchNumbers(Record):
    """Hold the flat numbers of a search: the content of metrics/search.json."""

    verdict: Ending
    depth: Positive
    val_accuracy: Fraction
    val_accuracy_low: Fraction
    val_accuracy_high: Fraction
    target: Fraction
    n_blocks: Positive
    full_network_epochs: Amount
