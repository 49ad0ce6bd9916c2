"""A request to /invocations means to `odn serve` what it means to MLflow's own scoring server."""

import json
from typing import Any

import numpy as np
import pytest

from odn.serving.model import ImageShape
from odn.serving.scoring import read_invocation

PIXELS = np.random.default_rng(4).integers(0, 256, (3, 1, 2, 2)).astype(np.uint8)
NESTED, FLAT = PIXELS.tolist(), PIXELS.reshape(3, -1).tolist()
TENSORS: list[dict[str, Any]] = [{"inputs": NESTED}, {"instances": NESTED}]
FRAMES: list[dict[str, Any]] = [
    {"dataframe_split": {"columns": ["images"], "data": [[one] for one in FLAT]}},
    {"dataframe_records": [{"images": one} for one in FLAT]},
]


@pytest.mark.parametrize("request_", [*TENSORS, *FRAMES], ids=lambda request_: next(iter(request_)))
def test_mlflow_reads_the_same_pixels(request_: dict[str, Any]) -> None:
    """By the signature with which odn registers a model: pixels as one tensor without a name."""
    from mlflow.models import ModelSignature
    from mlflow.models.utils import _enforce_tensor_schema
    from mlflow.pyfunc.scoring_server import infer_and_parse_data
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 1, 2, 2))]))
    parsed = infer_and_parse_data(request_, signature.inputs)
    theirs = np.asarray(_enforce_tensor_schema(parsed, signature.inputs))
    image = ImageShape(channels=1, height=2, width=2)
    ours = read_invocation(json.dumps(request_).encode(), content_type="application/json", image=image)
    assert np.array_equal(ours, theirs)
    assert np.array_equal(ours, PIXELS)
