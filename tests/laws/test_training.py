"""Laws of training: it repeats to the byte, goes on where it was killed, and says what went wrong."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from laws.search_data import open_data, prepare_digits, small_config
from odn.config import Config
from odn.errors import TrainingError
from odn.models.network import build
from odn.searching.data import SearchData
from odn.searching.growth import Cooled, Grown, cool_down, grown, train_depth
from odn.training import fit as fitting
from odn.training.depth_task import Phase
from odn.training.evaluation import reestimate_batchnorm
from odn.training.fit import EpochRow
from odn.training.state import TrainState


@pytest.fixture(scope="module")
def config() -> Config:
    """Return small settings."""
    return small_config()


@pytest.fixture(scope="module")
def data(config: Config, tmp_path_factory: pytest.TempPathFactory) -> SearchData:
    """Open 300 digits."""
    return open_data(config, prepare_digits(config, tmp_path_factory.mktemp("digits")))


def trained(data: SearchData, config: Config, *, before: TrainState | None = None, depth: int = 1, checkpoint: Path | None = None) -> Grown:
    """Train a depth to the end of its stable phase."""
    *_, last = train_depth(before, data=data, config=config, depth=depth, checkpoint=checkpoint)
    assert isinstance(last, Grown)
    return last


def same_tensors(one: TrainState, other: TrainState) -> bool:
    """Compare weights, averages and momentum bit for bit."""
    left, right = one.tensors(), other.tensors()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_training_repeats_bit_for_bit(data: SearchData, config: Config) -> None:
    """The same seed, settings and data give the same rows, weights, averages and momentum."""
    first, second = trained(data, config), trained(data, config)
    assert first.rows == second.rows
    assert same_tensors(first.state, second.state)


def test_another_seed_gives_another_network(data: SearchData, config: Config) -> None:
    """The seed is used."""
    assert not same_tensors(trained(data, config).state, trained(data, config.model_copy(update={"seed": 1})).state)


@pytest.mark.parametrize("events_before_the_kill", [1, 3, 8])
def test_a_killed_phase_goes_on_to_the_same_bytes(
    data: SearchData, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events_before_the_kill: int
) -> None:
    """Abandoned after any step, with a checkpoint after each, and run again: rows and tensors are those of a quiet run."""
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(fitting, "TICK_SECONDS", 0.0)
    checkpoint = tmp_path / "progress.safetensors"
    events = train_depth(None, data=data, config=config, depth=1, checkpoint=checkpoint)
    for _ in range(events_before_the_kill):
        next(events)
    del events
    assert checkpoint.exists()
    resumed, quiet = trained(data, config, checkpoint=checkpoint), trained(data, config)
    assert resumed.rows == quiet.rows
    assert same_tensors(resumed.state, quiet.state)


def test_a_grown_network_starts_where_the_shallower_one_ended(data: SearchData, config: Config) -> None:
    """Inside a group, zero-gamma growth gives the same logits bit for bit, for the weights and for their average."""
    silent = config.model_copy(update={"growth": config.growth.model_copy(update={"init": "zero"})})
    before = trained(data, silent).state
    after = grown(before, data=data, config=silent, depth=2)
    images = data.val.normalised(data.val.batch(slice(0, 16)))
    for shallow, deep in ((before.network, after.network), (before.average, after.average)):
        assert torch.equal(shallow.eval()(images), deep.eval()(images))


def test_momentum_is_kept_for_what_was_there(data: SearchData, config: Config) -> None:
    """Old parameters keep their momentum, new ones start at rest."""
    before = trained(data, config).state
    after = grown(before, data=data, config=config, depth=2)
    assert torch.equal(after.momentum["blocks.0.conv1.weight"], before.momentum["blocks.0.conv1.weight"])
    assert not after.momentum["blocks.1.conv1.weight"].any()


def test_a_trial_anneal_leaves_its_training_state_alone(data: SearchData, config: Config) -> None:
    """A cooldown branches off: the next depth grows from weights that it has not touched."""
    state = trained(data, config).state
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    *_, cooled = cool_down(state, data=data, config=config, name="trial", epochs=1, checkpoint=None)
    assert isinstance(cooled, Cooled)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())


def test_the_rate_of_a_cooldown_ends_at_zero() -> None:
    """From the stable rate at the first step to one step above zero at the last."""
    phase = Phase(name="trial", depth=1, epochs=2, seed=0, warmup_epochs=0.0)
    rates = [phase.rate_at(step=step, steps_per_epoch=5) for step in range(10)]
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(0.1)  # ten equal steps down; the eleventh would be 0


def test_a_loss_that_is_not_finite_names_depth_epoch_and_step(data: SearchData) -> None:
    """A rate far too high ends training with the way out, instead of with useless weights."""
    wild = small_config(train={"warmup_epochs": 0.0})
    wild = wild.model_copy(update={"train": wild.train.model_copy(update={"lr": 1e30})})
    with pytest.raises(TrainingError, match=r"depth 1, phase stable, epoch 1, step \d+; lower train.lr"):
        trained(data, wild)


def test_rows_hold_what_history_promises(data: SearchData, config: Config) -> None:
    """One row an epoch, counted from 1, accuracies as fractions of the split."""
    rows = trained(data, config).rows
    assert [row.epoch for row in rows] == list(range(1, len(rows) + 1))
    assert all(isinstance(row, EpochRow) and row.val_accuracy == row.val_correct / row.n_val for row in rows)


def test_statistics_are_those_of_augmented_images(data: SearchData, config: Config) -> None:
    """They are of what the network was trained on, twice the same: bright images have a dark border where they are shifted."""
    bright = replace(data.train, pixels=torch.full_like(torch.as_tensor(data.train.pixels), 255))
    means = []
    for shift in (0, 4, 4):
        network = build(data.backbone.at(1), torch.Generator().manual_seed(0))
        augment = config.augment.model_copy(update={"shift": shift, "rotate": 0.0, "scale": 0.0})
        reestimate_batchnorm(network, bright, augment=augment, machine=data.machine)
        weight = next(module.weight for module in network.modules() if isinstance(module, nn.Conv2d))
        mean = next(module.running_mean for module in network.modules() if isinstance(module, nn.BatchNorm2d))
        assert mean is not None
        means.append(mean / weight.sum((1, 2, 3)))
    plain, shifted, again = means
    assert torch.equal(shifted, again)
    assert not torch.allclose(plain, shifted, rtol=0.05)
