"""What an interrupted phase kept is a help and no more: damaged, it is left out with a line that says so, and the results are the same."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from laws.search_data import open_data, prepare_digits, small_config
from odn.config import Config
from odn.errors import DataError
from odn.searching.data import SearchData
from odn.searching.growth import Grown, train_depth
from odn.searching.states import read_state, write_state
from odn.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from odn.training.fit import Progress

CONFIG = small_config(growth={"min_epochs": 1, "max_epochs": 2})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> SearchData:
    """Open 300 digits."""
    return open_data(CONFIG, prepare_digits(CONFIG, tmp_path_factory.mktemp("digits")))


def trained(data: SearchData, checkpoint: Path | None, *, config: Config = CONFIG) -> Grown:
    """Train a depth to its end."""
    *_, last = train_depth(None, data=data, config=config, depth=1, checkpoint=checkpoint)
    assert isinstance(last, Grown)
    return last


def rewritten(path: Path, *, tensors: dict[str, torch.Tensor] | None = None, record: dict[str, object] | None = None) -> None:
    """Write a checkpoint again, with some of it changed."""
    saved = load_checkpoint(path, Progress)
    save_checkpoint(path, Checkpoint(saved.tensors | (tensors or {}), asdict(saved.record) | (record or {})))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-9]), id="cut short"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes().replace(b'"__metadata__"', b'"__metabase__"')), id="no record"),
        pytest.param(lambda path: rewritten(path, record={"step": -1}), id="a negative step"),
        pytest.param(lambda path: rewritten(path, record={"rows": [{"epoch": 1}]}), id="half a row"),
        pytest.param(lambda path: rewritten(path, tensors={"network.heads.1.bias": torch.zeros(1)}), id="a tensor of another shape"),
        pytest.param(lambda path: rewritten(path, tensors={"network.tail": torch.zeros(1)}), id="a tensor too many"),
    ],
)
def test_a_damaged_checkpoint_is_left_out(
    digits: SearchData, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    """The phase begins anew, and ends with the same weights as one that was never interrupted."""
    path = tmp_path / "phase.safetensors"
    quiet = trained(digits, path)
    damage(path)
    again = trained(digits, path)
    told = capsys.readouterr().err
    assert told.startswith(f"odn: {path} is damaged: ")
    assert told.endswith("; it is left out, and the phase begins anew\n")
    assert told.count("\n") == 1
    assert again.rows == quiet.rows
    ours, theirs = again.state.tensors(), quiet.state.tensors()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"architecture": {}}, "state.safetensors is damaged: architecture.family is missing"),
        ({"architecture": None}, "state.safetensors is damaged: architecture must be"),
        ({"n_averaged": 1.5}, "state.safetensors is damaged: n_averaged must be a valid integer"),
        ({"more": 1}, "state.safetensors is damaged: unknown field more"),
    ],
)
def test_a_damaged_training_state_is_refused(digits: SearchData, tmp_path: Path, record: dict[str, object], message: str) -> None:
    """The next depth cannot be grown from it; the message says what to do."""
    state = trained(digits, None).state
    path = tmp_path / "state.safetensors"
    write_state(path, state)
    good = {"architecture": state.network.architecture.to_dict(), "n_averaged": 3}
    save_checkpoint(path, Checkpoint(state.tensors(), good | record))
    with pytest.raises(DataError, match=f"{message}.*; delete it and run 'dvc repro' again") as refused:
        read_state(path, machine=digits.machine)
    assert len(refused.value.lines) == 1
