"""The digests of a stage's code change with what changes its result, and with nothing else."""

import functools
import shutil
from pathlib import Path

import pytest

from odn.source import STAGES, Source, read_source

SOURCE = Path(__file__).parents[2] / "src" / "odn"
TRAINING = {"train", "check", "truncate"}
CHANGED = ("\n\n\n", "\n\n\nX = 1\n\n\n")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the source code."""
    folder = tmp_path_factory.mktemp("source") / "odn"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


MODES = ("growth", "supernet", "prune", "paper")


@functools.lru_cache
def _known(package: Path) -> Source:
    return read_source(package)


def touched(package: Path, name: str, old: str, new: str) -> dict[str, set[str]]:
    """Return for each mode the stages whose digests change with a module's text."""
    path, before = package / name, _known(package)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    after = read_source(package)
    path.write_text(text)
    digests = {mode: (before.digests(mode=mode), after.digests(mode=mode)) for mode in MODES}
    return {mode: {stage for stage in STAGES if old[stage] != new[stage]} for mode, (old, new) in digests.items()}


@pytest.mark.parametrize(
    "name", ["routing/policies.py", "report/page.py", "display.py", "errors.py", "tracking/replay.py", "commands/route.py", "sections.py"]
)
def test_what_changes_no_result_trains_nothing(package: Path, name: str) -> None:
    """Routing, report, display, error texts, tracking, commands and the list of settings."""
    assert all(stages & TRAINING == set() for stages in touched(package, name, CHANGED[0], CHANGED[1]).values())


@pytest.mark.parametrize(
    ("name", "modes"),
    [
        ("supernet/task.py", {"supernet"}),
        ("pruning/task.py", {"prune"}),
        ("searching/published.py", {"paper"}),
        ("searching/growth.py", {"growth"}),
        ("training/optim.py", set(MODES)),
    ],
)
def test_a_method_that_is_not_in_use_trains_nothing(package: Path, name: str, modes: set[str]) -> None:
    """Only where it is what trains."""
    found = touched(package, name, CHANGED[0], CHANGED[1])
    assert {mode for mode in MODES if "train" in found[mode]} == modes


def test_comments_docstrings_and_error_texts_are_no_code(package: Path) -> None:
    """A sentence that is mended retrains nothing; a number does."""
    name = "training/fit.py"
    assert touched(package, name, '"""Fit a task: the one training loop.', '"""Fit a task: the only training loop.')["growth"] == set()
    assert touched(package, name, "# between two checkpoints", "# from one checkpoint to the next")["growth"] == set()
    assert touched(package, name, 'f"the loss is {', 'f"a loss of {')["growth"] == set()
    assert touched(package, name, "\n\n\n", "\n\n\n\n\n")["growth"] == set()
    assert touched(package, name, "CHECK_STEPS = 100", "CHECK_STEPS = 200")["growth"] >= TRAINING
