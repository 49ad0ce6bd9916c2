"""Write the settings that each stage which depends on many of them is told, so that `dvc.lock` holds them once.

DVC rewrites the whole of that file after each stage; with all settings under every stage and rung that takes twice as long.

Reads: nothing
Writes: work/settings/train.json, work/settings/check.json, work/settings/truncate.json, work/settings/report.json,
  work/settings/register.json
Config: all
"""

from pathlib import Path
from typing import Any

from odn.config import Config
from odn.files import write_json

ALL = tuple(Config.model_fields)
NETWORKS = tuple(f"search.{name}" for name in ("mode", "ladder", "cost", "max_bytes", "max_macs", "max_params"))
TOLD = {  # a change of one of these runs the stage again, for every depth
    "train": ("seed", "data", "model", "train", "augment", "growth", *NETWORKS, "climb", "paper", "supernet", "prune"),
    "check": ("seed", "model", "train", "augment", "search"),
    "truncate": ("seed", "model", "train", "augment", "growth", "search", "climb", "prune", "finish"),
    "report": ALL,
    "register": ALL,
}


def run(config: Config, *, out: Path) -> None:
    """Write for each of these stages the settings that it depends on, as one file."""
    content = config.model_dump(mode="json")
    for stage, names in TOLD.items():
        write_json(out / f"{stage}.json", {name: _value(content, name) for name in names})


def _value(content: dict[str, Any], name: str) -> Any:
    section, _, key = name.partition(".")
    return content[section][key] if key else content[section]
