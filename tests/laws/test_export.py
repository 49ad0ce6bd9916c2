"""Laws of exported files: each computes what the network computes, whichever network it is, and is the same file each time."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from laws.exports import COUNTS, exported, manifest_of, pixels, splits_of
from laws.test_own_networks import Attention, Patches, own
from odn.data.dataset import Split
from odn.errors import DataError, ExportError
from odn.export.artifacts import read_exported
from odn.export.exporting import Order, export_network
from odn.export.graph import example_of, pixel_graph, traced
from odn.export.measuring import peak_bytes
from odn.export.names import FILES, RECORD
from odn.export.onnx_file import LAYERS, onnx_graph, packed
from odn.export.parity import compare, require_equal
from odn.export.quantized import calibration_images
from odn.export.runtimes import logits_of, open_artifact, open_onnx, torch_run
from odn.export.sparing import NotQuantised, Quantised, spare
from odn.files import write_json
from odn.models.architecture import Architecture, Cut, CutBlock
from odn.models.network import DepthNetwork, build
from odn.models.resnet_family import ResNet
from odn.models.resnet_shapes import resnet_architecture
from odn.supernet.cutting import narrowed

Make = Callable[..., DepthNetwork]
WEIGHTED = ("stem.conv", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "heads.2")  # layers of `small`
SMALL = resnet_architecture("resnet18", stem="cifar", width=1 / 8, shortcut="avgpool", in_channels=1, n_classes=5, depth=2)


def small(*, seed: int = 0) -> DepthNetwork:
    """Make a residual network of two blocks whose BatchNorms have seen images."""
    generator = torch.Generator().manual_seed(seed)
    network = build(SMALL, generator)
    network.train()(torch.randn(16, 1, 16, 16, generator=generator))
    return network.eval()


@pytest.mark.slow
def test_every_backbone_computes_the_same_as_onnx(whole: Architecture, images: torch.Tensor, make: Make, tmp_path: Path) -> None:
    """The logits of all images agree within 1e-4, and so does every class."""
    network = make(whole)
    found = exported(network, tmp_path, "onnx", side=images.shape[-1])
    (one,) = found.artifacts
    assert (one.val_accuracy, one.accuracy, one.mcnemar_p) == (1, 1, 1)
    assert one.logit_difference <= 1e-4 * max(1, float(network(images).detach().abs().max()))


def tokens() -> DepthNetwork:
    """Make a network whose blocks pass tokens on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DepthNetwork(Patches(1, 8), [Attention(8), Attention(8)], n_classes=3).eval()


def pruned() -> DepthNetwork:
    """Make a network of which training cut a block, a residual and channels."""
    blocks = (CutBlock(number=2, inner=(2,), out=3), CutBlock(number=3, inner=(), out=5), CutBlock(number=4, inner=(7,), out=5))
    return build(ResNet().with_cut(SMALL.whole, Cut(stem=3, blocks=blocks)), torch.Generator().manual_seed(0)).eval()


def narrow() -> DepthNetwork:
    """Make a network that was cut out of a supernet, with half of the inner channels."""
    return narrowed(small(), 2, [0.5] * 4)


