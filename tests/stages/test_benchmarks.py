"""Benchmarks: peers get what growth had, nothing runs twice, a page tells all of it."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F

from benchmarks import deployed, page, run, threads
from benchmarks.peers import compiled_loop
from benchmarks.results import FOLDER, ResultFile, read_results
from benchmarks.search import place_of
from odn.config import settings
from odn.models.configured import configured
from odn.models.ladder import fitting
from odn.models.network import build

SMALL = ("data.max_images=300", "model.width=0.25", "search.target=0.2", "search.cooldown_epochs=1", "finish.epochs=1")
BRIEF = ("growth.min_epochs=1", "growth.max_epochs=1", "growth.patience=1", "climb.epochs=1", "supernet.epochs=1", "train.precision=fp32")


def benchmark(folder: Path, *arms: str, jobs: int = 1) -> ResultFile:
    """Run arms on seed 0 of a few digits, and read what is kept of them."""
    places = ["--out", str(folder), "--work", str(folder / "work"), "--jobs", str(jobs)]
    assert run.main(["few", *places, "--seeds", "0", "--set", *SMALL, *BRIEF, "--arms", *arms]) == 0
    found = read_results(folder / "few.json")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder in which growth has run."""
    folder = tmp_path_factory.mktemp("grown")
    benchmark(folder, "growth")
    return folder


@pytest.fixture
def folder(grown: Path, tmp_path: Path) -> Path:
    """Give a test such a folder of its own."""
    return shutil.copytree(grown, tmp_path / "folder")


def test_peers_get_the_depth_the_bytes_and_the_budget_of_growth(folder: Path) -> None:
    """Full trains the whole backbone, Torch-Pruning cuts to growth's bytes."""
    growth, full, pruned = benchmark(folder, "growth", "full", "torch_pruning").results
    assert full.depth == 8
    assert pruned.size_bytes <= growth.size_bytes < full.size_bytes


def test_runs_side_by_side_give_what_they_give_in_order(grown: Path, tmp_path: Path) -> None:
    """To the same numbers; scratch waits for growth, whose depth and budget it gets; the file keeps the order that was asked for."""
    (alone,) = benchmark(shutil.copytree(grown, tmp_path / "grown"), "growth").results
    grid = "grid:search.schedule=[1]"
    growth, scratch, other = benchmark(tmp_path / "at once", "growth", "scratch", grid, jobs=2).results
    assert replace(growth, seconds=alone.seconds, latency_ms=alone.latency_ms) == alone
    assert scratch.depth == growth.depth
    assert scratch.full_network_epochs == pytest.approx(growth.full_network_epochs, rel=0.3)
    assert other.arm == grid
    assert run.main(["few", "--out", str(tmp_path / "none"), "--jobs", "2", "--seeds", "0", "--set", *SMALL, "--arms", "scratch"]) == 2
    assert not (tmp_path / "none").exists()


def test_what_has_run_is_not_run_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command again adds nothing to the file, and says nothing."""
    first = read_results(folder / "few.json")
    capsys.readouterr()
    assert benchmark(folder, "growth") == first
    assert capsys.readouterr().out == ""


def test_the_page_holds_every_arm_and_the_depths_of_the_grid(folder: Path) -> None:
    """Each arm has its row, and what growth found stands beside what every depth reaches."""
    found = benchmark(folder, "growth", "grid:search.schedule=[1,2]", "supernet")
    assert page.main(["few", "--out", str(folder)]) == 0
    text = (folder / "few.md").read_text()
    assert "| growth | 1 | 1 |" in text
    assert "| seed | depth 1 | depth 2 | grid ends | growth ends |" in text
    assert "| 0, the supernet's exit |" in text
    alone = replace(found, results=tuple(one for one in found.results if one.arm.startswith("grid")))
    config = alone.about["config"]
    within = {"config": config | {"search": config["search"] | {"ladder": "spread", "max_bytes": 30_000}}}
    text = page.page(replace(alone, about=alone.about | within), name="few", title="Few", note="What it is.")
    assert text.startswith("# Few\n\nWhat it is.\n\ndigits")
    assert "at most 30,000 bytes. The rung is chosen" in text
    assert "| seed | rung 1 | rung 2 | grid ends |\n" in text


@pytest.mark.parametrize("arm", ["fastest", "scratch", "routed:confidence,accuracy=0.9"])
def test_an_arm_that_cannot_run_is_refused(arm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An arm that there is not, and one whose reference has not run, end with one line and code 2."""
    assert run.main(["few", "--out", str(tmp_path), "--seeds", "0", "--set", *SMALL, *BRIEF, "--arms", arm]) == 2
    assert capsys.readouterr().err.startswith("odn: ")


