"""Who is champion: pure rules on two model versions."""

import dataclasses
from typing import Any

import pytest

from odn.sections import RegistryConfig
from odn.tracking.champion import Contender, decide

OLD = Contender(version="1", verdict="target_reached", test_accuracy=0.98, size_bytes=600, test_sha256="c")
BY_ACCURACY = RegistryConfig(name="m", champion_by="accuracy", margin=0.005)
BY_BYTES = RegistryConfig(name="m", champion_by="bytes", margin=0.005)


def new(**changes: Any) -> Contender:
    """Change the old version into version 2."""
    return dataclasses.replace(OLD, version="2", **changes)


def promoted(contender: Contender, rule: RegistryConfig, champion: Contender | None = OLD) -> bool:
    """Tell whether a contender becomes champion."""
    return decide(contender, present=champion.version if champion else None, champion=champion, registry=rule).champion


def test_the_first_version_that_reaches_its_target_is_champion() -> None:
    """Without a champion, reaching the target is enough."""
    assert promoted(new(), BY_ACCURACY, champion=None)


@pytest.mark.parametrize("champion", [None, OLD])
def test_an_exhausted_search_is_never_champion(champion: Contender | None) -> None:
    """However accurate, a model that missed its target stays a candidate, and the reason says so."""
    contender = new(verdict="exhausted", test_accuracy=1.0)
    assert not promoted(contender, BY_ACCURACY, champion)
    assert "exhausted" in decide(contender, present=None, champion=None, registry=BY_ACCURACY).reason


@pytest.mark.parametrize(("accuracy", "wins"), [(0.981, True), (0.98, False), (0.979, False)])
def test_by_accuracy_the_more_accurate_version_wins(accuracy: float, wins: bool) -> None:
    """Equal is not better."""
    assert promoted(new(test_accuracy=accuracy, size_bytes=10**9), BY_ACCURACY) is wins


@pytest.mark.parametrize(
    ("size_bytes", "accuracy", "wins"),
    [(599, 0.975, True), (599, 0.9749, False), (600, 0.981, True), (600, 0.98, False), (601, 1.0, False)],
)
def test_by_bytes_the_smaller_version_wins_within_the_margin(size_bytes: int, accuracy: float, wins: bool) -> None:
    """Fewer bytes win if accuracy falls by at most the margin; at equal bytes more accuracy wins."""
    assert promoted(new(size_bytes=size_bytes, test_accuracy=accuracy), BY_BYTES) is wins


def test_accuracies_on_other_test_images_do_not_compare() -> None:
    """A champion tested on other images stays, and the reason says why."""
    decision = decide(new(test_sha256="d", test_accuracy=1.0), present="1", champion=OLD, registry=BY_ACCURACY)
    assert not decision.champion
    assert "tested on other images" in decision.reason


def test_a_champion_that_odn_did_not_register_stays() -> None:
    """A version without odn's tags cannot be compared with."""
    assert Contender.from_tags("1", {"owner": "somebody"}) is None
    assert not decide(new(test_accuracy=1.0), present="1", champion=None, registry=BY_ACCURACY).champion


def test_the_champion_stays_champion_when_it_is_registered_again() -> None:
    """A rerun does not dethrone."""
    assert decide(OLD, present="1", champion=OLD, registry=BY_ACCURACY).champion


def test_a_contender_survives_its_tags() -> None:
    """Tags are strings, and read back to the same numbers."""
    assert all(isinstance(value, str) for value in OLD.tags().values())
    assert Contender.from_tags("1", OLD.tags()) == OLD
