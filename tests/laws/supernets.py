"""Small supernets, and searches with them."""

from pathlib import Path
from typing import Any

from laws.search_data import small_config
from laws.stage_runs import Stages

SUPERNET: dict[str, Any] = {  # under which depth 1 misses the target, and depth 2 reaches it
    "search": {"mode": "supernet", "target": 0.27},
    "supernet": {"epochs": 4, "exits": 1},
    "train": {"batch_size": 16},
}
WIDTHS: dict[str, Any] = SUPERNET | {"supernet": {"epochs": 4, "exits": 1, "widths": [1.0, 0.5]}}


def searched(folder: Path, **changes: dict[str, Any]) -> Stages:
    """Run a search through its stages, to a model that is certified."""
    stages = Stages(small_config(**changes), folder)
    stages.search()
    stages.truncate()
    stages.evaluate()
    return stages
