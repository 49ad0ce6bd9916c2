"""Laws of `search.mode`: a grid trains every depth, paper is the published procedure, and stages and generator agree to the byte."""

from pathlib import Path
from typing import Any

import pytest
import torch

from laws.search_data import open_data, small_config
from laws.stage_runs import Stages, read, require_agreement
from odn.models.stored_networks import load_network, save_network
from odn.searching.published import Warm, train_published, untrained, warm_up, warmup_cost
from odn.searching.published_task import Patience
from odn.training import fit as fitting
from odn.training.fit import EpochRow

PAPER: dict[str, Any] = {  # whose target no depth reaches, whatever the processor
    "search": {"mode": "paper", "target": 0.999},
    "paper": {"target": 0.999, "warmup_epochs": 2, "patience": 3, "max_epochs": 8, "lr": 0.2, "later_lr": 0.2},
    "train": {"optimizer": "sgd", "label_smoothing": 0.0, "batch_size": 16},
    "growth": {"shortcut": "conv"},
    "model": {"width": 0.25},
}


def searched(folder: Path, **changes: dict[str, Any]) -> Stages:
    """Run a search through its stages, to a model that is certified."""
    stages = Stages(small_config(**changes), folder)
    stages.search()
    stages.truncate()
    stages.evaluate()
    return stages


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Search as published, to a model that is certified."""
    return searched(tmp_path_factory.mktemp("published"), **PAPER)


@pytest.mark.parametrize(("target", "kept", "verdict"), [(0.3, 1, "target_reached"), (0.999, None, "exhausted")])
def test_a_grid_trains_every_depth_and_keeps_the_shallowest_that_is_enough(
    target: float, kept: int | None, verdict: str, tmp_path: Path
) -> None:
    """All depths get the same epochs, down to a learning rate of 0; the search goes on behind the one that is kept."""
    stages = searched(tmp_path, search={"mode": "grid", "ladder": "prefix", "target": target}, climb={"epochs": 6})
    steps = [read(stages.depths / str(depth) / "metrics.json") for depth in (1, 2, 3)]
    assert [step["epochs"] for step in steps] == [6, 6, 6]
    assert not any(read(stages.checks / str(depth) / "verdict.json")["annealed"] for depth in (1, 2, 3))
    found = read(tmp_path / "metrics/search.json")
    assert found["verdict"] == verdict
    assert kept is None or found["depth"] == kept
    assert [step["verdict"] == "target_reached" for step in read(tmp_path / "model/search.json")["steps"]] == [kept is not None] * 3
    assert load_network(tmp_path / "model").depth == found["depth"]
    require_agreement(stages, tmp_path)


def test_a_depth_of_a_grid_knows_nothing_of_the_others(tmp_path: Path) -> None:
    """Alone, from scratch, it comes out with the same bytes."""
    grid = searched(tmp_path / "grid", search={"mode": "grid", "ladder": "prefix"}, climb={"epochs": 3})
    alone = searched(tmp_path / "alone", search={"mode": "climb", "ladder": "prefix", "schedule": [2]}, climb={"epochs": 3})
    name = "depths/2/weights.safetensors"
    assert (grid.work / name).read_bytes() == (alone.work / name).read_bytes()


def test_paper_goes_through_the_stages(published: Stages, tmp_path: Path) -> None:
    """Each depth starts from the warm-up, the best epoch's network is kept without a trial anneal, and its cost holds the warm-up."""
    stages, folder = published, published.folder
    found = read(folder / "metrics/search.json")
    kept = stages.depths / str(found["depth"])
    assert (found["verdict"], sorted(path.name for path in stages.checks.glob("[1-9]"))) == ("exhausted", ["1", "2", "3"])
    assert (folder / "model/weights.safetensors").read_bytes() == (kept / "weights.safetensors").read_bytes()
    step = read(kept / "metrics.json")
    assert step["val_accuracy"] == max(step["curve"]) == found["val_accuracy"]
    data = open_data(stages.config, stages.prepared)
    first = read(stages.depths / "1" / "metrics.json")
    warmed = warmup_cost(untrained(data, stages.config).architecture, data=data, config=stages.config)
    assert first["cost"] == pytest.approx(warmed + first["epochs"] * first["macs"] / first["macs_full"] * 208 / 210)
    require_agreement(stages, tmp_path)


