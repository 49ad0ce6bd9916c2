"""Laws of `search.mode: auto`: it does what the chosen mode does, and pays for its look."""

from pathlib import Path
from typing import Any

import pytest

from laws.search_data import small_config
from laws.stage_runs import Stages, read, require_agreement
from odn.files import MANIFEST, foreign_names
from odn.searching.folder import SearchFolder
from odn.stages import open as open_stage

AUTO: dict[str, Any] = {
    "search": {"mode": "auto", "target": 0.27},
    "supernet": {"epochs": 2},
    "auto": {"epochs": 1},
    "train": {"batch_size": 16},
}


@pytest.mark.parametrize(("deep", "mode"), [(1.0, "growth"), (0.0, "supernet")])
def test_auto_is_the_mode_that_it_chooses(tmp_path: Path, deep: float, mode: str) -> None:
    """Weights and verdicts are those of the mode; the ledger begins with the look, and the model says why."""
    changes = AUTO | {"auto": {"epochs": 1, "deep": deep}}
    stages, same = Stages(small_config(**changes), tmp_path / "auto"), small_config(**changes).in_mode(mode)
    other = Stages(same, tmp_path / "given")
    for one in (stages, other):
        one.search()
        one.truncate()
    weights = [(one.folder / "model/weights.safetensors").read_bytes() for one in (stages, other)]
    ours, theirs = (read(one.folder / "model/search.json") for one in (stages, other))
    assert weights[0] == weights[1]
    assert (ours["mode_selection"]["mode"], ours["steps"]) == (mode, theirs["steps"])
    assert [entry["phase"] for entry in ours["ledger"]] == ["mode-selection", *(entry["phase"] for entry in theirs["ledger"])]
    assert ours["full_network_epochs"] == pytest.approx(theirs["full_network_epochs"] + ours["mode_selection"]["cost"])
    require_agreement(stages, tmp_path / "again")
    for manifest in stages.folder.rglob(MANIFEST):
        assert foreign_names(manifest.parent) == [], "every file of a folder is listed, so that the stage may run again"


def test_a_changed_schedule_reaches_what_is_trained_together(tmp_path: Path) -> None:
    """Depth 0, on which the first depth depends, changes with the schedule where all depths may be trained at once, and only there."""
    written = {}
    for mode in ("growth", "supernet", "auto"):
        for schedule in ([1, 2], [1, 2, 3]):
            out = tmp_path / f"{mode}-{len(schedule)}"
            open_stage.run(small_config(search={"mode": mode, "schedule": schedule}), search=SearchFolder(out))
            written[mode, len(schedule)] = (out / "depths/0/metrics.json").read_bytes()
    assert {mode: written[mode, 2] == written[mode, 3] for mode in ("growth", "supernet", "auto")} == {
        "growth": True,
        "supernet": False,
        "auto": False,
    }
