"""Laws of `search.mode: prune`: what is left is within the budget, was paid for in full, and is the same whoever trains it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from laws.search_data import open_data, small_config
from laws.stage_runs import Stages, read, require_agreement
from odn.errors import ConfigError
from odn.files import write_json
from odn.models.stored_networks import load_network, save_network
from odn.modes import prune_phases
from odn.pruning.fitting import UNITS, Pruned, train_pruned
from odn.pruning.hard_concrete import Scores, p_open, sampled, settled
from odn.report.findings import read_findings
from odn.report.summary import summarize
from odn.searching.data import costs_at, full_network_cost
from odn.searching.records import HISTORY, history_rows, write_table
from odn.training.fit import EpochRow

PRUNE = {"budget": 0.3, "epochs": 4, "gate_lr": 0.5}


def settings(*, depth: int = 8, **prune: Any) -> dict[str, Any]:
    """Return the changes of settings for a run of a second."""
    small = {"data": {"max_images": 150}, "model": {"width": 1 / 16}}
    return small | {"search": {"mode": "prune", "schedule": [depth], "target": 0.01}, "prune": PRUNE | prune}


def pruned(folder: Path, **changes: Any) -> Stages:
    """Prune through the stages, to a model that is certified."""
    stages = Stages(small_config(**settings(**changes)), folder)
    stages.search()
    stages.truncate()
    stages.evaluate()
    return stages


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Give a pruned network with its whole record."""
    return pruned(tmp_path_factory.mktemp("pruned"))


def test_pruning_goes_through_the_stages(done: Stages, tmp_path: Path) -> None:
    """The chain speaks of the blocks that are left; the model is what training left, judged as it is; `expand` gives the same bytes."""
    stages, folder = done, done.folder
    step, found = read(stages.depths / "8/metrics.json"), read(folder / "metrics/search.json")
    network = load_network(folder / "model")
    assert network.architecture.is_cut
    assert (step["depth"], step["left"], found["depth"]) == (8, network.depth, network.depth)
    assert (found["verdict"], read(folder / "model/search.json")["steps"][0]["pruned_from"]) == ("target_reached", 8)
    assert (folder / "model/weights.safetensors").read_bytes() == (stages.depths / "8/weights.safetensors").read_bytes()
    evaluation = read(folder / "metrics/evaluation.json")
    assert 0 < evaluation["macs"] <= 0.3 * evaluation["macs_full"]
    require_agreement(stages, tmp_path)


@pytest.mark.parametrize(("of", "budget", "depth"), [("macs", 0.05, 8), ("params", 0.02, 8), ("bytes", 0.4, 8), ("macs", 0.1, 2)])
def test_the_budget_is_kept(of: str, budget: float, depth: int, tmp_path: Path) -> None:
    """Whatever was learnt, the cut network costs no more than asked; a shallow backbone can be pruned too."""
    stages = Stages(small_config(**settings(depth=depth, budget_metric=of, budget=budget, epochs=3)), tmp_path)
    data = open_data(stages.config, stages.prepared)
    *_, last = train_pruned(data=data, config=stages.config, depth=depth, checkpoint=None)
    assert isinstance(last, Pruned)
    kept, full = (getattr(count(last.network.architecture, data.manifest), UNITS[of]) for count in (costs_at, full_network_cost))
    assert 0.5 * budget < kept / full <= budget


def test_the_summary_says_that_channels_were_cut(done: Stages) -> None:
    """Headline, costs and next steps are those of a pruned network, whose depth is what is left."""
    findings = read_findings(done.config, model=done.folder / "model", metrics=done.folder / "metrics")
    depth = read(done.folder / "metrics/search.json")["depth"]
    text = summarize(findings, registration=None, model=Path("model"), report=None).describe()
    verb = "is" if depth == 1 else "are"
    assert text.startswith(f"{depth} of 8 blocks, channels cut, {verb} enough for digits")
    assert "of depth 8 are left, with fewer channels" in text
    assert "lower prune.budget" in text