@pytest.mark.parametrize("make_network", [own, tokens, pruned, narrow], ids=["own", "tokens", "pruned", "narrowed"])
def test_whatever_was_made_of_a_network_exports_in_the_same_way(make_network: Callable[[], DepthNetwork], tmp_path: Path) -> None:
    """One of somebody's own modules, of tokens, pruned, narrowed: float32 within the tolerance, and torch's own file bit for bit."""
    found = exported(make_network().eval(), tmp_path, "onnx", "torch")
    assert [one.format for one in found.artifacts] == ["onnx", "torch"]
    onnx_file, torch_file = found.artifacts
    assert onnx_file.logit_difference <= 1e-4
    assert torch_file.logit_difference == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with every format of a small network, and its record."""
    place = tmp_path_factory.mktemp("export")
    write_json(place / RECORD, asdict(exported(small(), place, "onnx", "onnx-int8", "torch")))
    return place


def test_a_second_process_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Files and record: nothing in them is of the process, the time or the place."""
    code = (
        "import sys; from pathlib import Path; from dataclasses import asdict; from odn.files import write_json;"
        "from laws.test_export import exported, small; place = Path(sys.argv[1]);"
        "write_json(place / 'export.json', asdict(exported(small(), place, 'onnx', 'onnx-int8', 'torch')))"
    )
    tests = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, env={"PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"})
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["export.json", "model.int8.onnx", "model.onnx", "model.pt2"]
    assert [(tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in names] == [True] * 4


@pytest.mark.parametrize("name", ["onnx", "onnx-int8", "torch"])
@pytest.mark.parametrize("n", [1, 3, 130])
def test_any_number_of_images_is_taken_at_once(n: int, name: str, folder: Path) -> None:
    """The batch is free, and no image's logits depend on the others."""
    run = open_artifact(folder / FILES[name], format_name=name, threads=1)
    images = pixels(n, manifest=manifest_of(small(), side=16))
    one_by_one = np.concatenate([run(images[number : number + 1]) for number in range(n)])
    np.testing.assert_allclose(run(images), one_by_one, rtol=0, atol=1e-5)  # sums of a batch may be added up in another order


def test_the_graph_takes_what_a_device_has(folder: Path) -> None:
    """Pixels of uint8 in, logits and probabilities out; names, sizes and where it comes from stand in the file, as text."""
    for name in ("model.onnx", "model.int8.onnx"):
        model = onnx.load(folder / name)
        onnx.checker.check_model(model, full_check=True)
        (images,), outputs = model.graph.input, model.graph.output
        dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
        assert (images.name, images.type.tensor_type.elem_type, dims) == ("images", onnx.TensorProto.UINT8, ["batch", 1, 16, 16])
        assert [(one.name, one.type.tensor_type.elem_type) for one in outputs] == [("logits", 1), ("probabilities", 1)]
        notes = {one.key: one.value for one in model.metadata_props}
        assert (notes["odn.format_version"], notes["odn.source"], notes["odn.model_sha256"]) == ("1", "made-up", "1" * 64)
        assert json.loads(notes["odn.classes"]) == [f"class {number}" for number in range(5)]
        assert json.loads(notes["odn.image"]) == {"channels": 1, "height": 16, "width": 16}
        assert json.loads(notes["odn.data_sha256"]) == dict.fromkeys(COUNTS, "0" * 64)
        assert json.loads(notes["odn.accuracy"])["n"] == COUNTS["test"]
        assert str(Path(__file__).parents[2]).encode() not in (folder / name).read_bytes()


def test_probabilities_are_the_softmax_of_the_logits(folder: Path) -> None:
    """Also of 8 bits: neither is rounded to 8 bits itself."""
    session = onnxruntime.InferenceSession(folder / "model.int8.onnx", providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"images": pixels(64, manifest=manifest_of(small(), side=16))})
    np.testing.assert_allclose(probabilities, torch.from_numpy(logits).softmax(1).numpy(), atol=1e-6)
    assert len(np.unique(logits)) > 300


def test_a_changed_weight_is_caught() -> None:
    """One number of one layer, changed by a hundredth: the file is refused, and the message says by how much it is off."""
    network = small()
    manifest = manifest_of(network, side=16)
    graph, images = pixel_graph(network, manifest=manifest), splits_of(network, manifest=manifest)["val"].images
    reference, model = logits_of(torch_run(graph), images), onnx_graph(traced(graph, example_of(manifest)))
    require_equal(reference, logits_of(open_onnx(packed(model, {}), 1), images), name="onnx")
    layer = next(one for one in model.graph.initializer if one.name.endswith("blocks.0.conv1.weight"))
    weights = numpy_helper.to_array(layer).copy()
    weights.flat[0] += 0.01
    layer.CopyFrom(numpy_helper.from_array(weights, layer.name))
    with pytest.raises(
        ExportError, match=r"onnx: the exported file does not compute .* logits differ by up to 0\.\d+ \(allowed: 0\.0001\)"
    ):
        require_equal(reference, logits_of(open_onnx(packed(model, {}), 1), images), name="onnx")


