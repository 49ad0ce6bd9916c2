"""Laws of every `search.mode`, those that are still to come among them: each row of `odn.modes` is tried as it stands."""

from pathlib import Path
from typing import Any

import pytest

from laws.search_data import open_data, small_config
from laws.stage_runs import Stages, read, require_agreement
from odn.config import Config, changed
from odn.models.stored_networks import load_network, save_network
from odn.modes import MODES
from odn.searching.climb import conclude
from odn.stages import train

DEEPEST, EPOCHS = 8, 3


def tried(mode: str) -> Config:
    """Return small settings: few depths, or the deepest where there is one, and few epochs where the mode has a number of its own."""
    own = {"epochs": EPOCHS} if "epochs" in getattr(type(getattr(Config(), mode, None)), "model_fields", {}) else {}
    schedule = [DEEPEST] if MODES[mode].one_depth else [1, 2, 3]
    search = {"mode": mode, "target": 0.98, "schedule": schedule}
    changes: dict[str, dict[str, Any]] = {"search": search, "climb": {"epochs": EPOCHS}}  # which a grid has, too
    return small_config(**changes | ({mode: own} if own else {}))


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
    done, record = conclude(steps, data=data, config=searched.config), read(searched.folder / "model/search.json")
    assert (done.depth, done.reason, list(done.val_interval)) == (record["depth"], record["reason"], record["val_interval"])
    assert [vars(entry) for entry in done.ledger] == record["ledger"]
    save_network(done.model, tmp_path)
    assert (tmp_path / "weights.safetensors").read_bytes() == (searched.folder / "model/weights.safetensors").read_bytes()


def test_the_model_is_what_its_record_says(searched: Stages) -> None:
    """Its depth, or the size of its rung, its cost, and a ledger that adds up."""
    record, model = read(searched.folder / "model/search.json"), load_network(searched.folder / "model")
    kept = next(step for step in record["steps"] if step["depth"] == record["depth"])
    assert model.depth == model.head_depths[-1]
    assert sum(parameter.numel() for parameter in model.parameters()) == kept["n_params"]
    assert model.depth == record["depth"] or searched.config.spreads
    assert sum(entry["full_network_epochs"] for entry in record["ledger"]) == pytest.approx(record["full_network_epochs"])
    assert record["full_network_epochs"] > 0


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_learns_from_mixed_images(mode: str, tmp_path: Path) -> None:
    """Labels are then probabilities of the classes, and every method's loss takes them."""
    augment = {"augment.crop": 0.5, "augment.trivial": True, "augment.mixup": 0.2, "augment.cutmix": 1.0}
    stages = Stages(changed(tried(mode), augment), tmp_path)
    depth = stages.config.search.schedule[0]
    train.run(stages.config, depth=depth, after=0, prepared=stages.prepared, search=stages.places, progress=tmp_path / "progress")
    rows = (stages.places.trained(depth) / "history.csv").read_text().splitlines()
    assert len(rows) > 1
