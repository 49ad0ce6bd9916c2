"""Say a preset as options of `dvc exp run`; the command `odn preset NAME`.

Reads: params/NAME.yaml, whose keys are settings such as `search.mode`; `search.schedule` is there a list of depths
Writes: nothing
Config: all
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from odn.config import Config, changed
from odn.errors import ConfigError
from odn.plain import read_yaml

FOLDER = Path("params")


def run(config: Config, *, name: str, folder: Path = FOLDER) -> list[str]:
    """Return `-S` options that turn `config` into the preset, in the order of the file; what is the same already has none.

    Raises:
        ConfigError: there is no such preset, or what comes out is refused.
    """
    preset = read_preset(name, folder=folder)
    now = json.loads(config.to_json())
    wanted = json.loads(changed(config, preset).to_json())
    options: list[str] = []
    for key in preset:
        section, _, setting = key.partition(".")
        old, new = (content[section][setting] if setting else content[section] for content in (now, wanted))
        if key == "search.schedule":
            options += _schedule(old, new)
        elif old != new:
            options += ["-S", f"{key}={json.dumps(new).strip(chr(34))}"]
    return options


def read_preset(name: str, *, folder: Path = FOLDER) -> dict[str, Any]:
    """Read a preset's settings by their dotted names.

    Raises:
        ConfigError: there is none of that name, or it holds no settings.
    """
    known = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    if name not in known:
        raise ConfigError(f"there is no preset {name}; those in {folder}/ are: {', '.join(known) or 'none'}")
    content = read_yaml(folder / f"{name}.yaml")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{folder}/{name}.yaml: expected lines such as 'search.mode: paper'")
    return content


def _schedule(old: list[int], new: list[int]) -> list[str]:
    """Change the map {depth: {after: depth}} entry by entry; DVC would only add to it."""
    before, after = ({depth: shallower for shallower, depth in pairwise([0, *depths])} for depths in (old, new))
    gone = [option for depth in before if depth not in after for option in ("-S", f"~search.schedule.{depth}")]
    changed = [depth for depth in after if before.get(depth) != after[depth]]
    return gone + [option for depth in changed for option in ("-S", f"++search.schedule.{depth}.after={after[depth]}")]
