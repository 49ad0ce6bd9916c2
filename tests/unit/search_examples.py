"""Settings and records of made-up searches, for tests of what is decided on them."""

from pathlib import Path
from typing import Any

from odn.config import load_config
from odn.searching.convergence import DepthStep
from odn.sections import GrowthConfig, SearchConfig

PARAMS = Path(__file__).parents[2] / "params.yaml"


def growth(**changes: Any) -> GrowthConfig:
    """Return the settings that ship, with some changed."""
    return load_config(PARAMS).growth.model_copy(update={"min_epochs": 3, "max_epochs": 10, "patience": 2, "min_gain": 0.1} | changes)


def search(**changes: Any) -> SearchConfig:
    """Return the settings that ship, with some changed."""
    base = {"mode": "growth", "target": 0.97, "accept": "point", "cooldown_gain": 0.5, "schedule": (1, 2, 3)}
    return load_config(PARAMS).search.model_copy(update=base | changes)


def step(n_correct: int, *, n: int = 1000, depth: int = 1, **changes: Any) -> DepthStep:
    """Return the record of a trained depth whose averaged weights got `n_correct` of `n` right."""
    accuracy = n_correct / n
    values: dict[str, Any] = {
        "depth": depth,
        "after": depth - 1,
        "epochs": 3,
        "stopped": "flat",
        "why": "the curve is flat",
        "val_accuracy": accuracy,
        "val_correct": n_correct,
        "n_val": n,
        "curve": (0.5, accuracy, accuracy),
        "n_params": 1000 * depth,
        "size_bytes": 4000 * depth,
        "macs": 100 * depth,
        "macs_full": 800,
        "cost": 0.375 * depth,
    }
    return DepthStep(**(values | changes))
