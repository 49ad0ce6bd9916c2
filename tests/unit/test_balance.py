"""Balanced accuracy, and when classes are called imbalanced."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from odn.data.balance import balanced_accuracy, imbalances, is_imbalanced


def test_balanced_accuracy_is_scikit_learns() -> None:
    """On labels and predictions drawn at random, of classes of very different sizes."""
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 500, p=[0.7, 0.2, 0.07, 0.03])
    predicted = np.where(rng.random(500) < 0.6, labels, rng.integers(0, 4, 500))
    correct = np.bincount(labels[labels == predicted], minlength=4).tolist()
    found = balanced_accuracy(correct, np.bincount(labels, minlength=4).tolist())
    assert found == pytest.approx(balanced_accuracy_score(labels, predicted), rel=1e-12)


@pytest.mark.parametrize(("per_class", "expected"), [([10, 19], False), ([10, 20], True), ([5, 5, 5], False), ([0, 1], True)])
def test_twice_the_smallest_is_imbalanced(per_class: list[int], expected: bool) -> None:
    """The largest class against the smallest."""
    assert is_imbalanced(per_class) is expected


def test_only_splits_that_are_imbalanced_are_named() -> None:
    """With the largest and the smallest class of each."""
    counts = {"train": {"per_class": [900, 90]}, "test": {"per_class": [50, 50]}}
    (line,) = imbalances(counts, classes=("rose", "daisy"))
    assert line.startswith("classes are imbalanced: in train 'rose' has 900 images and 'daisy' 90; see balanced accuracy")
    assert not list(imbalances({"test": counts["test"]}, classes=("rose", "daisy")))
