"""Networks with random weights, images that they are asked about, and exports of both; labels are the network's own classes."""

from pathlib import Path

import numpy as np
import torch

from odn.data.dataset import Manifest, Split
from odn.export.artifacts import Exported, FormatName
from odn.export.exporting import Order, export_network
from odn.export.graph import pixel_graph
from odn.export.runtimes import Pixels, logits_of, torch_run
from odn.models.network import DepthNetwork

COUNTS = {"train": 64, "val": 48, "test": 32}


def manifest_of(network: DepthNetwork, *, side: int) -> Manifest:
    """Describe square images for a network, of which nothing but the scale of their pixels is read."""
    channels, n_classes = network.architecture.in_channels, network.architecture.n_classes
    counts = {name: {"total": n, "per_class": [n] + [0] * (n_classes - 1)} for name, n in COUNTS.items()}
    return Manifest(
        source="made-up",
        classes=tuple(f"class {number}" for number in range(n_classes)),
        channels=channels,
        height=side,
        width=side,
        mean=(0.4,) * channels,
        std=(0.25,) * channels,
        counts=counts,
        sha256=dict.fromkeys(COUNTS, "0" * 64),
    )


def pixels(n: int, *, manifest: Manifest, seed: int = 0) -> Pixels:
    """Draw images (n, C, H, W) of 4 by 4 patches: finer noise looks all the same to a network that averages."""
    shape = (n, manifest.channels, 4, 4)
    patches = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return patches.repeat(manifest.height // 4, axis=2).repeat(manifest.width // 4, axis=3)


def centred(network: DepthNetwork, *, manifest: Manifest) -> DepthNetwork:
    """Let the network have an opinion: of random weights the logits differ more between classes than between images."""
    head = network.head(network.depth)
    logits = logits_of(torch_run(pixel_graph(network, manifest=manifest)), pixels(COUNTS["train"], manifest=manifest))
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        head.bias.sub_(torch.from_numpy(logits.mean(0)))
    return network.eval()


def splits_of(network: DepthNetwork, *, manifest: Manifest) -> dict[str, Split]:
    """Draw three splits, each image labelled as the network says."""
    run = torch_run(pixel_graph(network, manifest=manifest))
    splits = {}
    for seed, (name, n) in enumerate(COUNTS.items()):
        images = pixels(n, manifest=manifest, seed=seed)
        splits[name] = Split(images=images, labels=logits_of(run, images).argmax(1))
    return splits


def exported(network: DepthNetwork, folder: Path, *formats: FormatName, side: int = 16, max_drop: float = 0.5) -> Exported:
    """Export a network, once centred, into a folder."""
    manifest = manifest_of(network, side=side)
    network = centred(network, manifest=manifest)
    asked = Order(formats=formats, max_drop=max_drop, confidence=0.95, threads=1)
    splits = splits_of(network, manifest=manifest)
    return export_network(network, asked, manifest=manifest, splits=splits, model_sha256="1" * 64, folder=folder)
