"""Quantise an ONNX graph to 8 bits a number, as far as its accuracy allows.

Static, QDQ, per channel, calibrated on training images. Activations are uint8. Weights are int8 with 7 bits where that is accurate enough:
with 8, x86 processors without VNNI overflow in silence where two products are added, and the file computes something else there.
Source: ONNX Runtime's own advice (quantize_static, "Choosing parameters for CPU inference"; microsoft/onnxruntime#12072).
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from odn.counting import counted
from odn.data.dataset import Rows
from odn.data.sharding import shard_size, spread
from odn.export.graph import INPUT, OUTPUTS
from odn.export.onnx_file import LAYERS, stripped
from odn.export.runtimes import Pixels, batch_size, logits_of, open_onnx
from odn.export.sparing import RANKING, NotQuantised, Quantised, WeightBits, spare

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

CALIBRATION_IMAGES = 512  # training images that the ranges of activations come from, evenly spread
# Beside them what lies between: their numbers stay 8 bits wide. Softmax is not: probabilities of 1 / 256 are too coarse.
QUANTISED = (*LAYERS, "Add", "Mul", "AveragePool", "GlobalAveragePool", "MaxPool", "Relu", "Clip")
WEIGHT_BITS: Final[tuple[WeightBits, ...]] = (7, 8)
PREPROCESSED = ("onnx.quant.pre_process", "onnxruntime.quant")  # torch's exporter folded BatchNorm and constants already


def quantise(
    model: "ModelProto", *, train: Rows, accuracy: Callable[["ModelProto"], float], least: float, threads: int
) -> Quantised["ModelProto"] | NotQuantised:
    """Quantise all layers, with weights of 7 bits, else of 8, but those that suffer most where `accuracy` on val stays below `least`."""
    with tempfile.TemporaryDirectory(prefix="odn-quantise-") as scratch:
        quantiser = _Quantiser(model, images=calibration_images(train), folder=Path(scratch), threads=threads)
        found = spare(quantiser, bits=WEIGHT_BITS, accuracy=accuracy, least=least)
    return found if isinstance(found, NotQuantised) else replace(found, model=compact(found.model))


def all_in_eight_bits(model: "ModelProto", *, train: Rows, threads: int) -> "ModelProto":
    """Quantise all layers, with weights of 7 bits, whatever that does to the accuracy: as fast as the file with 8."""
    with tempfile.TemporaryDirectory(prefix="odn-quantise-") as scratch:
        return _Quantiser(model, images=calibration_images(train), folder=Path(scratch), threads=threads).quantised(bits=7)


def calibration_images(train: Rows) -> Pixels:
    """Return the training images that calibrate: evenly spread, the same ones each time."""
    index = np.array(spread(len(train), shard=shard_size(train.shape[1:]), wanted=CALIBRATION_IMAGES)[:CALIBRATION_IMAGES])
    return np.ascontiguousarray(train[index])


class _Quantiser:
    """Hold a graph in a file, as ONNX Runtime wants it, and the ranges of its activations once they are known."""

    def __init__(self, model: "ModelProto", *, images: Pixels, folder: Path, threads: int) -> None:
        import onnx

        self.images, self.folder, self.threads = images, folder, threads
        self.layers = [node for node in model.graph.node if node.op_type in LAYERS]
        noted = onnx.ModelProto()
        noted.CopyFrom(model)
        del noted.metadata_props[:]
        noted.metadata_props.add(key=PREPROCESSED[0], value=PREPROCESSED[1])  # else ONNX Runtime logs advice
        self.content: bytes = noted.SerializeToString()
        (folder / "float32.onnx").write_bytes(self.content)

    def quantised(self, *, bits: WeightBits = 8, without: Sequence["NodeProto"] = (), only: Sequence["NodeProto"] = ()) -> "ModelProto":
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        out = self.folder / "int8.onnx"
        quantize_static(
            self.folder / "float32.onnx",
            out,
            _Batches(self.images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            reduce_range=bits == 7,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in without],
            nodes_to_quantize=[node.name for node in only],
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=self.folder / "ranges.json",
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},  # logits stay float32
        )
        return onnx.load_model(out)

    def ranked(self) -> list["NodeProto"]:
        reference = logits_of(open_onnx(self.content, self.threads), self.images)
        moved = []
        with counted(RANKING, total=len(self.layers)) as tick:
            for layer in self.layers:
                one = self.quantised(only=[layer]).SerializeToString()
                moved.append(float(np.square(logits_of(open_onnx(one, self.threads), self.images) - reference).mean()))
                tick(1)
        return [self.layers[i] for i in sorted(range(len(moved)), key=lambda i: (-moved[i], i))]

    def names(self, layers: Sequence["NodeProto"]) -> tuple[str, ...]:
        return tuple(layer.input[1].removeprefix("network.").removesuffix(".weight") for layer in layers)


class _Batches:
    """Hand images to ONNX Runtime's calibration, a batch at a time."""

    def __init__(self, images: Pixels) -> None:
        size = batch_size(images.shape)
        self.parts = iter([{INPUT: images[start : start + size]} for start in range(0, len(images), size)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.parts, None)


def compact(model: "ModelProto") -> "ModelProto":
    """Return a graph with short names for all inner values: quantising triples their number, and in a small file they are most bytes."""
    model = stripped(model)
    graph = model.graph
    short: dict[str, str] = {name: name for name in (INPUT, *OUTPUTS, "")}

    def named(name: str) -> str:
        return short.setdefault(name, f"v{len(short):x}")

    for tensor in graph.initializer:
        tensor.name = named(tensor.name)
    for node in graph.node:
        node.name = ""
        node.input[:] = [named(name) for name in node.input]
        node.output[:] = [named(name) for name in node.output]
    return model
