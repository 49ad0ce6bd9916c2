"""Say whether classes are so unequal in number that accuracy speaks of the large ones alone: plain numbers, no torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

IMBALANCED = 2.0  # times as many images as the smallest class has; from here on balanced accuracy stands beside accuracy


def is_imbalanced(per_class: Sequence[int]) -> bool:
    """Tell whether the largest class has at least twice the images of the smallest."""
    return max(per_class) >= IMBALANCED * min(per_class)


def balanced_accuracy(correct: Sequence[int], per_class: Sequence[int]) -> float:
    """Return the mean over classes of the fraction of each that is right: (K,) and (K,); classes without an image are left out.

    Source: Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010.
    """
    rates = [right / n for right, n in zip(correct, per_class, strict=True) if n]
    return sum(rates) / len(rates)


def imbalances(counts: Mapping[str, Mapping[str, Any]], *, classes: tuple[str, ...]) -> Iterator[str]:
    """Say in a line in which splits classes are imbalanced; `counts` are those of `dataset.json`."""
    found = []
    for split, one in counts.items():
        per_class = one["per_class"]
        if is_imbalanced(per_class):
            most, least = max(per_class), min(per_class)
            large, small = classes[per_class.index(most)], classes[per_class.index(least)]
            found.append(f"in {split} {large!r} has {most:,} images and {small!r} {least:,}")
    if found:
        yield f"classes are imbalanced: {'; '.join(found)}; see balanced accuracy, the mean over classes, beside accuracy"
