"""A folder with a model as an ONNX file and images of it, and a server that runs as a user runs it."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.onnx_files import onnx_file
from serving.running import Running


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Make five grey images (N, 1, 8, 8)."""
    return np.random.default_rng(1).integers(0, 256, (5, 1, 8, 8)).astype(np.uint8)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: np.ndarray) -> Path:
    """Work in a folder with export/model.onnx and the images as pictures/0.png and so on."""
    (tmp_path / "export").mkdir()
    (tmp_path / "export/model.onnx").write_bytes(onnx_file())
    (tmp_path / "pictures").mkdir()
    for number, pixels in enumerate(images):
        Image.fromarray(pixels[0]).save(tmp_path / f"pictures/{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serve one model to a module's tests."""
    path = tmp_path_factory.mktemp("served") / "model.onnx"
    path.write_bytes(onnx_file())
    with Running(path) as running:
        yield running


@pytest.fixture
def png() -> Callable[[np.ndarray], bytes]:
    """Give a function that encodes pixels (C, H, W) as a PNG file."""

    def encode(pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(file, "PNG")
        return file.getvalue()

    return encode