def test_other_settings_need_another_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results under two settings never share a file."""
    assert run.main(["few", "--out", str(folder), "--set", *SMALL, "model.width=0.5"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_other_settings_work_elsewhere(tmp_path: Path) -> None:
    """What one benchmark prepared and left in `--work` is not another's, though the seed is the same."""
    ours, theirs = settings({"data.source": "mnist"}), settings({"data.source": "fashion_mnist"})
    assert place_of(ours, work=tmp_path) != place_of(theirs, work=tmp_path)
    assert place_of(ours, work=tmp_path) == place_of(settings({"data.source": "mnist"}), work=tmp_path)


def test_threads_are_timed_by_the_size_of_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each size, with the least time of a step on each number of threads."""
    monkeypatch.setattr(threads, "LEAST_STEPS", 1)  # two threads on one free core wait for each other
    sizes = ["--width", "0.0625", "--side", "8", "--batch-size", "4", "8", "--threads", "1", "2", "--seconds", "0.1"]
    n_threads = torch.get_num_threads()
    assert threads.main([*sizes, "--out", str(tmp_path / "threads.json")]) == 0
    torch.set_num_threads(n_threads)
    assert "| 1 thread, ms | 2 threads, ms |" in capsys.readouterr().out
    rows = json.loads((tmp_path / "threads.json").read_text())["rows"]
    assert rows[1]["work"] == 2 * rows[0]["work"] > 0
    assert all(ms > 0 for row in rows for ms in row["ms"].values())


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("deployed_*.json")))
def test_the_page_of_runtimes_says_what_was_measured(name: str) -> None:
    """A row for each file of each rung; the page is that of the numbers beside it."""
    path = FOLDER / f"{name}.json"
    found = json.loads(path.read_text())
    text = path.with_suffix(".md").read_text()
    assert deployed.page(found, name=name) == text
    for rung in found["rungs"]:
        for row in rung["rows"].values():
            assert f" {row['bytes']:,} | {100 * row['accuracy']:.2f} (" in text
        for why in rung["refused"].values():
            assert why in text


@pytest.mark.skipif(shutil.which(compiled_loop.COMPILER) is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_the_compiled_loop_learns_what_torch_learns(optimizer: Literal["sgd", "muon"]) -> None:
    """Its loss and gradients on a batch are those of the module, and its loss falls."""
    backbone = configured(settings(), in_channels=3, n_classes=26, height=15, width=15)
    rung = fitting(backbone, {"bytes": 30_000}, height=15, width=15)
    network = build(rung, torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last).train()
    draws = torch.Generator().manual_seed(1)
    images, labels = torch.randn(32, 3, 15, 15, generator=draws), torch.randint(26, (32,), generator=draws)
    epoch = partial(compiled_loop.epoch, network, images=images, labels=labels, batch=32, optimizer=optimizer)
    loss, gradients = epoch(order=torch.arange(32), rate=0.0)
    expected = F.cross_entropy(network(images), labels)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    for gradient in gradients:
        by_torch = [
            parameter.grad for parameter in network.parameters() if parameter.grad is not None and parameter.shape == gradient.shape
        ]
        assert any((gradient - one).norm() <= 0.02 * one.norm() for one in by_torch)
    fallen, _ = epoch(order=torch.arange(32).repeat(40), rate=0.1)
    assert fallen < 0.7 * loss
