"""Serve a routed network from its files: MLflow runs this script when it logs the model, and again when it loads it."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from odn.files import read_json
from odn.models.stored_routes import load_routed


class RoutedModel(PythonModel):
    """Give probabilities (N, K) for pixels from 0 to 255 (N, C, H, W); images that have left are not computed further."""

    def load_context(self, context: Any) -> None:
        """Read the network and the scale of its pixels."""
        folder = Path(context.artifacts["routed"])
        card = read_json(folder / "card.json", made_by="route")
        self.routes = load_routed(folder)
        self.mean, self.std = (torch.tensor(card[name]).view(1, -1, 1, 1) for name in ("mean", "std"))

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> npt.NDArray[np.float32]:
        """Return probabilities."""
        pixels = torch.from_numpy(np.array(model_input, dtype=np.float32))
        with torch.inference_mode():
            answers: npt.NDArray[np.float32] = self.routes.probabilities((pixels / 255 - self.mean) / self.std).numpy()
        return answers


set_model(RoutedModel())
