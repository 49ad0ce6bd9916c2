"""Several processes train one network: torchrun starts them, they share each batch, and what they leave is that of a quiet run."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from engines.conftest import files_of
from engines.test_kill_methods import SMALL
from laws.search_data import prepare_digits, small_config
from odn.cli import main
from odn.config import Config, settings
from odn.errors import ConfigError
from odn.processes import report
from odn.training import torchrun

BLOCKS = """
from torch import nn

def build(in_channels):
    return nn.Conv2d(in_channels, 4, 3, padding=1), [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
"""
COUNTING = """
import torch
from torch import nn

class Counting(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        self.seen += images.detach().sum() if self.training else 0
        return super().forward(images)

def build(in_channels):
    return Counting(in_channels, 4, 3, padding=1), [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
"""
REACHED = {"target": 0.05, "cooldown_gain": 1.0, "schedule": [1]}
MODES: dict[str, tuple[dict[str, Any], list[str]]] = {  # what differs in a step; settings of the search, and the stages that train
    "growth": (REACHED, ["train --depth 1 --after 0", "check --depth 1 --after 0", "truncate"]),
    "supernet": ({"schedule": [1, 2]}, ["train --depth 1 --after 0"]),
    "prune": ({"schedule": [8]}, ["train --depth 8 --after 0"]),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a few digits."""
    return prepare_digits(small_config(**SMALL), tmp_path_factory.mktemp("digits"))


@pytest.fixture(autouse=True)
def quick(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchrun start programs that have torch already, and keep a checkpoint after every step."""
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(torchrun, "PROGRAM", ("-m", "killed_odn"))


def project(folder: Path, config: Config, *, prepared: Path) -> Path:
    """Make a folder with these settings and the prepared data."""
    (folder / "work").mkdir(parents=True)
    (folder / "work/prepared").symlink_to(prepared)
    (folder / "params.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return folder


def sharing(n: int, **changes: dict[str, Any]) -> Config:
    """Return small settings for so many processes."""
    both = {name: {**SMALL.get(name, {}), **changes.get(name, {})} for name in SMALL | changes}
    return small_config(**both | {"train": {**both["train"], "processes": n}})


@pytest.mark.parametrize("mode", MODES)
def test_killed_within_an_epoch_two_processes_end_with_the_same_bytes(
    mode: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One process dies of SIGKILL, which ends both; the same command goes on, and all files are those of a quiet run."""
    changes, commands = MODES[mode]
    config = sharing(2, search={"mode": mode, "cooldown_epochs": 2, **changes}, finish={"epochs": 2})
    quiet, killed = (project(tmp_path / name, config, prepared=prepared) for name in ("quiet", "killed"))
    died = 0
    for folder in (quiet, killed):
        monkeypatch.chdir(folder)
        for command in ("open", *commands):
            if folder == killed:
                monkeypatch.setenv("DIES", "1")
            while (code := main(command.split())) == 2 and folder == killed:
                assert "process 0 of 2" in capfd.readouterr().err
                died += 1
            assert code == 0
    assert died >= len(commands), "each training dies"
    noted = {"steps.txt"}
    ours, theirs = ({name: data for name, data in files_of(folder).items() if name not in noted} for folder in (killed, quiet))
    assert ours == theirs
    assert not list(Path(".odn").rglob("train-*/*.safetensors")), "what is done keeps no checkpoint"


def test_two_processes_take_the_steps_of_one(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without BatchNorm, whose statistics in a step are each process's own, weights and losses differ by rounding alone."""
    weights, losses = [], []
    (tmp_path / "plain_blocks.py").write_text(BLOCKS)
    monkeypatch.syspath_prepend(tmp_path)
    for n in (1, 2):
        own = {"backbone": "module:plain_blocks:build", "width": 1.0}
        config = sharing(n, model=own, search={"mode": "grid", "ladder": "prefix", "schedule": [1]}, augment={"mixup": 0.2})
        monkeypatch.chdir(project(tmp_path / f"of {n}", config, prepared=prepared))
        shutil.copyfile(tmp_path / "plain_blocks.py", "plain_blocks.py")
        assert [main(command.split()) for command in ("open", "train --depth 1 --after 0")] == [0, 0]
        weights.append(load_file("work/depths/1/weights.safetensors"))
        losses.append([float(line.split(",")[4]) for line in Path("work/depths/1/history.csv").read_text().splitlines()[1:]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert all(torch.allclose(weights[0][name], tensor, rtol=1e-3, atol=1e-5) for name, tensor in weights[1].items())


def test_numbers_that_differ_stop_the_training(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A module that keeps numbers of its own images would make each process another network."""
    (tmp_path / "counting_blocks.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(tmp_path)
    own = {"backbone": "module:counting_blocks:build", "width": 1.0}
    config = sharing(2, model=own, search={"mode": "grid", "ladder": "prefix", "schedule": [1]})
    monkeypatch.chdir(project(tmp_path / "project", config, prepared=prepared))
    shutil.copyfile(tmp_path / "counting_blocks.py", "counting_blocks.py")
    assert [main(["open"]), main(["train", "--depth", "1", "--after", "0"])] == [0, 2]
    assert capfd.readouterr().err.count("hold different numbers after epoch 1 of phase anneal: 1 differ from 0") == 1
    assert not Path("work/depths/1").exists()


def test_torchrun_must_start_what_the_settings_say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Another number would give other bytes; and what does not train runs in one process."""
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "3", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="train.processes: 2, but torchrun started 3; set it to 3, or start 2"):
        torchrun.wants_processes(settings({"train.processes": 2}))
    assert main(["evaluate"]) == 2
    assert "odn evaluate runs in one process, and torchrun started 3" in capsys.readouterr().err


def test_a_scheduler_s_variables_start_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """WORLD_SIZE without torchrun's own run id is somebody else's."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert torchrun.wants_processes(settings({"train.processes": 2}))
    assert not torchrun.wants_processes(settings())


def test_a_failure_names_the_process_that_began_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that refused, else the one that was killed, and not those that lost it or were ended for it."""

    def failed(code: int, left: str = "none", *, lost: bool = False) -> ProcessFailure:
        if code > 0:
            with monkeypatch.context() as inside:
                for name, value in {"TORCHELASTIC_RUN_ID": "1", "TORCHELASTIC_ERROR_FILE": str(tmp_path / left)}.items():
                    inside.setenv(name, value)
                report([left], lost=lost)
        return ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file=str(tmp_path / left))

    refused, lost, killed, ended = failed(2, "why"), failed(2, "lost", lost=True), failed(-9), failed(-15)
    cases = [(refused, other, "why") for other in (refused, lost, ended, killed)]
    cases += [(killed, other, "process {} of 2 was ended by SIGKILL; all have ended") for other in (lost, ended)]
    cases += [(ended, lost, "process {} of 2 was ended by SIGTERM"), (lost, lost, "lost")]
    for first, other, said in cases:
        for number in (0, 1):
            (told,) = torchrun._reason(ChildFailedError("odn", {number: first, 1 - number: other}), n=2)
            assert told.startswith(said.format(number))


@pytest.mark.parametrize(("processes", "batch"), [(3, 32), (32, 32)])
def test_processes_share_a_batch_evenly(processes: int, batch: int) -> None:
    """Two images each at the least: one has no variance."""
    with pytest.raises(ConfigError, match=f"train.processes: {processes} cannot share train.batch_size {batch} evenly"):
        settings({"train.processes": processes, "train.batch_size": batch})
