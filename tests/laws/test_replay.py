"""Law of replayed steps: on a GPU they give the bytes of the steps themselves; elsewhere nothing is replayed."""

from pathlib import Path

import pytest
import torch

from laws.search_data import open_data, prepare_digits, small_config
from odn.searching.growth import Grown, train_depth
from odn.training import replay
from odn.training.device import Machine
from odn.training.replay import replayed


def test_without_a_gpu_the_step_is_called_itself() -> None:
    """There is nothing to launch."""

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return images.sum() + labels.sum()

    assert replayed(step, machine=Machine(torch.device("cpu"), "fp32")) is step


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_a_replay_gives_the_bytes_of_the_step(optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A depth is trained twice, once without a replay: weights, averages and momentum are equal bit for bit."""
    config = small_config(train={"optimizer": optimizer, "device": "cuda"})
    data = open_data(config, prepare_digits(config, tmp_path))
    tensors = []
    for n_eager in (replay.EAGER_STEPS, 10**9):
        monkeypatch.setattr(replay, "EAGER_STEPS", n_eager)
        *_, last = train_depth(None, data=data, config=config, depth=1, checkpoint=None)
        assert isinstance(last, Grown)
        tensors.append(last.state.tensors())
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
