"""Laws of `odn specialise`: what it cuts out of a supernet meets its target, and is what the supernet holds."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from laws.search_data import PARAMS, open_data
from laws.stage_runs import Stages, read
from odn.cli import main
from odn.commands import specialise
from odn.commands.specialise import Specialised
from odn.errors import DataError, MissingInputError
from odn.export.clock import clock_of
from odn.files import write_json
from odn.models.network import DepthNetwork
from odn.models.stored_networks import load_network
from odn.searching.folder import SearchFolder
from odn.searching.targets import read_target, read_targets
from odn.storage import Objects
from odn.supernet import specialiser as searching
from odn.supernet.specialiser import Specialiser
from odn.supernet.subnetworks import Measured, Space
from odn.training.evaluation import evaluate


@pytest.fixture(scope="module")
def measured(reached: Stages) -> Measured:
    """Open the supernet as `specialise` does; what a test measures is there for the next."""
    space, network = Space((0, 0, 1, 1, 2, 2, 3, 3), (1, 2, 3), (1.0, 0.5)), load_network(reached.depths / "1/supernet")
    return measured_in(reached, network, space, uses_table=False)


def measured_in(reached: Stages, network: DepthNetwork, space: Space, *, uses_table: bool) -> Measured:
    """Measure in torch."""
    data = open_data(reached.config, reached.prepared)
    clock = clock_of("torch", manifest=data.manifest, machine=data.machine, train=reached.prepared / "train", objects=Objects)
    return Measured(network, space=space, data=data, augment=reached.config.augment, clock=clock, uses_table=uses_table)


def specialised(reached: Stages, folder: Path, *targets: str) -> Specialised:
    """Run the stage without a registry."""
    paths: dict[str, Any] = {"prepared": reached.prepared, "search": reached.places, "model": reached.folder / "model", "out": folder}
    return specialise.run(reached.config, targets=read_targets(targets), registers=False, **paths)


def test_each_sub_network_has_one_name(measured: Measured) -> None:
    """The width of a group that is not reached is no difference."""
    assert measured.space.count() == len(measured.space.all()) == 2 + 2 + 4
    assert measured.space.smallest in measured.space.all()
    assert measured.space.named(1, (0.5, 0.5, 0.5, 0.5)) == measured.space.named(1, (0.5, 1.0, 1.0, 1.0))


@pytest.mark.parametrize("text", ["accuracy>=0.2", "accuracy>=0.3,macs<=0.5", "macs<=0.35", "bytes<=30000", "parameters<=0.01"])
def test_what_is_found_is_the_best_of_all(text: str, measured: Measured) -> None:
    """It meets every bound; none that meets them too is shallower or cheaper, or without a bound on accuracy more accurate."""
    target = read_target(text)
    found = Specialiser(measured, seed=0, enumerates=True, predicts=True).find(target)
    fits = [one for one in measured.space.all() if not target.excess(measured.cost(one), whole=measured.whole)]
    enough = [one for one in fits if measured.evaluate(one).accuracy >= (target.accuracy or 0)]
    size = {one: (one.depth, measured.cost(one).macs) for one in enough}
    assert (found.subnetwork is None) == (not enough)
    if found.subnetwork is not None:
        assert found.subnetwork in enough
        by_accuracy = {one: (0.0 if target.accuracy else -measured.evaluate(one).accuracy, *size[one]) for one in enough}
        assert by_accuracy[found.subnetwork] == min(by_accuracy.values())


@pytest.mark.parametrize("predicts", [True, False])
def test_evolution_keeps_the_budget_and_finds_what_there_is(predicts: bool, measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a space as small as this it sees everything, and comes out where enumeration does, with a predictor or without."""
    monkeypatch.setattr(searching, "MOST_ENUMERATED", 0)
    for text in ("accuracy>=0.25,macs<=0.4", "bytes<=30000"):
        by_evolution = Specialiser(measured, seed=0, enumerates=False, predicts=predicts).find(read_target(text))
        by_looking = Specialiser(measured, seed=0, enumerates=True, predicts=True).find(read_target(text))
        assert by_evolution.subnetwork == by_looking.subnetwork
        assert (by_evolution.how, by_looking.how) == ("evolution over 8 sub-networks", "all 8 sub-networks looked through")


