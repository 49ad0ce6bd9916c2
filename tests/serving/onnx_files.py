"""ONNX files of odn's format, made by hand: a linear classifier of pixels, so that what it answers can be computed beside it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("cat", "dog", "owl")


def weights(*, n_pixels: int, n_classes: int, seed: int) -> np.ndarray:
    """Return the matrix (C * H * W, K) of the classifier."""
    return np.random.default_rng(seed).normal(size=(n_pixels, n_classes)).astype(np.float32)


def metadata(*, classes: Sequence[str] = CLASSES, image: tuple[int, int, int] = (1, 8, 8)) -> dict[str, str]:
    """Return what a file of odn says of itself."""
    shape = dict(zip(("channels", "height", "width"), image, strict=True))
    about: dict[str, Any] = {"odn.format_version": "1", "odn.classes": json.dumps(list(classes)), "odn.image": json.dumps(shape)}
    about |= {"odn.source": "digits", "odn.data_sha256": "{}", "odn.model_sha256": "a" * 64}
    return about | {"odn.accuracy": json.dumps({"accuracy": 0.9, "low": 0.8, "high": 0.95, "n": 100})}


def onnx_file(
    *,
    classes: Sequence[str] = CLASSES,
    image: tuple[int, int, int] = (1, 8, 8),
    seed: int = 0,
    about: Mapping[str, str] | None = None,
    input_type: int = TensorProto.UINT8,
) -> bytes:
    """Return a file that maps pixels to logits, pixels / 255 times a matrix that `seed` draws, and to their softmax."""
    matrix = weights(n_pixels=int(np.prod(image)), n_classes=len(classes), seed=seed)
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("images", input_type, ["batch", *image])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", len(classes)]) for name in ("logits", "probabilities")]
    constants = [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(np.array(255, np.float32), "scale")]
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for key, value in (metadata(classes=classes, image=image) if about is None else about).items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


def expected(images: np.ndarray, *, n_classes: int = len(CLASSES), seed: int = 0) -> np.ndarray:
    """Return the probabilities (N, K) that the file of this seed gives for images (N, C, H, W)."""
    flat = images.reshape(len(images), -1).astype(np.float32) / 255
    logits = flat @ weights(n_pixels=flat.shape[1], n_classes=n_classes, seed=seed)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
