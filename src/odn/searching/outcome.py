"""Draw the conclusion of a search from its judged depths: pure functions, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import model_validator

from odn.config import Config
from odn.records import Amount, Count, Positive, Record
from odn.searching.convergence import DepthStep, Trial, Verdict, measured_accuracy, one_standard_error_depth
from odn.searching.statistics import wilson_interval
from odn.sections import SearchConfig

LedgerPhase = Literal["stable", "anneal", "trial", "finish", "refine"]


@dataclass(frozen=True)
class Judged:
    """Pair what a depth's training gave with the verdict on it."""

    step: DepthStep
    verdict: Verdict


@dataclass(frozen=True)
class Choice:
    """Say which depth is kept, and why."""

    judged: Judged
    verdict: Literal["target_reached", "exhausted"]
    reason: str


@dataclass(frozen=True, kw_only=True)
class LedgerEntry(Record):
    """Say what a phase of a depth cost: its epochs, and the same in full-network epochs; of a pruned network the depth is what was left."""

    depth: Positive
    phase: LedgerPhase
    epochs: Count
    full_network_epochs: Amount


@dataclass(frozen=True, kw_only=True)
class Refinement(Record):
    """Say what came of a network between the accepted rung and the one before it: one evaluation on val."""

    n_params: Positive
    size_bytes: Positive
    macs: Positive
    epochs: Count
    n_correct: Count
    n: Positive
    full_network_epochs: Amount
    reached: bool  # it is good enough, and kept unless a later one is
    reason: str

    @model_validator(mode="after")
    def _is_counted(self) -> Self:
        if self.n_correct > self.n:
            raise ValueError(f"n_correct: {self.n_correct} of {self.n}")
        return self


def choose(search: Sequence[Judged]) -> Choice | None:
    """Return the depth that a search ends with, the shallowest that is good enough; None while it has not ended.

    An exhausted search keeps the best depth by the one-standard-error rule: of what was judged, where every depth was judged alike,
    else of the averaged weights.
    """
    if not search or search[-1].verdict.verdict == "expand":
        return None
    enough = next((item for item in search if item.verdict.reached), None)
    if enough is not None:
        return Choice(judged=enough, verdict="target_reached", reason=enough.verdict.reason)
    last, alike = search[-1], all(item.verdict.annealed for item in search)
    accuracies = {item.step.depth: item.verdict.val_accuracy if alike else item.step.val_accuracy for item in search}
    depth = one_standard_error_depth(accuracies, n=last.step.n_val)
    best = "annealed accuracy" if alike else "accuracy" if last.verdict.tried else "EMA accuracy"
    kept = f"rung {depth} is kept, the smallest" if last.verdict.tried else f"depth {depth} is kept, the shallowest"
    reason = f"{last.verdict.reason}; {kept} within one standard error of the best {best}"
    return Choice(judged=next(item for item in search if item.step.depth == depth), verdict="exhausted", reason=reason)


def finish_epochs(config: Config, choice: Choice) -> int:
    """Return for how long the accepted depth is finished; one that was never annealed is annealed at least like a trial.

    Where training left what was judged, there is no cooldown, and that network is kept; a pruned one may be fine-tuned.
    """
    epochs = config.mode.finish_epochs(config)
    needs_one = not (config.mode.judges_as_trained or choice.judged.verdict.annealed)
    return max(epochs, config.search.cooldown_epochs) if needs_one else epochs


def refines(config: Config, choice: Choice) -> bool:
    """Tell whether networks between the accepted rung and the one before it are tried."""
    return config.spreads and config.search.looks > 0 and not config.search.budget and choice.verdict == "target_reached"


def kept_refinement(refinements: Sequence[Refinement]) -> Refinement | None:
    """Return the smallest network that reached the target; None where none did."""
    return next((one for one in reversed(refinements) if one.reached), None)


def finish_wins(choice: Choice, finish: Trial | None, *, search: SearchConfig) -> bool:
    """Tell whether the finished network is kept, and not that of the trial anneal, where there was one.

    Where the trial anneal reached the target, the finish is kept unless it misses it: it was annealed for longer, and which of the two gets
    some val images more right is mostly chance. Else it must get more of them right, and so must a fine-tuned network that was pruned.
    """
    if finish is None:
        return False
    verdict, is_pruned = choice.judged.verdict, choice.judged.step.left is not None
    if not (verdict.annealed or is_pruned):
        return True
    if verdict.annealed and verdict.reached:
        return measured_accuracy(finish.n_correct, finish.n, search=search)[0] >= verdict.target
    return finish.n_correct > round(verdict.val_accuracy * finish.n)


def summary(
    choice: Choice,
    finish: Trial | None,
    *,
    search: SearchConfig,
    refinements: Sequence[Refinement] = (),
) -> dict[str, Any]:
    """Return verdict, reason, depth, and val accuracy of the network that is kept, with its Wilson interval."""
    depth, n, refined = choice.judged.step.depth, choice.judged.step.n_val, kept_refinement(refinements)
    if refined is not None:
        kept: dict[str, Any] = {"reason": refined.reason, "depth": depth}
        n_correct = refined.n_correct
    else:
        kept = {"reason": choice.reason, "depth": choice.judged.step.kept}
        won = finish is not None and finish_wins(choice, finish, search=search)
        n_correct = finish.n_correct if finish is not None and won else round(choice.judged.verdict.val_accuracy * n)
    return {
        "verdict": choice.verdict,
        **kept,
        "val_accuracy": n_correct / n,
        "val_interval": wilson_interval(n_correct, n, confidence=search.confidence),
    }


def ledger(
    search: Sequence[Judged],
    choice: Choice,
    finish: Trial | None,
    *,
    refinements: Sequence[Refinement] = (),
    phase: LedgerPhase = "stable",
) -> list[LedgerEntry]:
    """List every phase that was trained, in the order of training; `phase` is what the training of a depth is called."""
    entries = []
    for item in search:
        depth = item.step.kept
        if item.step.epochs:
            entries.append(LedgerEntry(depth=depth, phase=phase, epochs=item.step.epochs, full_network_epochs=item.step.cost))
        if item.verdict.annealed:
            entries.append(
                LedgerEntry(depth=depth, phase="trial", epochs=item.verdict.anneal_epochs, full_network_epochs=item.verdict.cost)
            )
    if finish is not None:
        depth = choice.judged.step.kept
        entries.append(LedgerEntry(depth=depth, phase="finish", epochs=finish.epochs, full_network_epochs=finish.cost))
    rung = choice.judged.step.depth
    looks = [LedgerEntry(depth=rung, phase="refine", epochs=one.epochs, full_network_epochs=one.full_network_epochs) for one in refinements]
    return entries + looks


def full_network_epochs(entries: Sequence[LedgerEntry]) -> float:
    """Add up a ledger."""
    return sum(entry.full_network_epochs for entry in entries)
