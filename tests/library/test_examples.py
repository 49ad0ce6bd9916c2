"""The examples run, on their own, and print what their first lines promise."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = {"rename_weights"}  # run on a file: see tests/unit/test_pretrained.py
EXAMPLES = sorted(path for path in (Path(__file__).parents[2] / "examples").glob("*.py") if path.stem not in TOOLS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    """In an empty folder, with nothing but the installed package."""
    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "target_reached" in done.stdout
