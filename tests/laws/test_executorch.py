"""Laws of the files for ExecuTorch: each computes in its runtime what the network computes, and is the same file each time."""

import json
import sys
from pathlib import Path

import pytest
import torch

from laws.exports import COUNTS, centred, exported, manifest_of, pixels, splits_of
from laws.search_data import small_config
from laws.test_export import SMALL, skewed, small
from odn.config import changed
from odn.errors import ConfigError, ExportError
from odn.export.artifacts import Exported
from odn.export.executorch_file import Quantiser
from odn.export.graph import example_of, pixel_graph
from odn.export.parity import require_equal
from odn.export.runtimes import logits_of, open_artifact, torch_run
from odn.models.network import build
from odn.searching.folder import SearchFolder
from odn.stages import export
from odn.stages import open as opening


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for both files of a small network."""
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def record(folder: Path) -> Exported:
    """Write them."""
    return exported(small(), folder, "executorch", "executorch-int8")


def test_each_file_computes_what_the_network_computes(record: Exported) -> None:
    """Float32 within the tolerance; 8 bits, all of them in the weights, within the accuracy that they may lose, and in fewer bytes."""
    whole, eight = record.artifacts
    assert (whole.file, eight.file) == ("model.pte", "model.int8.pte")
    assert whole.logit_difference <= 1e-4 < eight.logit_difference
    assert (whole.val_accuracy, whole.accuracy, whole.mcnemar_p) == (1, 1, 1)
    assert eight.bytes < whole.bytes
    assert (eight.weight_bits, eight.float_layers) == (8, ())


def test_a_second_export_writes_the_same_bytes(record: Exported, tmp_path: Path) -> None:
    """Nothing in a file counts up."""
    assert exported(small(), tmp_path, "executorch").artifacts == record.artifacts[:1]


@pytest.mark.usefixtures("record")
def test_the_file_says_what_a_device_must_know(folder: Path) -> None:
    """One image of uint8 in; beside `forward` the same metadata as an ONNX file has; nothing of this machine."""
    from executorch.runtime import Runtime

    for name in ("model.pte", "model.int8.pte"):
        program = Runtime.get().load_program(folder / name)
        assert "sizes=[1, 1, 16, 16], dtype=Byte" in str(program.metadata("forward").input_tensor_meta(0))
        method = program.load_method("metadata")
        assert method is not None
        notes = json.loads(method.execute([])[0])
        assert json.loads(notes["odn.classes"]) == [f"class {number}" for number in range(5)]
        assert json.loads(notes["odn.accuracy"])["n"] == COUNTS["test"]
        assert str(Path(__file__).parents[2]).encode() not in (folder / name).read_bytes()


@pytest.mark.usefixtures("record")
def test_a_changed_weight_is_caught(folder: Path, tmp_path: Path) -> None:
    """One number of one layer of the file itself, changed by a hundredth."""
    manifest = manifest_of(small(), side=16)
    network = centred(small(), manifest=manifest)
    images, graph = splits_of(network, manifest=manifest)["val"].images, pixel_graph(network, manifest=manifest)
    reference, content = logits_of(torch_run(graph), images), (folder / "model.pte").read_bytes()
    head = network.head(network.depth)
    assert isinstance(head, torch.nn.Linear)
    weights = head.weight.detach().numpy().copy()
    intact, path = weights.tobytes(), tmp_path / "model.pte"
    assert content.count(intact) == 1
    weights[0, 0] += 0.01
    for these, what in ((intact, "intact"), (weights.tobytes(), "broken")):
        path.write_bytes(content.replace(intact, these))
        logits = logits_of(open_artifact(path, format_name="executorch", threads=1), images)
        if what == "intact":
            require_equal(reference, logits, name="executorch")
        else:
            with pytest.raises(ExportError, match=r"executorch: the exported file does not compute .* \(allowed: 0\.0001\)"):
                require_equal(reference, logits, name="executorch")


def test_layers_that_suffer_are_ranked_first() -> None:
    """Where one channel leaves the others no bits, the two layers around it; both are found under the names that the network has."""
    network = skewed(build(SMALL.at(1), torch.Generator().manual_seed(0)), block=0).eval()
    manifest = manifest_of(network, side=16)
    images = pixels(32, manifest=manifest)
    quantiser = Quantiser(pixel_graph(network, manifest=manifest), example_of(manifest), images=images, metadata={})
    ranked = quantiser.names(quantiser.ranked())
    assert set(ranked) == {"stem.conv", "blocks.0.conv1", "blocks.0.conv2", "heads.1"}
    assert set(ranked[:2]) == {"blocks.0.conv1", "blocks.0.conv2"}


@pytest.mark.parametrize("package", ["executorch", "torchao"])
def test_what_is_not_installed_is_told_before_anything_is_trained(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first stage of all, and again by `export`; nothing is written."""
    monkeypatch.setitem(sys.modules, package, None)
    config = changed(small_config(), {"export.formats": ["onnx", "executorch-int8"]})
    refusal = rf"export\.formats: executorch-int8 needs {package}; install it: pip install 'odn\[edge\]', or leave the format out"
    with pytest.raises(ConfigError, match=refusal):
        opening.run(config, search=SearchFolder(tmp_path / "work"))
    places = {name: tmp_path / name for name in ("prepared", "model", "exported", "metrics", "latency")}
    with pytest.raises(ConfigError, match=refusal):
        export.run(config, **places)
    assert list(tmp_path.iterdir()) == []