def test_the_warm_up_stays_as_it_is(published: Stages) -> None:
    """Training a depth changes nothing in what the next depth starts from."""
    stages = published
    data = open_data(stages.config, stages.prepared)
    (warm,) = (event.network for event in warm_up(data=data, config=stages.config, checkpoint=None) if isinstance(event, Warm))
    before = {name: tensor.clone() for name, tensor in warm.state_dict().items()}
    list(train_published(warm, data=data, config=stages.config, depth=1, is_first=True, checkpoint=None))
    assert all(torch.equal(tensor, before[name]) for name, tensor in warm.state_dict().items())
    assert warm.head_depths == tuple(range(1, 9))


def test_an_interrupted_paper_search_ends_with_the_same_bytes(published: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken off in the warm-up, then within a depth: what was kept is taken up, and nothing differs."""
    config, data = published.config, open_data(published.config, published.prepared)
    warming, training = tmp_path / "warming.safetensors", tmp_path / "training.safetensors"
    monkeypatch.setattr(fitting, "TICK_SECONDS", 0.0)
    for _ in warm_up(data=data, config=config, checkpoint=warming):
        if warming.exists():
            break
    (warm,) = (event.network for event in warm_up(data=data, config=config, checkpoint=warming) if isinstance(event, Warm))
    rows = 0
    for event in train_published(warm, data=data, config=config, depth=1, is_first=True, checkpoint=training):
        rows += isinstance(event, EpochRow)
        if rows == 2:
            break
    *_, last = train_published(warm, data=data, config=config, depth=1, is_first=True, checkpoint=training)
    save_network(last.network, tmp_path)  # type: ignore[union-attr]
    assert (tmp_path / "weights.safetensors").read_bytes() == (published.depths / "1/weights.safetensors").read_bytes()


def progress(accuracies: list[float], **changes: Any) -> tuple[Patience, str | None]:
    """Show a depth these accuracies, with a target of 0.9 and a patience of 3; return where it stands, and what ended it."""
    state, stop = Patience(**{"target": 0.9, "patience": 3, "max_epochs": 100, "deepest": False} | changes), None
    for accuracy in accuracies:
        assert stop is None, "it went on behind its end"
        _, stop = state.saw(accuracy)
    return state, stop.kind if stop is not None else None


def test_searching_counts_tenths_of_a_percent() -> None:
    """0.8504 after 0.8500 is no progress; three such epochs end the depth, short of the target."""
    assert progress([0.85, 0.8504, 0.8502, 0.8501]) == (Patience(0.9, 3, 100, False, best=0.85, best_epoch=1, idle=3, n_epochs=4), "flat")


def test_at_the_target_tuning_begins_and_counts_hundredths() -> None:
    """The same small step is progress once the target is reached."""
    state, stop = progress([0.9, 0.9004, 0.9004, 0.9004, 0.9004])
    assert (state.tunes, state.best, state.best_epoch, stop) == (True, 0.9004, 2, "flat")


def test_the_deepest_is_tuned_whatever_it_reaches() -> None:
    """There is no deeper depth to go to."""
    state, stop = progress([0.5], deepest=True)
    assert (state.tunes, stop) == (True, None)


def test_the_rate_falls_at_every_fifth_idle_epoch() -> None:
    """Progress in between starts the count anew, and what has fallen stays."""
    state, _ = progress([0.5] * 6 + [0.6] + [0.6] * 4, patience=23)
    assert state.decays == 1
    state, _ = progress([0.5] * 11, patience=23)
    assert state.decays == 2
