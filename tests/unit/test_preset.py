"""A preset of params/ is a set of settings that is accepted, and `dvc exp run` takes what `odn preset` prints."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from odn.cli import main
from odn.commands.preset import read_preset, run
from odn.config import allowed, changed, load_config
from odn.errors import ConfigError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "params"
NAMES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
PUBLISHED: dict[str, tuple[str, int, float]] = {  # backbone, blocks, target less tolerance
    "paper/mnist": ("resnet18", 8, 0.99),
    "paper/emnist_letters": ("resnet18", 8, 0.945),
    "paper/fashion_mnist": ("resnet34", 16, 0.94),
    "paper/svhn": ("resnet34", 16, 0.955),
    "paper/cifar10": ("resnet50", 16, 0.94),
}


@pytest.mark.parametrize("name", NAMES)
def test_preset_is_accepted(name: str) -> None:
    """Applied to the settings that ship, it gives settings: for the data set of its name, or for any with its mode or first weights."""
    preset = read_preset(name, folder=FOLDER)
    config = changed(load_config(ROOT / "params.yaml"), preset)
    expected = "pretrained" if name == "photos" else name.rpartition("/")[2]
    assert expected in (config.data.source, config.search.mode, config.growth.init)


def test_the_five_published_rows_are_there() -> None:
    """Each with its backbone, every depth, and its target."""
    found = {}
    for name in NAMES:
        config = changed(load_config(ROOT / "params.yaml"), read_preset(name, folder=FOLDER))
        if config.search.mode == "paper":
            found[name] = (config.model.backbone, len(config.search.schedule), config.search.target)
    assert found == PUBLISHED


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper/cifar10", "mnist", "only-depth-2"])
def test_dvc_takes_what_is_printed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`dvc exp run $(odn preset NAME)` leaves a params.yaml that says the preset: depths are added, and taken away."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/only-depth-2.yaml").write_text("search.ladder: prefix\nsearch.schedule: [2]\ndata.max_images: null\n")
    for path in FOLDER.rglob("*.yaml"):
        (tmp_path / "params" / path.relative_to(FOLDER)).parent.mkdir(exist_ok=True)
        (tmp_path / "params" / path.relative_to(FOLDER)).write_bytes(path.read_bytes())
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text("stages: {copy: {cmd: cp params.yaml out, params: [search], outs: [out]}}")
    wanted = changed(load_config(tmp_path / "params.yaml"), read_preset(name, folder=tmp_path / "params"))
    assert main(["preset", name]) == 0
    options = capsys.readouterr().out.split()
    identity = ("-c", "user.name=odn", "-c", "user.email=odn@example.com")
    dvc = (sys.executable, "-m", "dvc")
    commands: list[Any] = [("git", "init", "--quiet"), (*dvc, "init", "--quiet"), ("git", "add", "--all")]
    commands += [("git", *identity, "commit", "--quiet", "-m", "one"), (*dvc, "exp", "run", "--quiet", *options)]
    for command in commands:
        subprocess.run(command, check=True)
    assert load_config(tmp_path / "params.yaml") == wanted
    assert run(wanted, name=name, folder=tmp_path / "params") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("search.moed: paper", "unknown setting search.moed"),
        ("serch.mode: paper", "unknown setting serch"),
        ("search.mode: papre", f"search.mode: must be {allowed('search.mode')}; got 'papre'"),
        ("- paper", "expected lines such as 'search.mode: paper'"),
    ],
)
def test_a_wrong_preset_is_refused(content: str, message: str, tmp_path: Path) -> None:
    """What is wrong with it is said as for params.yaml."""
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        run(load_config(ROOT / "params.yaml"), name="mine", folder=tmp_path)


def test_an_unknown_preset_is_named_with_those_there_are() -> None:
    """A misspelt name ends in a list to choose from."""
    with pytest.raises(ConfigError, match="there is no preset mnits; those in .*mnist, paper/cifar10"):
        run(load_config(ROOT / "params.yaml"), name="mnits", folder=FOLDER)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"search.mode": "paper", "paper.target": 0.5},
            "paper.target: with search.mode paper it must be that of search.target, 0.98; got 0.5",
        ),
        ({"search.mode": "prune"}, "search.schedule: with search.mode prune one depth is trained"),
        (
            {"search.mode": "prune", "search.schedule": [8], "prune.dense_fraction": 0.5, "prune.settle_fraction": 0.5},
            "prune.dense_fraction: 0.5 and prune.settle_fraction 0.5 of 30 epochs leave none in which gates are learnt; lower one of them",
        ),
    ],
)
def test_modes_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    """The way out is in the message."""
    with pytest.raises(ConfigError, match=message):
        changed(load_config(ROOT / "params.yaml"), changes)