@pytest.mark.parametrize("wrong", [np.nan, 2.0])
def test_logits_that_are_no_numbers_or_of_another_class_are_not_equal(wrong: float) -> None:
    """NaN is equal to nothing."""
    reference = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    other = reference.copy()
    other[0, 1] = wrong
    assert compare(reference, reference).holds
    assert not compare(reference, other).holds


def skewed(network: DepthNetwork, *, block: int) -> DepthNetwork:
    """Return a network that computes the same, but has one inner channel with values thousands of times those of the others."""
    factor, changed = 3000.0, network.blocks[block]
    assert isinstance(changed.bn1, torch.nn.BatchNorm2d)
    assert isinstance(changed.conv2, torch.nn.Conv2d)
    with torch.no_grad():
        changed.bn1.weight[0] *= factor
        changed.bn1.bias[0] *= factor
        changed.conv2.weight[:, 0] /= factor
    return network


def test_weights_have_seven_bits_where_they_are_enough(tmp_path: Path) -> None:
    """Seven are the same on every processor."""
    (seven,) = exported(small(), tmp_path, "onnx-int8", max_drop=0.1).artifacts
    (more,) = exported(small(), tmp_path, "onnx-int8", max_drop=1 - seven.val_accuracy - 0.01).artifacts
    assert (seven.weight_bits, seven.float_layers) == (7, ())
    assert more.weight_bits == 8 or more.float_layers
    assert more.val_accuracy > seven.val_accuracy


class Tables:
    """Quantise by a table of accuracies; the layers are letters."""

    def __init__(self, accuracies: dict[tuple[int, str], float]) -> None:
        self.accuracies, self.asked = accuracies, list[tuple[int, str]]()

    def quantised(self, *, bits: int, without: Sequence[str]) -> float:
        """Look the accuracy up, which stands for the model."""
        self.asked.append((bits, "".join(without)))
        return self.accuracies.get(self.asked[-1], 0.5)

    def ranked(self) -> str:
        """Return the layers, the worst first."""
        return "abcdef"

    def names(self, layers: Sequence[str]) -> tuple[str, ...]:
        """Name them by their letters."""
        return tuple(layers)


@pytest.mark.parametrize("enough", [(7, ""), (8, ""), (7, "a"), (8, "a"), (7, "ab"), (8, "ab"), (8, "abcd")])
def test_eight_bits_and_float_layers_come_after_all_that_is_cheaper(enough: tuple[int, str]) -> None:
    """First more bits, then one layer more, two, … half of them at most."""
    order = [(7, ""), (8, ""), (7, "a"), (8, "a"), (7, "ab"), (8, "ab")]
    table = Tables({enough: 0.9})
    found = spare(table, bits=(7, 8), accuracy=float, least=0.9)
    if enough in order:
        assert found == Quantised(model=0.9, val_accuracy=0.9, weight_bits=7 if enough[0] == 7 else 8, float_layers=tuple(enough[1]))
        assert table.asked == order[: order.index(enough) + 1]
    else:
        assert found == NotQuantised(val_accuracy=0.5, blamed=tuple("abcdef"))
        assert table.asked == order


def test_layers_of_somebodys_own_modules_are_named_by_them() -> None:
    """Also where the exporter transposes their weights, under a name that it makes up."""
    network = own().eval()
    manifest = manifest_of(network, side=16)
    model = onnx_graph(traced(pixel_graph(network, manifest=manifest), example_of(manifest)))
    weights = [node.input[1] for node in model.graph.node if node.op_type in LAYERS]
    inner = [f"network.blocks.{number}.{layer}.weight" for number in range(3) for layer in ("conv", "linear")]
    assert weights == ["network.stem.weight", *inner, "network.heads.3.weight"]


