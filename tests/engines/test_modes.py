"""Modes of search that train in other ways run on DVC and as a compiled pipeline, give the same bytes there, and register."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from engines.conftest import Clone, require_same_bytes, run_compiled

MODES: dict[str, dict[str, dict[str, Any]]] = {
    "supernet": {"supernet": {"epochs": 2}},
    "prune": {"search": {"schedule": {"3": {"after": 0}}}, "prune": {"epochs": 4, "budget": 0.02, "budget_metric": "params"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_mode_runs_everywhere(mode: str, clone: Clone, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From raw data to a registered model, through one graph."""
    clone.change("search", mode=mode, target=0.3)
    for section, settings in MODES[mode].items():
        clone.change(section, **settings)
    shutil.rmtree(clone.folder / "work", ignore_errors=True)  # of depths that no stage makes any more
    clone.repro()
    assert clone.read(".odn/registration.json")["name"] == "odn-digits"
    (tmp_path / "params.yaml").write_bytes((clone.folder / "params.yaml").read_bytes())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    require_same_bytes(clone, run_compiled(tmp_path, python=programs / "python", monkeypatch=monkeypatch))
