"""How `search.mode: auto` chooses."""

import pytest

from laws.search_data import small_config
from odn.searching.mode_selection import ModeSelection, choose_mode

SCHEDULE = {"schedule": [1, 2, 4, 8], "mode": "auto"}


def selection_for(accuracies: dict[int, float], **auto: object) -> ModeSelection:
    """Choose for a val split of 400 images, whose standard error at 90 % is 1.5 points."""
    return choose_mode(accuracies, n_val=400, cost=2.0, config=small_config(search=SCHEDULE, auto=auto))


@pytest.mark.parametrize(
    ("accuracies", "depth", "mode"),
    [
        ({1: 0.90, 2: 0.90, 4: 0.91, 8: 0.90}, 1, "growth"),
        ({1: 0.70, 2: 0.80, 4: 0.90, 8: 0.91}, 4, "growth"),
        ({1: 0.60, 2: 0.70, 4: 0.80, 8: 0.90}, 8, "supernet"),
    ],
)
def test_depth_decides(accuracies: dict[int, float], depth: int, mode: str) -> None:
    """The shallowest within one standard error of the best: up to half of the deepest grows, beyond it all are trained at once."""
    chosen = selection_for(accuracies)
    assert (chosen.depth, chosen.mode) == (depth, mode)
    assert f"depth {depth} is the shallowest" in chosen.why


def test_the_boundary_is_a_setting() -> None:
    """With a smaller share left to growth the same look asks for a supernet."""
    seen = {1: 0.70, 2: 0.80, 4: 0.90, 8: 0.91}
    assert selection_for(seen, deep=0.5).mode == "growth"
    assert selection_for(seen, deep=0.25).mode == "supernet"


def test_several_models_ask_for_a_supernet() -> None:
    """However shallow the data are."""
    chosen = selection_for({1: 0.9, 2: 0.9, 4: 0.9, 8: 0.9}, models=3)
    assert (chosen.mode, chosen.depth) == ("supernet", 1)
    assert chosen.why.startswith("auto.models asks for 3 models")
