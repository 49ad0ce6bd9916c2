"""Laws of every `search.mode`, those that are still to come among them: each row of `odn.modes` is tried as it stands."""

from pathlib import Path
from typing import Any

import pytest

from laws.search_data import open_data, small_config
from laws.stage_runs import Stages, read, require_agreement
from odn.config import Config
from odn.models.stored_networks import load_network, save_network
from odn.modes import MODES
from odn.searching.climb import conclude
from odn.training import checkpoint
from odn.training import fit as fitting

DEEPEST, EPOCHS = 8, 3


def tried(mode: str) -> Config:
    """Return small settings: few depths, or the deepest where there is one, and few epochs where the mode has a number of its own."""
    own = {"epochs": EPOCHS} if "epochs" in getattr(type(getattr(Config(), mode, None)), "model_fields", {}) else {}
    schedule = [DEEPEST] if MODES[mode].one_depth else [1, 2, 3]
    changes: dict[str, dict[str, Any]] = {"search": {"mode": mode, "target": 0.99, "schedule": schedule}}
    return small_config(**changes, **({mode: own} if own else {}))


@pytest.fixture(scope="module", params=MODES)
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Search through the stages, once a mode, to a model that is certified."""
    stages = Stages(tried(request.param), tmp_path_factory.mktemp(request.param))
    stages.search()
    stages.truncate()
    stages.evaluate()
    return stages


def test_a_search_in_memory_is_that_of_the_stages(searched: Stages, tmp_path: Path) -> None:
    """Records and weights are the same, of each depth and of the model."""
    steps, data = require_agreement(searched, tmp_path), open_data(searched.config, searched.prepared)
    done, record = conclude(steps, data=data), read(searched.folder / "model/search.json")
    assert (done.depth, done.reason, list(done.val_interval)) == (record["depth"], record["reason"], record["val_interval"])
    assert [vars(entry) for entry in done.ledger] == record["ledger"]
    save_network(done.model, tmp_path)
    assert (tmp_path / "weights.safetensors").read_bytes() == (searched.folder / "model/weights.safetensors").read_bytes()


def test_the_model_is_what_its_record_says(searched: Stages) -> None:
    """Its depth, its cost, and a ledger that adds up."""
    record, model = read(searched.folder / "model/search.json"), load_network(searched.folder / "model")
    assert model.depth == model.head_depths[-1] == record["depth"]
    assert sum(entry["full_network_epochs"] for entry in record["ledger"]) == pytest.approx(record["full_network_epochs"])
    assert record["full_network_epochs"] > 0


def test_a_depth_that_was_killed_ends_with_the_same_bytes(searched: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phase is broken off behind its first checkpoint: what was kept is taken up, and no file differs."""
    stages, save, broken_off = Stages(searched.config, tmp_path), checkpoint.save_checkpoint, set()

    def save_and_die(path: Path, content: Any) -> None:
        save(path, content)
        if path not in broken_off:
            broken_off.add(path)
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "save_checkpoint", save_and_die)
    n_killed, ended = 0, False
    while not ended:
        try:
            stages.search()
            ended = True
        except KeyboardInterrupt:
            n_killed += 1
    assert n_killed == len(broken_off) > 0
    for folder in (stages.depths, stages.checks):
        mine = {path.relative_to(stages.work): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        theirs = {name: (searched.work / name).read_bytes() for name in mine}
        assert {name for name in mine if mine[name] != theirs[name]} == set()
