"""Write the network for ExecuTorch: a `.pte` file whose layers run in XNNPACK, in float32 or in 8 bits, the same bytes each time.

The file takes one image: its memory is planned when it is written, and a device would have to hold that of the largest batch.
8 bits are those of PT2E: static, per channel, calibrated on training images. Weights have all 8 bits, as XNNPACK adds products up in
32 on every processor. Activations, logits among them, are int8.
Axes: N images, C channels, H rows, W columns, K classes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from odn.counting import counted
from odn.data.dataset import Rows
from odn.export.executorch_runtime import quiet
from odn.export.graph import PixelGraph, traced
from odn.export.quantized import calibration_images
from odn.export.runtimes import Pixels, batch_size, logits_of, torch_run
from odn.export.sparing import RANKING, NotQuantised, Quantised, WeightBits, spare

if TYPE_CHECKING:
    from torch.export import ExportedProgram

METADATA = "metadata"  # the method beside `forward` that gives what the file says of itself, as JSON
LAYERS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)  # operations that hold weights
CEIL_MODE = 4  # among the arguments of avg_pool2d
JOINING = (
    torch.ops.aten.add.Tensor,
    torch.ops.aten.add_.Tensor,
    torch.ops.aten.mul.Tensor,
    torch.ops.aten.mul_.Tensor,
    torch.ops.aten.cat.default,
)


def executorch_file(program: "ExportedProgram", metadata: Mapping[str, str]) -> bytes:
    """Return the content of a `.pte` file of what was traced for one image."""
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        _as_xnnpack_has_it(program.graph_module)
        methods = {METADATA: json.dumps(dict(metadata), separators=(",", ":"))}
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], constant_methods=methods)
        return bytes(edge.to_executorch().buffer)


def _as_xnnpack_has_it(module: fx.GraphModule) -> None:
    """Write pooling as XNNPACK has it: what it has not falls to slow kernels of ExecuTorch's own, and cuts the network in two."""
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten.mean.dim and len(node.args) == 2 and not node.kwargs:
            _keep_dimensions(module.graph, node)
        elif node.target is torch.ops.aten.avg_pool2d.default and len(node.args) > CEIL_MODE and node.args[CEIL_MODE]:
            _round_down(node)
    module.graph.lint()
    module.recompile()


def _keep_dimensions(graph: fx.Graph, node: fx.Node) -> None:
    """Let a mean keep its dimensions at length 1, and a reshape drop them."""
    pooled: Any
    pooled, dims = node.args
    with graph.inserting_before(node):
        kept = graph.call_function(torch.ops.aten.mean.dim, (pooled, dims, True))
        kept.meta = {**node.meta, "val": pooled.meta["val"].mean(dims, keepdim=True)}
        flat = graph.call_function(torch.ops.aten.view.default, (kept, list(node.meta["val"].shape)))
        flat.meta = dict(node.meta)
    node.replace_all_uses_with(flat)
    graph.erase_node(node)


def _round_down(node: fx.Node) -> None:
    """Let pooling round the size of its output down where that is the size rounded up."""
    arguments: list[Any] = list(node.args)
    arguments[CEIL_MODE] = False
    if torch.ops.aten.avg_pool2d.default(arguments[0].meta["val"], *arguments[1:]).shape == node.meta["val"].shape:
        node.args = tuple(arguments)


def quantise(
    graph: PixelGraph,
    example: Tensor,
    *,
    train: Rows,
    metadata: Mapping[str, str],
    accuracy: Callable[[bytes], float],
    least: float,
) -> Quantised[bytes] | NotQuantised:
    """Quantise all layers of a graph; where the file's `accuracy` on val stays below `least`, spare those that suffer most.

    `example` is a batch of images that any other may stand for.
    """
    quantiser = Quantiser(graph, example, images=calibration_images(train), metadata=metadata)
    return spare(quantiser, bits=(8,), accuracy=accuracy, least=least)


class Quantiser:
    """Hold a traced graph, and the images that calibrate it."""

    def __init__(self, graph: PixelGraph, example: Tensor, *, images: Pixels, metadata: Mapping[str, str]) -> None:
        self.program, self.example, self.images, self.metadata = traced(graph, example), example, images, metadata
        self.layers = [_layer_of(node) for node in self.program.graph_module.graph.nodes if node.target in LAYERS]

    def quantised(self, *, bits: WeightBits, without: Sequence[str]) -> bytes:
        """Return the content of a `.pte` file with all layers in 8 bits but these."""
        assert bits == 8, "XNNPACK has no other"
        converted = self._converted(lambda node: node.target not in LAYERS or _layer_of(node) not in without)
        return executorch_file(traced(converted, self.example[:1]), self.metadata)

    def ranked(self) -> list[str]:
        """Return the layers, that first which alone moves the logits of the images most."""
        reference = logits_of(torch_run(self.program.module()), self.images)
        moved = {}
        with counted(RANKING, total=len(self.layers)) as tick:
            for layer in self.layers:
                one = self._converted(lambda node, layer=layer: node.target not in (*LAYERS, *JOINING) or _layer_of(node) == layer)  # type: ignore[misc]
                moved[layer] = float(((logits_of(torch_run(one), self.images) - reference) ** 2).mean())
                tick(1)
        return sorted(self.layers, key=lambda layer: (-moved[layer], self.layers.index(layer)))

    def names(self, layers: Sequence[str]) -> tuple[str, ...]:
        """Name layers as the network does, such as blocks.1.conv2."""
        return tuple(layer.removeprefix("network.") for layer in layers)

    @torch.no_grad()
    def _converted(self, wanted: Callable[[fx.Node], bool]) -> nn.Module:
        """Return the graph as PT2E quantises it: what is wanted, by the ranges of the images."""
        with quiet():
            from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

            quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
            # Patterns of training, which it traces anew each time, for seconds: in a graph of eval mode none is found.
            quantizer.SUPPORTED_PATTERNS = [pattern for pattern in quantizer.SUPPORTED_PATTERNS if not pattern.is_qat]
            prepared: Any = prepare_pt2e(self.program.module(), quantizer.set_filter_function(wanted))
            size = batch_size(self.images.shape)
            for start in range(0, len(self.images), size):
                prepared(torch.from_numpy(self.images[start : start + size]))
            converted: nn.Module = convert_pt2e(prepared)
        return converted


def _layer_of(node: fx.Node) -> str:
    """Name a layer by the module that it stands in."""
    scopes: dict[str, Any] = node.meta.get("nn_module_stack", {})
    return str(list(scopes.values())[-1][0]) if scopes else node.name
