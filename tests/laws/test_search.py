"""Laws of the search: in memory and stage by stage it is the same search, to the byte."""

from pathlib import Path

import pytest

from laws.search_data import open_data, small_config
from laws.stage_runs import Stages, read, require_agreement
from odn.errors import MissingInputError
from odn.models.stored_networks import load_network
from odn.searching.folder import SearchFolder
from odn.searching.records import read_search
from odn.training.evaluation import evaluate


@pytest.fixture(scope="module")
def second_depth(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Run a search that is accepted at depth 2 of 3: with these few epochs depth 1 reads 27 %, depth 2 44 % of 90 digits."""
    stages = Stages(small_config(search={"target": 0.45}), tmp_path_factory.mktemp("second"))
    stages.search()
    stages.truncate()
    return stages


@pytest.fixture(scope="module")
def exhausted(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Run a search whose target is out of reach."""
    stages = Stages(small_config(search={"target": 0.999, "cooldown_gain": 0.0}), tmp_path_factory.mktemp("exhausted"))
    stages.search()
    stages.truncate()
    return stages


def test_the_generator_and_the_stages_agree_to_the_byte(second_depth: Stages, tmp_path: Path) -> None:
    """Weights, records and verdicts of `expand` are those that the stages wrote."""
    require_agreement(second_depth, tmp_path)


def test_a_depth_after_the_end_of_the_search_is_a_marker(second_depth: Stages) -> None:
    """What was not needed is neither trained nor judged; the decision is handed on."""
    assert read(second_depth.depths / "3" / "metrics.json") == {"depth": 3, "skipped": True}
    assert read(second_depth.checks / "3" / "verdict.json") == {"depth": 3, "skipped": True}
    assert read(second_depth.decisions / "3.json") == {"verdict": "target_reached", "accepted": 2}


def test_a_decision_to_go_on_does_not_know_the_target(second_depth: Stages, exhausted: Stages) -> None:
    """So that a raised target leaves what was trained behind it valid."""
    assert (second_depth.decisions / "1.json").read_bytes() == (exhausted.decisions / "1.json").read_bytes()


def test_training_does_not_know_the_target(second_depth: Stages, exhausted: Stages) -> None:
    """Searches for different targets train the same depths to the same bytes."""
    for name in ("weights.safetensors", "state.safetensors", "metrics.json", "history.csv"):
        assert (second_depth.depths / "2" / name).read_bytes() == (exhausted.depths / "2" / name).read_bytes()


def test_the_model_is_what_was_measured(second_depth: Stages) -> None:
    """Read out again on val, the model's own file gives the accuracy that its card and the verdict promise."""
    data = open_data(second_depth.config, second_depth.prepared)
    network = load_network(second_depth.folder / "model")
    card = read(second_depth.folder / "model" / "card.json")
    assert evaluate(data.machine.to_device(network), data.val, machine=data.machine).accuracy == card["val_accuracy"]
    assert card["val_accuracy"] >= card["target"]


def test_the_model_holds_the_kept_blocks_only(second_depth: Stages) -> None:
    """Two blocks, one head, no more."""
    network = load_network(second_depth.folder / "model")
    assert (network.depth, network.head_depths) == (2, (2,))


def test_without_a_finish_the_model_is_the_annealed_network(second_depth: Stages) -> None:
    """finish.epochs 0 keeps the very bytes that the verdict was about."""
    plain = Stages.__new__(Stages)
    plain.__dict__.update(second_depth.__dict__, folder=second_depth.folder / "plain")
    plain.config = small_config(search={"target": 0.45}, finish={"epochs": 0})
    plain.truncate()
    annealed = second_depth.checks / "2" / "weights.safetensors"
    assert (plain.folder / "model" / "weights.safetensors").read_bytes() == annealed.read_bytes()


def test_an_exhausted_search_says_so_and_keeps_the_best_depth(exhausted: Stages) -> None:
    """Never promoted silently: the card carries the verdict and the rule that chose."""
    card = read(exhausted.folder / "model" / "card.json")
    assert card["verdict"] == "exhausted"
    assert "one standard error" in card["reason"]
    assert card["weights_from"] == "finish"  # no depth was worth a trial anneal


def test_the_ledger_adds_up(second_depth: Stages) -> None:
    """What the search cost is the sum of its phases, each weighted by its MACs."""
    record = read(second_depth.folder / "model" / "search.json")
    assert [(entry["depth"], entry["phase"]) for entry in record["ledger"]] == [
        (1, "stable"),
        (1, "trial"),
        (2, "stable"),
        (2, "trial"),
        (2, "finish"),
    ]
    assert record["full_network_epochs"] == sum(entry["full_network_epochs"] for entry in record["ledger"])
    assert read(second_depth.folder / "metrics" / "search.json")["full_network_epochs"] == record["full_network_epochs"]


def test_certifying_compares_with_the_depth_before(second_depth: Stages) -> None:
    """Test accuracy with its interval, what is saved, and McNemar's test against the shallower depth."""
    record = second_depth.evaluate()
    assert record["test_accuracy_low"] < record["test_accuracy"] < record["test_accuracy_high"]
    assert record["shallower_depth"] == 1
    assert 0 <= record["mcnemar_p_shallower"] <= 1
    assert 0 < record["macs_saved"] < 1
    rows = (second_depth.work / "evaluation" / "predictions.csv").read_text().splitlines()
    assert len(rows) == record["n_test"] + 1


def test_a_missing_stage_is_named(second_depth: Stages, tmp_path: Path) -> None:
    """Truncating before checking says which stage has to run."""
    with pytest.raises(MissingInputError, match="run 'dvc repro train@1' first"):
        read_search((1,), folder=SearchFolder(tmp_path))
