"""Laws of `odn specialise` after a climb: it picks among the networks that were trained, and trains nothing."""

from pathlib import Path
from typing import Any

import pytest

from laws.search_data import small_config
from laws.stage_runs import Stages, read
from odn.commands import specialise
from odn.commands.specialise import Specialised
from odn.errors import MissingInputError
from odn.searching.folder import SearchFolder
from odn.searching.targets import read_targets


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Climb three rungs, and try two networks below the accepted one."""
    search = {"mode": "climb", "target": 0.6, "schedule": [1, 2, 3]}
    stages = Stages(small_config(search=search, climb={"epochs": 12}), tmp_path_factory.mktemp("climbed"))
    stages.search()
    stages.truncate()
    return stages


def picked(climbed: Stages, out: Path, *targets: str, **changed: Any) -> Specialised:
    """Run the command without a registry."""
    paths: dict[str, Any] = {"prepared": climbed.prepared, "search": climbed.places, "model": climbed.folder / "model", "out": out}
    return specialise.run(climbed.config, targets=read_targets(targets), registers=False, **(paths | changed))


def trained(climbed: Stages) -> list[dict[str, Any]]:
    """Return the records of the rungs that were trained, and of the network between two if one was kept."""
    record = read(climbed.folder / "model/search.json")
    kept = min((one for one in record["refinements"] if one["reached"]), key=lambda one: one["size_bytes"], default=None)
    between = [] if kept is None else [kept | {"val_accuracy": kept["n_correct"] / kept["n"]}]
    return [*record["steps"], *between]


@pytest.mark.parametrize("target", ["accuracy>=0.5", "bytes<=20000", "macs<=1000000000", "accuracy>=0.3,latency_ms<=1000"])
def test_what_is_picked_is_the_best_that_was_trained(target: str, climbed: Stages, tmp_path: Path) -> None:
    """The smallest of those that are accurate enough; without a bound on accuracy the most accurate within the budgets."""
    done = picked(climbed, tmp_path, target)
    (bounds,) = read_targets([target])
    most = dict(bounds.bounds).get("bytes", float("inf"))
    fits = [one for one in trained(climbed) if one["size_bytes"] <= most and one["val_accuracy"] >= (bounds.accuracy or 0)]
    if not fits:
        assert done.made == ()
        return
    best = min(fits, key=lambda one: (0 if bounds.accuracy else -one["val_accuracy"], one["size_bytes"]))
    assert (done.made[0].card["size_bytes"], done.made[0].card["val_accuracy"]) == (best["size_bytes"], best["val_accuracy"])


def test_the_weights_that_were_trained_are_kept(climbed: Stages, tmp_path: Path) -> None:
    """Byte for byte those of the most accurate network."""
    done = picked(climbed, tmp_path, "bytes<=1e9")
    places = [*climbed.depths.glob("*/weights.safetensors"), climbed.folder / "model/weights.safetensors"]
    assert (done.made[0].folder / "weights.safetensors").read_bytes() in [place.read_bytes() for place in places]


def test_a_target_that_is_missed_says_by_how_much(climbed: Stages, tmp_path: Path) -> None:
    """With the nearest network by name."""
    missed = picked(climbed, tmp_path, "accuracy>=1", "bytes<=100").missed
    assert missed[0].startswith("no network meets --target accuracy>=1: the best within the budgets, ")
    assert missed[1].startswith("no network meets --target bytes<=100: the smallest, ")


def test_before_a_climb_there_is_nothing_to_pick(climbed: Stages, tmp_path: Path) -> None:
    """What to run is said."""
    with pytest.raises(MissingInputError, match="run 'dvc repro"):
        picked(climbed, tmp_path, "accuracy>=0.5", search=SearchFolder(tmp_path / "none"))


def test_a_bound_on_latency_may_be_that_of_another_runtime(climbed: Stages, tmp_path: Path) -> None:
    """A bound that torch misses is met by the same network in ONNX Runtime; the card and the line on it say where it was timed."""
    (torch,) = picked(climbed, tmp_path, "macs<=1e9").made
    network, bound = f"bytes<={torch.card['size_bytes']}", torch.card["latency_ms"] / 2
    assert torch.card["runtime"] == "torch"
    assert picked(climbed, tmp_path, f"accuracy>={torch.card['val_accuracy']},{network},latency_ms<={bound}").made == ()
    for runtime, where in (("onnx", " ms in ONNX Runtime"), ("onnx-int8", " ms in ONNX Runtime, 8 bits")):
        (made,) = picked(climbed, tmp_path, f"accuracy>={torch.card['val_accuracy']},{network},latency_ms<={bound}", runtime=runtime).made
        assert made.card["runtime"] == runtime
        assert 0 < made.card["latency_ms"] <= bound
        assert where in made.describe()
