"""Splits: stratified, complete, disjoint, and decided by the seed and the stream alone."""

import numpy as np
import pytest

from odn.data.splits import SUBSET, TEST, VAL, check_labels, generator, take_fraction, take_subset
from odn.errors import ConfigError, DataError

LABELS = np.repeat(np.arange(3), [60, 30, 10])  # 100 images of three classes


def split(
    fraction: float, *, seed: int = 0, stream: int = VAL, leave: int = 1, labels: np.ndarray = LABELS
) -> tuple[np.ndarray, np.ndarray]:
    """Split with the settings that a test does not care for."""
    rng = generator(seed, stream=stream)
    return take_fraction(labels, n_classes=3, fraction=fraction, leave=leave, setting="data.val_fraction", rng=rng)


def test_a_split_takes_each_class_in_proportion() -> None:
    """A fifth of 60, 30 and 10 images is 12, 6 and 2."""
    rest, taken = split(0.2)
    assert np.bincount(LABELS[taken]).tolist() == [12, 6, 2]
    assert np.bincount(LABELS[rest]).tolist() == [48, 24, 8]


@pytest.mark.parametrize("fraction", [0.03, 0.1, 0.155, 0.5, 0.9, 0.97])
def test_a_split_is_complete_and_disjoint(fraction: float) -> None:
    """Every image is on exactly one side, the sizes are the rounded fraction, and no class is missing on either side."""
    rest, taken = split(fraction)
    assert sorted([*rest, *taken]) == list(range(100))
    assert len(taken) == round(fraction * 100)
    assert set(LABELS[rest]) == set(LABELS[taken]) == {0, 1, 2}


def test_a_rare_class_is_on_both_sides() -> None:
    """A twentieth of two images would be none: one is taken and one left all the same."""
    labels = np.repeat(np.arange(3), [900, 98, 2])
    rest, taken = split(0.05, labels=labels)
    assert np.bincount(labels[taken]).tolist() == [45, 4, 1]
    assert np.bincount(labels[rest])[2] == 1


def test_images_can_be_kept_back_for_a_second_split() -> None:
    """Splitting test off leaves two images of each class, one for train and one for val."""
    labels = np.repeat(np.arange(3), [90, 7, 3])
    rest, _ = split(0.8, labels=labels, leave=2)
    assert np.bincount(labels[rest]).min() == 2


def test_seed_and_stream_decide_alone() -> None:
    """The same pair draws the same images; another seed or another stream draws others."""
    draws = {(seed, stream): tuple(split(0.2, seed=seed, stream=stream)[1]) for seed in (0, 1) for stream in (TEST, SUBSET, VAL)}
    assert len(set(draws.values())) == 6
    assert tuple(split(0.2, seed=1, stream=SUBSET)[1]) == draws[1, SUBSET]


def test_a_split_is_shuffled() -> None:
    """Neighbours in the order that is written are not neighbours in the raw data, which is often sorted by class."""
    rest, taken = split(0.5)
    assert list(rest) != sorted(rest)
    assert list(taken) != sorted(taken)


@pytest.mark.parametrize(("fraction", "sides"), [(0.001, "100 and 0"), (0.02, "98 and 2"), (0.999, "0 and 100")])
def test_a_fraction_that_leaves_a_split_without_a_class_is_refused(fraction: float, sides: str) -> None:
    """The message has the setting, both sizes and the fractions that work."""
    with pytest.raises(
        ConfigError, match=f"data.val_fraction: {fraction} of 100 images parts them into {sides}, too few for 3 classes"
    ) as caught:
        split(fraction)
    assert "take a fraction from 0.0300 to 0.9700" in str(caught.value)


def test_a_subset_is_stratified_and_of_the_size_asked_for() -> None:
    """30 of 60, 30 and 10 images are 18, 9 and 3."""
    subset = take_subset(LABELS, n_classes=3, size=30, setting="data.max_images", rng=generator(0, stream=SUBSET))
    assert np.bincount(LABELS[subset]).tolist() == [18, 9, 3]
    assert len(set(subset)) == 30


def test_more_classes_than_images_is_refused() -> None:
    """A subset must hold two images of each class, else it cannot be split again."""
    with pytest.raises(ConfigError, match=r"data.max_images: 5 images are too few for 3 classes.*; set it to 6 or more, or to null"):
        take_subset(LABELS, n_classes=3, size=5, setting="data.max_images", rng=generator(0, stream=SUBSET))


def test_a_label_out_of_range_is_named() -> None:
    """The message has the first such image, its label and the range."""
    with pytest.raises(DataError, match=r"toys: image 2 has label 7, out of range 0..1 \(1 of 4 images do\)"):
        check_labels(np.array([0, 1, 7, 1]), classes=("cat", "dog"), at_least=1, where="toys")


@pytest.mark.parametrize(("labels", "found"), [([0, 0, 1], "'dog' has 1 image and needs"), ([0, 0, 0], "'dog' has 0 images and needs")])
def test_a_class_of_too_few_images_is_named(labels: list[int], found: str) -> None:
    """The message has the class, what it has and what it needs."""
    with pytest.raises(DataError, match=f"toys: class {found} at least 3, one for each split"):
        check_labels(np.array(labels), classes=("cat", "dog"), at_least=3, where="toys")
