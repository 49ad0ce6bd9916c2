"""Draw the conclusion of a search from its judged depths: pure functions, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from odn.search.convergence import DepthStep, Probe, Verdict, one_standard_error_depth
from odn.search.statistics import wilson_interval


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
class LedgerEntry:
    """Say what a phase of a depth cost: epochs at that depth, and the same in full-depth epochs."""

    depth: int
    phase: str
    epochs: int
    full_depth_epochs: float


def choose(search: Sequence[Judged]) -> Choice | None:
    """Return the depth that a search ends with, the shallowest that is good enough; None while it has not ended.

    An exhausted search keeps the best depth by the one-standard-error rule: of what was judged, where every depth was judged alike,
    else of the read-outs.
    """
    if not search or search[-1].verdict.verdict == "expand":
        return None
    enough = next((item for item in search if item.verdict.reached), None)
    if enough is not None:
        return Choice(judged=enough, verdict="target_reached", reason=enough.verdict.reason)
    last, alike = search[-1], all(item.verdict.probed for item in search)
    accuracies = {item.step.depth: item.verdict.val_accuracy if alike else item.step.val_accuracy for item in search}
    depth = one_standard_error_depth(accuracies, n=last.step.n_val)
    best = "probe" if alike else "read-out"
    reason = f"{last.verdict.reason}; depth {depth} is kept, the shallowest within one standard error of the best {best}"
    return Choice(judged=next(item for item in search if item.step.depth == depth), verdict="exhausted", reason=reason)


def finish_wins(choice: Choice, finish: Probe | None) -> bool:
    """Tell whether the finished network is kept rather than the probed one: more images of val right, or there was no probe."""
    if finish is None:
        return False
    verdict = choice.judged.verdict
    return not verdict.probed or finish.n_correct > round(verdict.val_accuracy * finish.n)


def summary(choice: Choice, finish: Probe | None, *, confidence: float) -> dict[str, Any]:
    """Return verdict, reason, depth, and val accuracy of the network that is kept, with its Wilson interval."""
    n = choice.judged.step.n_val
    n_correct = finish.n_correct if finish is not None and finish_wins(choice, finish) else round(choice.judged.verdict.val_accuracy * n)
    return {
        "verdict": choice.verdict,
        "reason": choice.reason,
        "depth": choice.judged.step.depth,
        "val_accuracy": n_correct / n,
        "val_interval": wilson_interval(n_correct, n, confidence=confidence),
    }


def ledger(search: Sequence[Judged], choice: Choice, finish: Probe | None) -> list[LedgerEntry]:
    """List every phase that was trained, in the order of training."""
    entries = []
    for item in search:
        depth = item.step.depth
        if item.step.epochs:
            entries.append(LedgerEntry(depth=depth, phase="stable", epochs=item.step.epochs, full_depth_epochs=item.step.cost))
        if item.verdict.probed:
            entries.append(LedgerEntry(depth=depth, phase="probe", epochs=item.verdict.probe_epochs, full_depth_epochs=item.verdict.cost))
    if finish is not None:
        depth = choice.judged.step.depth
        entries.append(LedgerEntry(depth=depth, phase="finish", epochs=finish.epochs, full_depth_epochs=finish.cost))
    return entries


def full_depth_epochs(entries: Sequence[LedgerEntry]) -> float:
    """Add up a ledger."""
    return sum(entry.full_depth_epochs for entry in entries)
