"""Where training runs, in which precision, and what a person sees of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from odn.config import load_config
from odn.cores import usable_cores
from odn.display import phase_display
from odn.errors import ConfigError
from odn.searching.strategy import progress_key
from odn.training.device import WORK_OF_A_THREAD, choose_machine, processor_name
from unit.search_examples import PARAMS


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train.device: cuda` on a machine without one says so, and what to set instead."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train = load_config(PARAMS).train.model_copy(update={"device": "cuda"})
    with pytest.raises(ConfigError, match="train.device: cuda, but PyTorch sees no GPU here; set it to auto or cpu"):
        choose_machine(train, macs=0)


def test_a_precision_that_is_asked_for_is_used() -> None:
    """`auto` is the only setting that looks at the processor."""
    train = load_config(PARAMS).train.model_copy(update={"device": "cpu"})
    assert choose_machine(train.model_copy(update={"precision": "bf16"}), macs=0).precision == "bf16"
    assert choose_machine(train.model_copy(update={"precision": "fp32"}), macs=0).precision == "fp32"


def test_arithmetic_is_made_repeatable() -> None:
    """Choosing a machine switches PyTorch to deterministic algorithms."""
    choose_machine(load_config(PARAMS).train, macs=0)
    assert torch.are_deterministic_algorithms_enabled()


def test_the_processor_has_a_name() -> None:
    """Latency is told with the machine that it was measured on."""
    assert processor_name(torch.device("cpu"))


def test_away_from_a_terminal_an_epoch_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Depth, phase, epoch, loss, accuracy on val and the time left at most, without control characters."""
    with phase_display(depth=2, phase="stable", epochs=4) as display:
        display.tick(epoch=1, step=1, steps=10)
        display.row(epoch=1, val_accuracy=0.985, train_loss=0.25)
    shown = capsys.readouterr().err
    assert shown.startswith("depth 2 train  epoch 1/4  loss 0.250  val 98.50%")
    assert "left" in shown
    assert shown.strip().isprintable()


def test_on_a_terminal_there_is_a_progress_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar shows depth, epoch and accuracy on val, and how long it may still take."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with phase_display(depth=2, phase="trial", epochs=4) as display:
        display.tick(epoch=1, step=5, steps=10)
        display.row(epoch=1, val_accuracy=0.985, train_loss=0.25)
    shown = capsys.readouterr().err
    assert "depth 2 trial" in shown
    assert "98.50%" in shown
    assert "at most" in shown


@pytest.fixture
def _threads() -> Iterator[None]:
    """Leave PyTorch's number of threads as it was."""
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(
    ("threads", "macs", "wanted"),
    [
        ("auto", 0, 1),
        ("auto", WORK_OF_A_THREAD // 32 - 1, 1),
        ("auto", WORK_OF_A_THREAD // 32 + 1, usable_cores()),
        (1, WORK_OF_A_THREAD, 1),
        (3, 0, 3),
    ],
)
def test_threads_follow_the_work_or_the_setting(threads: int | str, macs: int, wanted: int) -> None:
    """Small work has one thread on every machine; large work has the cores that may be used; a number is taken at its word."""
    train = load_config(PARAMS).train.model_copy(update={"device": "cpu", "threads": threads, "batch_size": 32})
    assert choose_machine(train, macs=macs).threads == torch.get_num_threads() == wanted


@pytest.mark.usefixtures("_threads")
def test_an_interrupted_phase_belongs_to_its_number_of_threads() -> None:
    """Under another number the sums, and so the bytes, are others: the phase begins anew."""
    keys = []
    for threads in (1, 2, 1):
        torch.set_num_threads(threads)
        keys.append(progress_key(load_config(PARAMS), "seed", "train", inputs=[]))
    assert keys[0] == keys[2] != keys[1]


def test_an_interrupted_phase_is_found_wherever_its_files_lie(tmp_path: Path) -> None:
    """Each run of Kubeflow gives a search another folder: content counts, and that a method writes no such file."""
    config, keys = load_config(PARAMS), []
    for folder, content in (("first", None), ("second", None), ("third", b"1"), ("fourth", b"1"), ("fifth", b"2")):
        (tmp_path / folder).mkdir()
        if content is not None:
            (tmp_path / folder / "state").write_bytes(content)
        keys.append(progress_key(config, "seed", inputs=[tmp_path / folder / "state"]))
    assert keys[0] == keys[1] != keys[2] == keys[3] != keys[4] != keys[0]
