"""Laws of a routed network's segments: they compute what it computes, and stop where it stops."""

from pathlib import Path

import numpy as np
import pytest
import torch

from laws.exports import manifest_of, pixels
from laws.test_routing import exits
from odn.errors import DataError, ExportError, MissingInputError
from odn.export.graph import Normalise
from odn.export.segments import Segments, prove, sureness, write_segments
from odn.models.network import DepthNetwork, build
from odn.models.resnet_shapes import resnet_architecture
from odn.routing.routed import RoutedNetwork, confidence

SMALL = resnet_architecture("resnet18", stem="cifar", width=1 / 8, shortcut="avgpool", in_channels=1, n_classes=5, depth=3)


def network() -> DepthNetwork:
    """Make a network with three exits."""
    generator = torch.Generator().manual_seed(0)
    made = build(SMALL, generator, heads=(1, 2, 3))
    made.train()(torch.randn(16, 1, 16, 16, generator=generator))
    return made.eval()


MANIFEST = manifest_of(network(), side=16)
IMAGES = pixels(40, manifest=MANIFEST)


def routed(*quantiles: float) -> RoutedNetwork:
    """Make a routed network at whose first exits these fractions of the images stay."""
    made = network()
    with torch.no_grad():
        said = made.forward_depths(Normalise(MANIFEST)(torch.from_numpy(IMAGES)), (1, 2))
    thresholds = [float(confidence(said[depth], temperature=1.5).quantile(q)) for depth, q in zip((1, 2), quantiles, strict=True)]
    return RoutedNetwork(made, exits(*thresholds, 0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the segments of a network that half of the images leave at each exit."""
    place = tmp_path_factory.mktemp("segments")
    write_segments(routed(0.5, 0.5), place, manifest=MANIFEST)
    return place


def test_segments_compute_what_the_routed_network_computes(folder: Path) -> None:
    """Logits, and the exit of every image, in the order of the images; alone an image leaves where it leaves among others."""
    routes = routed(0.5, 0.5)
    assert prove(folder, routes, IMAGES, manifest=MANIFEST, threads=1) == 0
    with torch.no_grad():
        expected = routes.route(Normalise(MANIFEST)(torch.from_numpy(IMAGES)))
    segments = Segments(folder, threads=1)
    logits, depths = segments.run(IMAGES)
    np.testing.assert_allclose(logits, expected.logits.numpy(), atol=1e-4)
    assert depths.tolist() == expected.exits.tolist()
    assert len(set(depths.tolist())) == 3
    alone = [int(segments.run(IMAGES[number : number + 1])[1][0]) for number in range(len(IMAGES))]
    assert alone == depths.tolist()


def test_a_second_time_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Three files and their record."""
    write_segments(routed(0.5, 0.5), tmp_path, manifest=MANIFEST)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["segment-1.onnx", "segment-2.onnx", "segment-3.onnx", "segments.json"]
    assert [(tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in names] == [True] * 4


def test_exits_that_no_image_takes_have_no_file(tmp_path: Path) -> None:
    """A threshold of 1 lets none leave, and behind one of 0 nobody arrives."""
    made = write_segments(RoutedNetwork(network(), exits(1, 0, 0)), tmp_path, manifest=MANIFEST)
    assert [(one.file, one.depth) for one in made.segments] == [("segment-1.onnx", 2)]
    assert prove(tmp_path, RoutedNetwork(network(), exits(1, 0, 0)), IMAGES, manifest=MANIFEST, threads=1) == 0


def test_other_thresholds_are_caught(folder: Path) -> None:
    """Images that leave elsewhere are counted."""
    with pytest.raises(ExportError, match=r"\d+ of 40 images leave at another exit than in torch"):
        prove(folder, routed(0.9, 0.9), IMAGES, manifest=MANIFEST, threads=1)


def test_the_confidence_is_that_of_the_routed_network() -> None:
    """Within a rounding of float32."""
    logits = 20 * torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(sureness(logits.numpy(), temperature=1.5), confidence(logits, temperature=1.5).numpy(), atol=1e-6)


def test_missing_and_damaged_segments_are_refused(folder: Path, tmp_path: Path) -> None:
    """By their record."""
    with pytest.raises(MissingInputError, match="segments.json is missing"):
        Segments(tmp_path, threads=1)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "segment-2.onnx").write_bytes(b"other")
    with pytest.raises(DataError, match="segment-2.onnx is damaged: it is not the file"):
        Segments(tmp_path, threads=1)
