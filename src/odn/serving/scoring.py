"""MLflow's scoring protocol: what `mlflow models serve` answers for the registered model is answered here, and image files beside it.

Source: MLflow, "Deploy MLflow Model as a Local Inference Server"; mlflow.pyfunc.scoring_server.
N images, C channels, H height, W width; K classes.
"""

import json
from typing import Any

from odn.data.dataset import Images
from odn.errors import RequestError
from odn.serving.model import INPUT, Answers, ImageShape
from odn.serving.tensors import from_base64, from_files, from_numbers

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
JSON, IMAGE = "application/json", "image/"
NOT_THIS_TYPE = 415


def read_invocation(body: bytes, *, content_type: str, image: ImageShape) -> Images:
    """Return the images (N, C, H, W) of a request to /invocations.

    Raises:
        RequestError: it is not of the protocol, or its images are not of the model.
    """
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if kind.startswith(IMAGE) or kind == "application/octet-stream":
        return from_files([body], image=image)
    if kind != JSON:
        raise RequestError(f"expected the content type {JSON}, or image/png and its like; got {content_type!r:.80}", status=NOT_THIS_TYPE)
    if parameters.strip() and parameters.strip().lower() not in ("charset=utf-8", 'charset="utf-8"'):
        raise RequestError(f"expected {JSON} in UTF-8; got {content_type!r:.80}", status=NOT_THIS_TYPE)
    content = read_json(body)
    forms = [form for form in FORMS if form in content]
    if len(forms) != 1:
        raise RequestError(f"expected one of {', '.join(FORMS)}; got {', '.join(map(repr, list(content)[:4])) or 'nothing'}")
    if unknown := set(content) - {*FORMS, "params"}:
        raise RequestError(f"unknown field {min(unknown)!r:.80}; expected {forms[0]} alone")
    return _images(_values(content[forms[0]], form=forms[0]), image=image)


def read_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request.

    Raises:
        RequestError: it is none.
    """
    try:
        content = json.loads(body)
    except ValueError as error:  # bytes that are no UTF-8 too
        raise RequestError(f"the request is not valid JSON: {error!s:.120}") from None
    except RecursionError:
        raise RequestError("the request is not valid JSON: lists within lists without end") from None
    if not isinstance(content, dict):
        raise RequestError(f"expected a JSON object; got {type(content).__name__}")
    return content


def write_invocation(answers: Answers) -> bytes:
    """Return the probabilities (N, K) as MLflow answers them."""
    return json.dumps({"predictions": answers.probabilities.tolist()}).encode()


def write_refusal(error: RequestError) -> bytes:
    """Return a refusal as MLflow words it."""
    return json.dumps({"error_code": "BAD_REQUEST", "message": str(error)}).encode()


def _values(value: Any, *, form: str) -> list[Any]:
    """Return what each form holds of each image, in order."""
    if form == "dataframe_split":
        return _column_of_split(value)
    if form == "inputs" and isinstance(value, dict):
        value = _only(value, form=form)
    if not isinstance(value, list):
        raise RequestError(f"{form}: expected a list, an item an image; got {type(value).__name__}")
    if value and all(isinstance(row, dict) for row in value):
        return [_only(row, form=form) for row in value]
    if form == "dataframe_records":
        raise RequestError(f"{form}: expected a list of objects with one column, such as {{{INPUT!r}: [...]}}")
    return value


def _column_of_split(value: Any) -> list[Any]:
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise RequestError("dataframe_split: expected an object with 'columns' and 'data', a list of rows")
    rows = value["data"]
    if not all(isinstance(row, list) and len(row) == 1 for row in rows):
        raise RequestError("dataframe_split: expected one column, which holds an image in each row: a list of its pixels, or base64 text")
    return [row[0] for row in rows]


def _only(row: dict[str, Any], *, form: str) -> Any:
    if len(row) != 1:
        raise RequestError(f"{form}: expected one column, such as {INPUT!r}; got {len(row)}")
    return next(iter(row.values()))


def _images(values: list[Any], *, image: ImageShape) -> Images:
    if values and all(isinstance(value, str) for value in values):
        return from_base64(values, image=image)
    return from_numbers(values, image=image, flat=True)
