"""Serve a routed network from its files: MLflow runs this script when it logs the model, and again when it loads it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from pydantic import Field

from odn.records import Fraction, Part, read_record
from odn.routing.stored import load_routed


@dataclass(frozen=True, kw_only=True)
class Scale(Part):
    """Hold how pixels are normalised, a number a channel."""

    mean: tuple[Fraction, ...]
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...]


class RoutedModel(PythonModel):
    """Give probabilities (N, K) for pixels from 0 to 255 (N, C, H, W); images that have left are not computed further."""

    def load_context(self, context: Any) -> None:
        """Read the network and the scale of its pixels."""
        folder = Path(context.artifacts["routed"])
        card = read_record(Scale, folder / "card.json", made_by="odn route")
        self.routes = load_routed(folder)
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1) for values in (card.mean, card.std))

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> npt.NDArray[np.float32]:
        """Return probabilities."""
        pixels = torch.from_numpy(np.array(model_input, dtype=np.float32))
        with torch.inference_mode():
            answers: npt.NDArray[np.float32] = self.routes.probabilities((pixels / 255 - self.mean) / self.std).numpy()
        return answers


set_model(RoutedModel())
