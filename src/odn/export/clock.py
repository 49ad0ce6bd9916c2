"""Time networks for one image in the runtime that they will run in, to choose among them.

N images, C channels, H height, W width.
"""

import functools
from pathlib import Path
from typing import Literal

import numpy as np

from odn.data.dataset import Manifest, Rows, verified_split
from odn.data.shards import OpenObjects
from odn.export.graph import example_of, pixel_graph, traced
from odn.export.onnx_file import onnx_graph, packed
from odn.export.quantized import all_in_eight_bits
from odn.export.runtimes import open_onnx
from odn.models.network import DepthNetwork
from odn.models.timing import Clock, Timing, one_image, timed
from odn.training.device import Machine


def clock_of(
    runtime: Literal["torch", "onnx", "onnx-int8"], *, manifest: Manifest, machine: Machine, train: Path, objects: OpenObjects
) -> Clock:
    """Return what times a network; ONNX Runtime runs on the processor, with as many threads as training has.

    Of 8 bits it is the graph with all layers in them, calibrated on images of the split `train`. Where that costs too much accuracy,
    `odn export` leaves some layers in float32, or writes no such file.
    """
    shape = (1, manifest.channels, manifest.height, manifest.width)

    @functools.cache
    def images() -> Rows:
        """Read and check the split once, however many networks are timed."""
        return verified_split(train, manifest=manifest, objects=objects).images

    def in_torch(network: DepthNetwork) -> Timing:
        return one_image(network, height=manifest.height, width=manifest.width, device=machine.device.type)

    def in_onnx(network: DepthNetwork) -> Timing:
        model = onnx_graph(traced(pixel_graph(network, manifest=manifest), example_of(manifest)))
        if runtime == "onnx-int8":
            model = all_in_eight_bits(model, train=images(), threads=machine.threads)
        run, image = open_onnx(packed(model, {}), machine.threads), np.zeros(shape, dtype=np.uint8)
        return timed({"": lambda: run(image)})

    return in_torch if runtime == "torch" else in_onnx