def test_layers_that_suffer_stay_in_float32(tmp_path: Path) -> None:
    """Where one channel leaves the others no bits, the two layers around it are not quantised, and the accuracy is kept."""
    (one,) = exported(skewed(small(), block=1), tmp_path, "onnx-int8", max_drop=0.1).artifacts
    assert set(one.float_layers) == {"blocks.1.conv1", "blocks.1.conv2"}
    assert one.val_accuracy >= 0.9


def test_eight_bits_that_cost_too_much_are_refused_with_the_layers_to_blame(tmp_path: Path) -> None:
    """No file is left; the reason names both accuracies, the setting, and the layers, the worst first."""
    network = skewed(skewed(small(), block=0), block=1)
    found = exported(network, tmp_path, "onnx", "onnx-int8", max_drop=0.0)
    (refused,) = found.refused
    assert re.fullmatch(
        r"8 bits cost too much: [\d.]+% on val, 100.00% in float32, and export.max_drop is 0, also with half of the layers in float32; "
        r"most to blame: (\S+, ){4}\S+",
        refused.reason,
    )
    blamed = set(refused.reason.partition("blame: ")[2].split(", "))
    assert {f"blocks.{number}.conv{layer}" for number in (0, 1) for layer in (1, 2)} < blamed < set(WEIGHTED)
    assert [one.format for one in found.artifacts] == ["onnx"]
    assert not (tmp_path / "model.int8.onnx").exists()


def test_training_images_calibrate_and_val_does_not(tmp_path: Path) -> None:
    """Other images in val leave the file of 8 bits as it is; other images in train change it."""
    network = small()
    manifest = manifest_of(network, side=16)
    splits = splits_of(network, manifest=manifest)
    order = Order(formats=("onnx-int8",), max_drop=1.0, confidence=0.95, threads=1)
    digests = []
    for name, changed in (("as", None), ("val", "val"), ("train", "train")):
        others = dict(splits)
        if changed is not None:
            others[changed] = Split(images=np.asarray(splits[changed].images) // 2, labels=splits[changed].labels)
        place = tmp_path / name
        made = export_network(network, order, manifest=manifest, splits=others, model_sha256="1" * 64, folder=place)
        digests.append(made.artifacts[0].sha256)
    assert digests[0] == digests[1] != digests[2]


def test_few_or_many_images_calibrate() -> None:
    """Every image of a small split, at most 512 of a large one, from its first to its last part."""
    few, many = (np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1) if n < 256 else np.zeros((n, 1, 1, 1), np.uint8) for n in (100, 60_000))
    assert np.array_equal(calibration_images(few), few)
    assert len(calibration_images(many)) == 512


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda place: (place / "model.onnx").unlink(), "export.json is damaged: it lists model.onnx, which is not there"),
        (lambda place: (place / "model.onnx").write_bytes(b"other"), "model.onnx is damaged: its sha256 is not the one"),
        (lambda place: (place / "export.json").write_text("{}"), "export.json is damaged: .* is missing"),
    ],
)
def test_a_damaged_export_is_refused(damage: Callable[[Path], object], message: str, folder: Path, tmp_path: Path) -> None:
    """Each file is held to its digest when the record is read."""
    place = tmp_path / "export"
    shutil.copytree(folder, place)
    assert [one.format for one in read_exported(place).artifacts] == ["onnx", "onnx-int8", "torch"]
    damage(place)
    with pytest.raises(DataError, match=message):
        read_exported(place)


def test_a_process_that_only_runs_the_file_is_measured(folder: Path) -> None:
    """Its memory is what it needs itself, not what its parent had; a file that cannot be loaded says why."""
    held = np.ones(300_000_000, dtype=np.uint8)
    assert 10_000_000 < peak_bytes("onnx", folder / "model.onnx", image=(1, 16, 16), threads=1) < 200_000_000
    del held
    with pytest.raises(ExportError, match=r"model.pt2: a process of its own could not run it \(exit code 1\): .*onnx"):
        peak_bytes("onnx", folder / "model.pt2", image=(1, 16, 16), threads=1)
