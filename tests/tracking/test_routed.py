"""A network that routes single images is served by MLflow as it is: code with its files, and no pickle."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from odn.config import make_config
from odn.data.dataset import Manifest
from odn.files import write_json
from odn.models.resnet_shapes import resnet_architecture
from odn.tracking.connection import connect
from odn.tracking.place import QUIET, tracking_place
from odn.tracking.routed import register_routed
from tracking.conftest import PARAMS

MANIFEST = Manifest(
    source="digits", classes=tuple("0123456789"), channels=1, height=8, width=8, mean=(0.3,), std=(0.4,),
    counts={"train": {"total": 1, "per_class": [1]}}, sha256={"train": "a" * 64},
)  # fmt: skip
CARD: dict[str, Any] = {"kind": "confidence", "target": {"macs": 0.5}, "supernet_sha256": "b" * 64, "mean": [0.3], "std": [0.4]}
NUMBERS = ("val_accuracy", "test_accuracy", "val_macs", "test_macs", "val_macs_share", "test_macs_share", "full_network_epochs")
SERVE = """
import sys, mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2])))
import odn
print(odn.__file__)
"""


def written(folder: Path, images: np.ndarray) -> np.ndarray:
    """Write a routed network that parts these images, and return what it says of them."""
    import torch

    from odn.models.network import build
    from odn.routing.routed import Exit, RoutedNetwork, confidence
    from odn.routing.stored import save_routed

    architecture = resnet_architecture("resnet18", stem="cifar", width=0.125, shortcut="avgpool", in_channels=1, n_classes=10, depth=3)
    network = build(architecture, torch.Generator().manual_seed(0), heads=(1, 3)).eval()
    x = (torch.from_numpy(images) / 255 - 0.3) / 0.4
    with torch.inference_mode():
        middle = float(confidence(network(x, 1), temperature=2.0).sort().values[1:3].mean())
        ends = [Exit(depth=1, threshold=middle, temperature=2.0), Exit(depth=3, threshold=0.0, temperature=1.0)]
        routes = RoutedNetwork(network, ends)
        assert len(set(routes.route(x).exits.tolist())) == 2
        answers: np.ndarray = routes.probabilities(x).numpy()
    save_routed(routes, folder)
    write_json(folder / "card.json", CARD | dict.fromkeys(NUMBERS, 0.5))
    return answers


@pytest.mark.slow
def test_it_is_served_in_a_process_without_our_code(store: Path, images: np.ndarray) -> None:
    """The package travels with the model; answers are equal to the bit; registered again it keeps its version."""
    config = make_config(yaml.safe_load(PARAMS.read_text()))
    expected, card = written(store / "routed", images), CARD | dict.fromkeys(NUMBERS, 0.5)
    done, again = (register_routed(store / "routed", card=card, manifest=MANIFEST, config=config) for _ in range(2))
    assert (done.name, done.version, again.version) == ("odn-digits-routed-confidence", "1", "1")
    version = connect(tracking_place()).client.get_model_version_by_alias(done.name, "candidate")
    assert version.tags["odn.target"] == "macs 0.5"
    assert not [path for path in (store / "mlartifacts").rglob("*") if path.suffix in {".pkl", ".pickle", ".pt", ".pth"}]
    np.save(store / "pixels.npy", images)
    command = [sys.executable, "-c", SERVE, f"models:/{done.name}@candidate", "pixels.npy", "answers.npy"]
    environment = {**QUIET, "PATH": os.environ["PATH"], "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    served = subprocess.run(command, cwd=store, env=environment, capture_output=True, text=True, check=True)
    assert np.array_equal(np.load(store / "answers.npy"), expected)
    assert "/code/odn/" in served.stdout