def test_every_pass_is_in_the_ledger(done: Stages) -> None:
    """One pass an epoch without gates, two with them, then the cut network's and the teacher's forward pass, a third of a pass."""
    step, (entry,) = read(done.depths / "8/metrics.json"), read(done.folder / "model/search.json")["ledger"]
    share = step["macs"] / step["macs_full"]
    assert prune_phases(done.config.prune) == (1, 1, 2)
    assert entry["full_network_epochs"] == pytest.approx((1 + 2 * 1 + 2 * (share + 1 / 3)) * 96 / 105)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_interrupted_pruning_ends_with_the_same_bytes(epochs: int, done: Stages, tmp_path: Path) -> None:
    """Broken off without gates, with them, or cut: what was kept is taken up, and nothing differs."""
    data, checkpoint = open_data(done.config, done.prepared), tmp_path / "checkpoint.safetensors"
    rows = 0
    for event in train_pruned(data=data, config=done.config, depth=8, checkpoint=checkpoint):
        rows += isinstance(event, EpochRow)
        if rows == epochs:
            break
    *_, resumed = train_pruned(data=data, config=done.config, depth=8, checkpoint=checkpoint)
    assert isinstance(resumed, Pruned)
    write_json(tmp_path / "metrics.json", asdict(resumed.step))
    write_table(tmp_path / "history.csv", history_rows(resumed.rows), columns=HISTORY)
    save_network(resumed.network, tmp_path)
    for name in ("weights.safetensors", "metrics.json", "history.csv"):
        assert (tmp_path / name).read_bytes() == (done.depths / "8" / name).read_bytes()


def test_fine_tuning_is_kept_if_it_is_better(tmp_path: Path) -> None:
    """It is booked either way, and the weights are those that got more of val right."""
    stages = pruned(tmp_path, finetune_epochs=1)
    card, search = read(tmp_path / "model/card.json"), read(tmp_path / "model/search.json")
    assert [(entry["phase"], entry["depth"]) for entry in search["ledger"]] == [(name, card["depth"]) for name in ("stable", "finish")]
    before = read(stages.depths / "8/metrics.json")["val_accuracy"]
    assert (card["val_accuracy"] > before) == (card["weights_from"] == "finish")
    assert card["val_accuracy"] >= before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 0.001}, r"prune.budget: 0.001 of the macs .* the least that can be is 0.0\d+"),
        ({"budget": 0.9, "depth": 2}, "prune.budget: 0.9 of the macs .* holds all of depth 2, which costs 0.2.*: nothing would be cut"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The message says which can."""
    stages = Stages(small_config(**settings(**changes)), tmp_path)
    with pytest.raises(ConfigError, match=message):
        stages.search()
    assert not (stages.depths / "8").exists()


def test_values_follow_their_probability() -> None:
    """As many drawn values are not 0 as `p_open` says; without chance they are 0, between, or 1."""
    scores = torch.tensor([-3.0, 0.0, 3.0])
    draws = torch.rand(20000, 3, generator=torch.Generator().manual_seed(0))
    values = sampled(scores, draws)
    torch.testing.assert_close((values > 0).float().mean(0), p_open(scores), rtol=0, atol=0.01)
    assert settled(torch.tensor([-9.0, 0.0, 9.0])).tolist() == [0.0, 0.5, 1.0]


def test_the_multiplier_presses_a_cost_below_what_is_asked_for() -> None:
    """Scores that the loss would hold open are pressed down until the cost is within the bound, and no further."""
    scores = Scores.fresh(4, score=2.0, device=torch.device("cpu"))
    wanted = torch.tensor([1.0, 0.5, 0.2, 0.1])
    for _ in range(400):
        excess = p_open(scores.values).sum() / 2 - 1
        (scores.penalty(excess) - (wanted * p_open(scores.values)).sum()).backward()
        scores.step(lr=0.1, excess=excess, multiplier_rate=0.1)
    assert float(p_open(scores.values.detach()).sum()) == pytest.approx(2, abs=0.2)
    assert scores.values.argsort(descending=True).tolist() == [0, 1, 2, 3]
