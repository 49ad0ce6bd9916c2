"""`odn route` from a network with several exits to a routed model: what it writes repeats, limits hold, and refusals name the way out."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from odn import cli
from odn.errors import DataError, MissingInputError
from odn.models.resnet_shapes import configured

CLOCKED = {"wall_clock.json"}  # holds measured times


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prepare digits, and train all exits of three blocks for a few epochs."""
    import torch

    from laws.search_data import open_data, prepare_digits, small_config
    from odn.data.batches import plain_batches
    from odn.models.network import build
    from odn.models.stored_networks import save_network
    from odn.searching.published_task import PlainSgd

    folder, threads = tmp_path_factory.mktemp("routed"), torch.get_num_threads()
    torch.set_num_threads(1)
    config = small_config(route={"epochs": 2, "quantiles": 8})
    data = open_data(config, prepare_digits(config, folder))
    architecture = configured(config, in_channels=1, n_classes=10, depth=3)
    network = build(architecture, torch.Generator().manual_seed(0), heads=(1, 2, 3)).train()
    sgd = PlainSgd(network, depths=(1, 2, 3), config=config, machine=data.machine)
    sgd.scale.set(-0.05)
    for _ in range(5):
        for images, labels in plain_batches(data.train, batch_size=32):
            sgd.learn(images, labels)
            sgd.take()
    save_network(network, folder / "work/depths/1/supernet")
    (folder / "params.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    yield folder
    torch.set_num_threads(threads)


@pytest.fixture
def project(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of it, and time with a glance."""
    from odn.routing import clock

    shutil.copytree(begun, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(clock, "BATCHES", (1, 8))
    return tmp_path / "project"


def route(*arguments: str) -> int:
    """Run `odn route`, unregistered."""
    return cli.main(["route", "--no-register", *arguments])


def card(kind: str) -> dict[str, Any]:
    """Read the card of a kind."""
    content: dict[str, Any] = yaml.safe_load(Path("routed", kind, "card.json").read_text())
    return content


def table(kind: str, name: str) -> list[dict[str, str]]:
    """Read a table of a kind."""
    return list(csv.DictReader(Path("routed", kind, name).read_text().splitlines()))


@pytest.mark.parametrize("kind", ["confidence", "gate"])
def test_a_budget_is_kept_and_all_is_written(kind: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On val exactly; the curve holds both kinds once both were run, and the summary is printed."""
    assert route("--kind", kind, "--macs", "0.5") == 0
    assert card(kind)["val_macs_share"] <= 0.5
    assert (card(kind)["full_network_epochs"] > 0) == (kind == "gate")
    static = [row["name"] for row in table(kind, "curve.csv") if row["kind"] == "static"]
    assert static == [str(depth) for depth in (1, 2, 3)]
    assert sum(int(row["val"]) for row in table(kind, "exits.csv")) == card(kind)["n_val"]
    assert all(Path("routed", kind, f"curve_{split}.png").stat().st_size > 10_000 for split in ("val", "test"))
    assert "batch 1: " in capsys.readouterr().out


def test_what_is_written_repeats_to_the_byte(project: Path) -> None:
    """All but the measured times; a clock of the same files is kept."""
    for kind in ("confidence", "gate"):
        route("--kind", kind, "--macs", "0.6")
    Path("routed").rename("before")
    for kind in ("confidence", "gate"):
        route("--kind", kind, "--macs", "0.6")
    for path in (path for path in Path("before").rglob("*") if path.is_file() and path.name not in CLOCKED):
        assert path.read_bytes() == (Path("routed") / path.relative_to("before")).read_bytes(), path


def test_what_runs_is_what_was_fitted(project: Path) -> None:
    """The stored network, with its shrinking batch, leaves as many images at each exit as the card says."""
    import torch

    from laws.search_data import open_data
    from odn.config import load_config
    from odn.routing.routed import RoutedNetwork
    from odn.routing.stored import load_routed

    route("--accuracy", "0.25")
    assert card("confidence")["val_accuracy"] >= 0.25
    routes = load_routed(Path("routed/confidence"))
    data = open_data(load_config(Path("params.yaml")), Path("work/prepared"))
    assert isinstance(routes, RoutedNetwork)
    with torch.inference_mode():
        routed = routes.route(data.val.normalised(data.val.batch(slice(None))))
    leaving = {int(row["depth"]): int(row["val"]) for row in table("confidence", "exits.csv")}
    assert {depth: n for depth, n in leaving.items() if n} == {int(d): int((routed.exits == d).sum()) for d in routed.exits.unique()}


def test_a_latency_is_kept_as_measured(project: Path) -> None:
    """The table that this machine wrote while it was quiet stands."""
    assert route("--latency-ms", "1000") == 0
    known = json.loads(Path("routed/latency.json").read_text())
    Path("routed/latency.json").write_text(json.dumps(known | {"busy": False}))
    table = Path("routed/latency.json").read_bytes()
    assert route("--latency-ms", "999") == 0
    assert Path("routed/latency.json").read_bytes() == table
    assert card("confidence")["fit"]["unit"] == "ms"


def test_interrupted_gates_end_with_the_same_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the first epoch, training goes on from there."""
    from odn.training import fit as fitting

    route("--kind", "gate", "--macs", "0.5")
    Path("routed").rename("whole")
    from odn.training.checkpoint import save_checkpoint

    def killed(path: Path, checkpoint: Any) -> None:
        save_checkpoint(path, checkpoint)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fitting, "save_checkpoint", killed)
        assert route("--kind", "gate", "--macs", "0.5") == 130
    assert not Path("routed/gate").exists()
    route("--kind", "gate", "--macs", "0.5")
    for name in ("gates.safetensors", "weights.safetensors", "routing.json", "card.json"):
        assert Path("routed/gate", name).read_bytes() == Path("whole/gate", name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--macs", "0.5", "--accuracy", "0.9"], "exactly one of"),
        ([], "exactly one of"),
        (["--macs", "0.001"], "the cheapest routing takes"),
        (["--kind", "gate", "--macs", "0.001"], "the cheapest routing takes"),
        (["--accuracy", "1"], "the most accurate routing reaches"),
        (["--macs", "0.5", "--supernet", "nowhere"], "train one with search.mode: supernet"),
        (
            ["--kind", "gate", "--macs", "0.5", "--export"],
            "gates decide before each block, which would be a graph a block; export --kind confidence",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: list[str], message: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one message, and nothing half-written."""
    assert route(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("routed/confidence").exists()
    assert not Path("routed/gate").exists()


def test_networks_that_cannot_be_routed_are_refused(project: Path) -> None:
    """A single exit, or other classes than the data's."""
    import torch

    from odn.commands import route as stage
    from odn.config import load_config
    from odn.models.network import build
    from odn.models.stored_networks import save_network
    from odn.routing.targets import Target

    config = load_config(Path("params.yaml"))
    paths: dict[str, Any] = {
        "prepared": Path("work/prepared"),
        "supernet": Path("other"),
        "out": Path("routed"),
        "progress": Path("progress"),
    }
    for n_classes, heads, error, message in ((10, [2], MissingInputError, "single exit"), (7, [1, 2], DataError, "7 classes")):
        architecture = configured(config, in_channels=1, n_classes=n_classes, depth=2)
        save_network(build(architecture, torch.Generator().manual_seed(0), heads=heads), Path("other"))
        with pytest.raises(error, match=message):
            stage.run(config, kind="confidence", target=Target(macs=0.5), register=False, **paths)


def test_a_routed_network_is_exported_by_segments(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Proved equal on val, timed beside the whole graph; gates are refused before anything is computed."""
    assert route("--accuracy", "0.3", "--export") == 0
    assert "segments in ONNX, equal on all 90 val images" in capsys.readouterr().out
    record = json.loads((project / "routed/confidence/segments/segments.json").read_text())
    assert all((project / "routed/confidence/segments" / one["file"]).is_file() for one in record["segments"])
    assert route("--accuracy", "0.3", "--export", "--kind", "gate") == 2
    assert "odn: --export: gates decide before each block" in capsys.readouterr().err
    assert not (project / "routed/gate").exists()
