"""Register a network that routes single images as one model that MLflow can serve, skipping and all.

torch.export knows no batch that shrinks with its content, so the model is code: a script, the package and the files of the network.
No pickle is written.
"""

from collections.abc import Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from odn.config import Config
from odn.data.dataset import Manifest
from odn.sanitize import markdown
from odn.tracking.connection import import_mlflow
from odn.tracking.publish import Model, publish_model
from odn.tracking.registry import Registration
from odn.tracking.versions import EXAMPLE_IMAGES, Log

SCRIPT = Path(__file__).with_name("routed_served.py")
PACKAGE = Path(__file__).parents[1]
NEEDED = ("mlflow", "numpy", "pydantic", "pyyaml", "safetensors", "torch")  # by the script and what it imports of odn


def register_routed(folder: Path, *, card: Mapping[str, Any], manifest: Manifest, config: Config) -> Registration:
    """Register routed/KIND as NAME-routed-KIND, with the alias `candidate`.

    Raises:
        TrackingError: MLflow cannot be reached or refuses.
    """
    kind = card["kind"]
    numbers = ("val_accuracy", "test_accuracy", "val_macs", "test_macs", "val_macs_share", "test_macs_share", "full_network_epochs")
    (asked, value), *_ = card["target"].items()
    model = Model(
        name=f"{config.registry.name}-routed-{kind}",
        folder=folder,
        weights=("weights.safetensors", "routing.json") + (("gates.safetensors",) if kind == "gate" else ()),
        log=log_routed(folder, manifest=manifest),
        about=f"A depth for each image of {markdown(config.data.name)}, by {kind}.",
        description=(
            f"{card['test_accuracy']:.2%} on test for {card['test_macs_share']:.1%} of the multiply-accumulates of the deepest exit, "
            f"on average; fitted to {asked} {value:g}."
        ),
        metrics={name: float(card[name]) for name in numbers},
        tags={"odn.routing": str(kind), "odn.target": f"{asked} {value:g}", "odn.supernet_sha256": str(card["supernet_sha256"])},
    )
    return publish_model(model, config=config, again=f"'odn route --kind {kind}' with the same target")


def log_routed(folder: Path, *, manifest: Manifest) -> Log:
    """Return what logs a routed network as code with its files."""

    def log(name: str, weights_sha256: str) -> str:
        mlflow = import_mlflow()
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        shape, numbers = (manifest.channels, manifest.height, manifest.width), np.dtype(np.float32)
        info = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(SCRIPT),
            artifacts={"routed": str(folder.absolute())},
            code_paths=[str(PACKAGE)],
            signature=ModelSignature(
                inputs=Schema([TensorSpec(numbers, (-1, *shape), name=None)]),
                outputs=Schema([TensorSpec(numbers, (-1, manifest.n_classes), name=None)]),
            ),
            input_example=np.random.default_rng(0).integers(0, 256, (EXAMPLE_IMAGES, *shape)).astype(np.float32),
            pip_requirements=[f"{package}=={installed(package).partition('+')[0]}" for package in NEEDED],
            metadata={
                "input": "pixels 0..255 (N, C, H, W)",
                "output": "probabilities (N, K)",
                "classes": list(manifest.classes),
            },
            tags={"odn.weights_sha256": weights_sha256},
        )
        return str(info.model_id)

    return log
