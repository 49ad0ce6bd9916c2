"""SIGKILL in the middle of an epoch of every method's training: the same command goes on from its checkpoint, to the same bytes."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from engines.conftest import files_of
from laws.search_data import prepare_digits, small_config

OPEN, TRAIN, CHECK, TRUNCATE = "open", "train --depth {1} --after {0}", "check --depth {1} --after {0}", "truncate"
TWO_DEPTHS = [OPEN, *(command.format(*pair) for pair in ((0, 1), (1, 2)) for command in (TRAIN, CHECK)), TRUNCATE]
ONE_DEPTH = [OPEN, *(command.format(0, 8) for command in (TRAIN, CHECK)), TRUNCATE]
GATES = "route --kind gate --macs 0.7 --no-register"
KILLED = 137  # 128 and SIGKILL
MEASURED = {"routed/gate/wall_clock.json"}

METHODS: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {  # name: (settings, commands, trainings that die)
    "growth": ({"mode": "growth"}, TWO_DEPTHS, ["train-1", "check-1", "train-2", "check-2", "truncate"]),
    "climb": ({"mode": "climb", "target": 0.05, "looks": 2}, TWO_DEPTHS, ["train-1", "refine-1-1", "refine-1-2"]),
    "paper": ({"mode": "paper"}, TWO_DEPTHS, ["warm-up", "train-1", "train-2"]),
    "supernet and gates": ({"mode": "supernet"}, [*TWO_DEPTHS, GATES], ["train-1", "route-gate"]),
    "prune": ({"mode": "prune", "schedule": [8]}, ONE_DEPTH, ["train-8"]),
}
SMALL: dict[str, Any] = {
    "data": {"max_images": 120},
    "model": {"width": 1 / 16},
    "train": {"batch_size": 16, "precision": "fp32"},
    "growth": {"min_epochs": 2, "max_epochs": 2, "patience": 1, "shortcut": "conv"},
    "climb": {"epochs": 2},
    "paper": {"target": 0.999, "warmup_epochs": 2, "patience": 2, "max_epochs": 2},
    "supernet": {"epochs": 2, "exits": 1},
    "prune": {"budget": 0.3, "epochs": 4, "gate_lr": 0.5},
    "route": {"epochs": 2},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a few digits."""
    return prepare_digits(small_config(**SMALL), tmp_path_factory.mktemp("digits"))


def project(folder: Path, settings: dict[str, Any], *, prepared: Path) -> Path:
    """Make a folder with these settings and the prepared data."""
    (folder / "work").mkdir(parents=True)
    (folder / "work/prepared").symlink_to(prepared)
    config = small_config(**SMALL, search={"target": 0.999, "schedule": [1, 2], "cooldown_epochs": 2} | settings)
    (folder / "params.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return folder


def run(folder: Path, command: str, *, python: Path, **environment: str) -> int:
    """Run a command of `odn` in a process of its own; return its exit code."""
    done = subprocess.run([python, "-m", "killed_odn", *command.split()], cwd=folder, env=os.environ | environment, check=False)
    return done.returncode


@pytest.mark.parametrize("method", METHODS)
def test_killed_within_an_epoch_every_method_ends_with_the_same_bytes(method: str, prepared: Path, programs: Path, tmp_path: Path) -> None:
    """Each of its trainings dies of SIGKILL once; the same command takes no step twice, and all files are those of a quiet run."""
    settings, commands, trainings = METHODS[method]
    quiet, killed = (project(tmp_path / name, settings, prepared=prepared) for name in ("quiet", "killed"))
    died = []
    for command in commands:
        assert run(quiet, command, python=programs / "python") == 0
        while code := run(killed, command, python=programs / "python", DIES="1"):
            assert code == KILLED
            died.append((killed / "steps.txt").read_text().split()[-3])
            assert died.count(died[-1]) == 1, "it went through the same step again"
    assert died == trainings
    ours, theirs = ({name: data for name, data in files_of(folder).items() if name not in MEASURED} for folder in (killed, quiet))
    assert ours == theirs
