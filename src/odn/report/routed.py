"""Tell in short what routing gave, and what it did not give."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odn.sanitize import sanitized


def describe(card: Mapping[str, Any], *, static: Sequence[Any], clock: Mapping[str, Any], folder: Path) -> str:
    """Return the summary as text: the accuracy, the mean cost, the static exit that does as well, and the clock."""
    rival = as_good(card["val_accuracy"], static)
    lines = [
        f"routed by {card['kind']}, fitted to {_target(card['target'])}: {folder}/",
        *(_of_split(card, split) for split in ("val", "test")),
        f"  {_against(card, rival)}",
    ]
    fit = card["fit"]
    if "cross_fitted_accuracy" in fit:
        lines.append(
            f"  thresholds fitted on four fifths of val give {fit['cross_fitted_accuracy']:.2%} on the rest, "
            f"for {fit['cross_fitted_cost'] / fit['cost_of_deepest']:.1%}: the fit's own numbers on val flatter it by the difference"
        )
    if card["full_network_epochs"]:
        lines.append(f"  training took {card['full_network_epochs']:.2f} full-network epochs, the teacher's passes counted")
    for name, times in clock.items():
        if name.startswith("batch "):
            deepest = times[f"exit {static[-1].name}"]
            text = f"  {name}: {times['routed']:.3f} ms an image, {deepest / times['routed']:.2f} times as fast as the deepest exit"
            if rival is not None and rival.name != static[-1].name:
                text += f", {times[f'exit {rival.name}'] / times['routed']:.2f} times as exit {rival.name}"
            lines.append(text)
    if clock["busy"]:
        lines.append("  the machine was busy while these times were taken; the same command takes them again")
    return "\n".join(map(sanitized, lines))


def as_good(val_accuracy: float, static: Sequence[Any]) -> Any | None:
    """Return the shallowest static exit that is at least as accurate on val; None where none is."""
    return next((point for point in static if point.val_accuracy >= val_accuracy), None)


def _of_split(card: Mapping[str, Any], split: str) -> str:
    low, high = card[f"{split}_accuracy_low"], card[f"{split}_accuracy_high"]
    return (
        f"  {card[f'{split}_accuracy']:.2%} on {split} ({low:.2%} to {high:.2%}) for {card[f'{split}_macs']:,.0f} MACs an image, "
        f"{card[f'{split}_macs_share']:.1%} of the deepest exit"
    )


def _against(card: Mapping[str, Any], rival: Any | None) -> str:
    if rival is None:
        return "no static exit is as accurate on val"
    change = 1 - card["val_macs"] / rival.val_macs
    told = f"{change:.1%} fewer MACs than" if change > 0 else f"{-change:.1%} more MACs than" if change < 0 else "as many MACs as"
    return f"{told} static exit {rival.name}, the shallowest that is as accurate on val ({rival.test_accuracy:.2%} on test)"


def _target(target: Mapping[str, float]) -> str:
    (name, value), *_ = target.items()
    return f"{name.replace('_', ' ')} {value:g}"
