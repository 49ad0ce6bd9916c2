"""Read `dvc.yaml` as data: each stage with its command, its settings, what it reads, what it writes and the code it names.

What a stage's own docstring says of it, and its command's help, are read here too, to be held beside.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from odn.cli import main
from odn.config import Config
from odn.stages.settings import TOLD

ROOT = Path(__file__).parents[2]
STAGES = ROOT / "src" / "odn" / "stages"


@dataclass(frozen=True)
class Stage:
    """Hold one stage; in a loop's paths `{depth}` and `{after}` stand for the templates."""

    name: str
    command: str
    config: frozenset[str]
    reads: frozenset[str]
    writes: frozenset[str]
    code: frozenset[str]


def stages_of_dvc() -> dict[str, Stage]:
    """Return the stages that `dvc.yaml` declares, a loop as one."""
    declared: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: _stage(name, entry["do"], in_a_loop=True) if "do" in entry else _stage(name, entry) for name, entry in declared.items()}


def stages_of_docstrings() -> dict[str, Stage]:
    """Return what the modules in `odn/stages` say of themselves: those whose docstring has a line `Writes:` with something in it."""
    found = {}
    for path in sorted(STAGES.glob("*.py")):
        docstring = path.read_text().split('"""')[1]
        if re.search(r"^Writes: (?!nothing)", docstring, re.MULTILINE):
            found[path.stem] = Stage(
                name=path.stem,
                command=f"odn {path.stem}",
                reads=_listed(docstring, "Reads"),
                writes=_listed(docstring, "Writes"),
                config=_settings(_listed(docstring, "Config")),
                code=frozenset(),
            )
    return found


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """Return what `odn COMMAND --help` prints."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def _listed(docstring: str, title: str) -> frozenset[str]:
    line = re.search(rf"^{title}: (.+(?:\n {{2,}}\S.*)*)", docstring, re.MULTILINE)
    assert line is not None, f"no line {title!r} in {docstring!r}"
    return frozenset(item for item in re.split(r",\s+", line[1]) if item not in ("nothing", "none"))


def _settings(listed: frozenset[str]) -> frozenset[str]:
    return frozenset(Config.model_fields) if listed == {"all"} else listed


def _stage(name: str, entry: dict[str, Any], *, in_a_loop: bool = False) -> Stage:
    deps = _paths(entry.get("deps", []))
    if in_a_loop and "work/prepared/dataset.json" in deps:
        deps |= {"work/prepared/train", "work/prepared/val"}  # whose digests it holds
    outs = _paths([*entry.get("outs", []), *entry.get("metrics", []), *entry.get("plots", [])])
    return Stage(
        name=name,
        command=_untemplated(entry["cmd"]),
        config=frozenset(TOLD[name] if f"work/settings/{name}.json" in deps else entry.get("params", [])),
        reads=frozenset(path for path in deps if not path.startswith(("work/code/", "work/settings/"))),
        writes=outs,
        code=frozenset(path for path in deps if path.startswith("work/code/")),
    )


def _paths(entries: list[Any]) -> frozenset[str]:
    return frozenset(_untemplated(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries)


def _untemplated(text: str) -> str:
    return text.replace("${key}", "{depth}").replace("${item.after}", "{after}")