@pytest.mark.parametrize("enumerates", [True, False])
def test_a_bound_on_latency_is_met_as_measured(enumerates: bool, reached: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further block takes time in the table of parts; what is taken was timed as a whole, and is within the bound."""
    monkeypatch.setattr(searching, "MOST_ENUMERATED", 0)
    network, space = load_network(reached.depths / "1/supernet"), Space((0, 0, 1, 1, 2, 2, 3, 3), (1, 2, 3), (1.0, 0.5))
    timed = measured_in(reached, network, space, uses_table=True)
    times = [timed.foreseen_ms(space.named(depth, (1.0,) * 4)) for depth in (1, 2, 3)]
    assert 0 < times[0] < times[1] < times[2]
    specialiser = Specialiser(timed, seed=0, enumerates=enumerates, predicts=True)
    found = specialiser.find(read_target("latency_ms<=10000"))
    assert found.subnetwork is not None
    assert timed.latency_ms(found.subnetwork) <= 10000
    assert specialiser.find(read_target("latency_ms<=0.0001")).miss.endswith(" ms")


def test_a_folder_holds_the_network_that_its_card_tells_of(reached: Stages, tmp_path: Path) -> None:
    """Read anew, the weights get as many images of val right as the card says, within the budget."""
    done = specialised(reached, tmp_path, "macs<=0.3", "accuracy>=0.25")
    data = open_data(reached.config, reached.prepared)
    for made in done.made:
        card, network = read(made.folder / "card.json"), load_network(made.folder)
        assert evaluate(network, data.val, machine=data.machine).accuracy == card["val_accuracy"]
        assert (card["val_interval"][0] <= card["val_accuracy"], card["n_val"], network.depth) == (True, 90, card["depth"])
        assert card["latency_ms"] > 0
    assert done.made[0].card["macs"] <= 0.3 * done.made[0].card["macs_full"]
    assert done.missed == ()


def test_a_network_at_full_width_is_the_exit_bit_for_bit(reached: Stages, measured: Measured) -> None:
    """Nothing is re-estimated that was not cut."""
    for depth in (1, 2, 3):
        exit_of = load_network(reached.depths / "1/supernet").truncated(depth).state_dict()
        kept = measured.network(measured.space.named(depth, (1.0,) * 4)).state_dict()
        assert all(kept[name].equal(tensor) for name, tensor in exit_of.items())


def test_a_target_that_is_missed_is_named_with_the_nearest(reached: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are written all the same, what an earlier run left of it is removed, and the exit code is 2."""
    (tmp_path / "accuracy-1").mkdir()
    settings = yaml.safe_load(PARAMS.read_text())
    settings |= reached.config.model_dump(mode="json")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    paths = [f"--{name}={path}" for name, path in {"prepared": reached.prepared, "search": reached.work, "specialised": tmp_path}.items()]
    command = ["specialise", f"--params={tmp_path}/params.yaml", *paths, "--no-register"]
    code = main([*command, "--target", "accuracy>=1", "--target", "bytes<=100", "--target", "macs<=0.9"])
    told = capsys.readouterr()
    assert code == 2
    assert "no network meets --target accuracy>=1: the best within the budgets, depth" in told.err
    assert "no network meets --target bytes<=100: the smallest, depth 1 at widths 0.5, 1, 1, 1, exceeds bytes by" in told.err
    assert told.out.startswith("macs<=0.9: depth ")
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "macs-0.9"}


def test_without_a_supernet_of_this_data_nothing_is_cut(reached: Stages, tmp_path: Path) -> None:
    """The mode that makes one is named."""
    paths: dict[str, Any] = {"prepared": reached.prepared, "model": tmp_path / "model", "out": tmp_path / "out", "registers": False}
    with pytest.raises(MissingInputError, match="set search.mode: supernet"):
        specialise.run(reached.config, targets=read_targets(["macs<=0.3"]), search=SearchFolder(tmp_path), **paths)
    write_json(tmp_path / "depths/1/supernet/card.json", {"depths": [1], "widths": [1.0], "seed": 0, "data_sha256": {"train": "a" * 64}})
    with pytest.raises(DataError, match="was trained on other data"):
        specialise.run(reached.config, targets=read_targets(["macs<=0.3"]), search=SearchFolder(tmp_path), **paths)
