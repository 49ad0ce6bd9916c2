"""Write what the stages that a loop repeats are told, so that `dvc.lock` holds it once.

DVC rewrites the whole of that file after each stage: with all settings under every rung it takes twice as long.

Reads: nothing
Writes: work/settings/train.json, work/settings/check.json
Config: seed, data, model, train, augment, growth, search, climb, paper, supernet, prune
"""

from pathlib import Path
from typing import Any

from odn.config import Config
from odn.files import write_json

# A change of one of these runs the stage again, for every depth.
TRAIN = ("seed", "data", "model", "train", "augment", "growth", "climb", "paper", "supernet", "prune")
NETWORKS = tuple(f"search.{name}" for name in ("mode", "ladder", "cost", "max_bytes", "max_macs", "max_params"))
TOLD = {"train": (*TRAIN, *NETWORKS), "check": ("seed", "model", "train", "augment", "search")}


def run(config: Config, *, out: Path) -> None:
    """Write for each of these stages the settings that it depends on."""
    content = config.model_dump(mode="json")
    for stage, names in TOLD.items():
        write_json(out / f"{stage}.json", {name: _value(content, name) for name in names})


def _value(content: dict[str, Any], name: str) -> Any:
    section, _, key = name.partition(".")
    return content[section][key] if key else content[section]
