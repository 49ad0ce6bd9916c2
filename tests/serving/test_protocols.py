"""What `odn serve` answers: both protocols as they are published, and a sentence where a request is none of theirs."""

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serving.onnx_files import CLASSES, expected
from serving.running import Running

INFER = "/v2/models/odn/infer"
ENDLESS = "9" * 5000
DEEP = b"[" * 100_000
JSON = {"content-type": "application/json"}


def tensor(images: np.ndarray, **changed: Any) -> dict[str, Any]:
    """Return an input of the Open Inference Protocol."""
    return {"name": "images", "shape": list(images.shape), "datatype": "UINT8", "data": images.ravel().tolist(), **changed}


@pytest.mark.parametrize(
    "path", ["/ping", "/health", "/version", "/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models/odn/ready"]
)
def test_the_server_says_that_it_lives(server: Running, path: str) -> None:
    """Each path that a load balancer, MLflow's client or Kubernetes asks answers 200."""
    assert server.ask(path)[0] == 200


def test_metadata_is_of_the_published_form(server: Running) -> None:
    """Names, types and shapes stand as metadata_server_response and metadata_model_response demand; classes and digest beside them."""
    assert server.json("/v2").keys() == {"name", "version", "extensions"}
    found = server.json("/v2/models/odn")
    assert found["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}]
    assert found["outputs"] == [{"name": name, "datatype": "FP32", "shape": [-1, 3]} for name in ("logits", "probabilities")]
    assert found["platform"] == "onnxruntime_onnx"
    assert (found["name"], found["parameters"]["classes"]) == ("odn", list(CLASSES))
    assert server.json(f"/v2/models/odn/versions/{found['versions'][0]}") == found


@pytest.mark.parametrize("form", ["nested", "flat", "named", "rows", "records", "split", "split flat", "base64", "base64 rows"])
def test_mlflows_forms_give_probabilities(server: Running, images: np.ndarray, png: Callable[[np.ndarray], bytes], form: str) -> None:
    """Tensors and data frames, as numbers or as image files, in the forms of MLflow's scoring protocol."""
    nested, flat = images.tolist(), images.reshape(5, -1).tolist()
    files = [base64.b64encode(png(one)).decode() for one in images]
    request = {
        "nested": {"inputs": nested},
        "flat": {"instances": flat},
        "named": {"inputs": {"images": nested}},
        "rows": {"instances": [{"images": one} for one in nested], "params": {}},
        "records": {"dataframe_records": [{"images": one} for one in flat]},
        "split": {"dataframe_split": {"columns": ["images"], "data": [[one] for one in nested]}},
        "split flat": {"dataframe_split": {"columns": ["images"], "index": [0, 1, 2, 3, 4], "data": [[one] for one in flat]}},
        "base64": {"instances": files},
        "base64 rows": {"dataframe_split": {"columns": ["images"], "data": [[one] for one in files]}},
    }[form]
    answered = server.json("/invocations", request)
    assert answered.keys() == {"predictions"}
    assert np.abs(np.array(answered["predictions"]) - expected(images)).max() < 1e-6  # float32


def test_an_image_file_is_a_request_of_its_own(server: Running, images: np.ndarray, png: Callable[[np.ndarray], bytes]) -> None:
    """`curl --data-binary @image.png` needs no JSON."""
    status, _, body = server.ask("/invocations", png(images[0]), headers={"content-type": "image/png"})
    assert status == 200
    assert np.abs(np.array(json.loads(body)["predictions"]) - expected(images[:1])).max() < 1e-6  # float32


@pytest.mark.parametrize("nested", [False, True])
def test_open_inference_answers_in_json(server: Running, images: np.ndarray, nested: bool) -> None:
    """Every field of inference_response is there, and the request's id comes back."""
    data = images.tolist() if nested else images.ravel().tolist()
    found = server.json(INFER, {"id": "7", "inputs": [tensor(images, data=data)], "outputs": [{"name": "probabilities"}]})
    (output,) = found["outputs"]
    assert (found["model_name"], found["id"]) == ("odn", "7")
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [5, 3])
    assert np.abs(np.array(output["data"]).reshape(5, 3) - expected(images)).max() < 1e-6  # float32


def test_open_inference_takes_and_gives_bytes(server: Running, images: np.ndarray) -> None:
    """With the extension for binary tensors pixels are sent, and floats come back, as they are; in one answer, also as JSON."""
    size = {"binary_data_size": images.nbytes}
    head = {
        "inputs": [{"name": "images", "shape": list(images.shape), "datatype": "UINT8", "parameters": size}],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "logits"}],
    }
    header = json.dumps(head).encode()
    status, headers, body = server.ask(INFER, header + images.tobytes(), headers={"inference-header-content-length": str(len(header))})
    assert status == 200, body
    length = int(headers["inference-header-content-length"])
    binary, plain = json.loads(body[:length])["outputs"]
    assert binary["parameters"] == {"binary_data_size": len(body) - length}
    found = np.frombuffer(body[length:], "<f4").reshape(binary["shape"])
    assert np.abs(found - expected(images)).max() < 1e-6  # float32
    assert len(plain["data"]) == 15


@pytest.mark.parametrize("binary", [False, True])
def test_open_inference_takes_image_files(server: Running, images: np.ndarray, png: Callable[[np.ndarray], bytes], binary: bool) -> None:
    """A tensor of BYTES holds a file an image: base64 in JSON, or each behind its length."""
    files = [png(one) for one in images]
    one: dict[str, Any] = {"name": "images", "shape": [5], "datatype": "BYTES"}
    behind = b"".join(struct.pack("<I", len(file)) + file for file in files) if binary else b""
    one |= {"parameters": {"binary_data_size": len(behind)}} if binary else {"data": [base64.b64encode(file).decode() for file in files]}
    header = json.dumps({"inputs": [one], "outputs": [{"name": "probabilities"}]}).encode()
    status, _, body = server.ask(INFER, header + behind, headers={"inference-header-content-length": str(len(header))})
    assert status == 200, body
    found = np.array(json.loads(body)["outputs"][0]["data"]).reshape(5, 3)
    assert np.abs(found - expected(images)).max() < 1e-6  # float32


@pytest.mark.parametrize(
    ("body", "headers", "status", "fault"),
    [
        (b"", JSON, 400, "not valid JSON"),
        (b"\xff\xfe", JSON, 400, "not valid JSON"),
        (DEEP, JSON, 400, "not valid JSON"),
        (b"[1]", JSON, 400, "expected a JSON object; got list"),
        (b"{}", JSON, 400, "expected one of dataframe_split"),
        (b'{"inputs": [], "instances": []}', JSON, 400, "expected one of dataframe_split"),
        (b'{"inputs": [], "more": 1}', JSON, 400, "unknown field 'more'"),
        (b'{"inputs": []}', JSON, 400, "there is no image"),
        (b'{"inputs": {}}', JSON, 400, "expected one column"),
        (b'{"inputs": 5}', JSON, 400, "expected a list, an item an image"),
        (b'{"inputs": [[1, 2], [3]]}', JSON, 400, "lists of unequal lengths"),
        (b'{"inputs": [[1, 2]]}', JSON, 400, "got [1, 2]"),
        (b'{"inputs": [true]}', JSON, 400, "got true and false"),
        (b'{"inputs": [{"a": 1}, 5]}', JSON, 400, "got a mixture"),
        (f'{{"inputs": [{ENDLESS}]}}'.encode(), JSON, 400, "not valid JSON"),
        (b'{"inputs": ["bm90IGFuIGltYWdl"]}', JSON, 400, "image 0 is not an image"),
        (b'{"inputs": ["%%%"]}', JSON, 400, "image 0: expected an image file as base64"),
        (b'{"inputs": ["\\u00e9"]}', JSON, 400, "image 0: expected an image file as base64"),
        (b'{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}', JSON, 400, "expected one column"),
        (b'{"dataframe_split": []}', JSON, 400, "expected an object with 'columns' and 'data'"),
        (b'{"dataframe_records": [1]}', JSON, 400, "expected a list of objects"),
        (b"not an image", {"content-type": "image/png"}, 400, "image 0 is not an image"),
        (b"a,b\n1,2\n", {"content-type": "text/csv"}, 415, "expected the content type application/json"),
        (b"{}", {"content-type": "application/json; charset=latin-1"}, 415, "in UTF-8"),
        (b"{}", {}, 415, "expected the content type"),
    ],
)
def test_a_bad_invocation_gets_a_sentence(server: Running, body: bytes, headers: dict[str, str], status: int, fault: str) -> None:
    """In the words that MLflow's clients read, with a status of 4xx and no traceback."""
    found, _, said = server.ask("/invocations", body, headers=headers)
    assert found == status, said
    assert fault in json.loads(said)["message"]
    assert server.said() == ""


@pytest.mark.parametrize("value", ["12.5", "-1", "256", "NaN", "Infinity", "1e300", "9" * 30])
def test_a_pixel_is_a_whole_number_from_0_to_255(server: Running, value: str) -> None:
    """Anything else is refused, not rounded or wrapped around."""
    body = f'{{"inputs": [[[{"[" + ", ".join([value] * 8) + "]"}{", [0, 0, 0, 0, 0, 0, 0, 0]" * 7}]]]}}'
    status, _, said = server.ask("/invocations", body.encode(), headers=JSON)
    assert (status, "whole numbers from 0 to 255" in json.loads(said)["message"]) == (400, True), said


ZEROS = np.zeros((1, 1, 8, 8), np.uint8)
PARAMETERS = {"parameters": {"binary_data_size": 64}}


@pytest.mark.parametrize(
    ("request_", "behind", "fault"),
    [
        ({}, b"", "expected a list of one tensor"),
        ({"inputs": [tensor(ZEROS), tensor(ZEROS)]}, b"", "expected a list of one tensor"),
        ({"inputs": [tensor(ZEROS, name="x")]}, b"", "whose name is 'images'"),
        ({"inputs": [tensor(ZEROS, shape="all")]}, b"", "expected a list of whole numbers"),
        ({"inputs": [tensor(ZEROS, shape=[1, 64])]}, b"", "expected [N, 1, 8, 8]; got [1, 64]"),
        ({"inputs": [tensor(ZEROS, shape=[2, 1, 8, 8])]}, b"", "got 64 numbers, and its shape [2, 1, 8, 8] holds 128"),
        ({"inputs": [tensor(ZEROS, data=[[1], [1, 2]])]}, b"", "lists of unequal lengths"),
        ({"inputs": [tensor(ZEROS, data=[[0] * 64])]}, b"", "got [1, 64], and its shape is said to be"),
        ({"inputs": [tensor(ZEROS, data="x")]}, b"", "expected a list, or binary data"),
        ({"inputs": [tensor(ZEROS, data=["x"] * 64)]}, b"", "got text"),
        ({"inputs": [tensor(ZEROS[:0])]}, b"", "there is no image"),
        ({"inputs": [tensor(ZEROS, shape=[5000, 1, 8, 8])]}, b"", "5,000 images are too many"),
        ({"inputs": [tensor(ZEROS, datatype="FP32")]}, b"", "expected UINT8, or BYTES"),
        ({"inputs": [tensor(ZEROS, datatype="BYTES", shape=[3], data=["eA=="])]}, b"", "expected [1], as many as there are image files"),
        ({"inputs": [tensor(ZEROS)]}, b"xyz", "3 bytes follow the JSON"),
        ({"inputs": [tensor(ZEROS, **PARAMETERS)]}, bytes(64), "send those and no 'data'"),
        ({"inputs": [{"name": "images", "shape": [1, 1, 8, 8], "datatype": "UINT8", **PARAMETERS}]}, b"x", "1 bytes follow the JSON"),
        ({"inputs": [{"name": "images", "shape": [2, 1, 8, 8], "datatype": "UINT8", **PARAMETERS}]}, bytes(64), "got 64 bytes"),
        ({"inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", **PARAMETERS}]}, b"\xff" * 64, "longer than what is left"),
        ({"inputs": [tensor(ZEROS)], "id": 5}, b"", "id: expected text"),
        ({"inputs": [tensor(ZEROS)], "parameters": []}, b"", "parameters: expected an object"),
        ({"inputs": [tensor(ZEROS)], "parameters": {"binary_data_output": 1}}, b"", "expected true or false"),
        ({"inputs": [tensor(ZEROS)], "outputs": [{"name": "x"}]}, b"", "expected logits and probabilities; got 'x'"),
        ({"inputs": [tensor(ZEROS)], "outputs": 5}, b"", "expected a list of objects"),
        (
            {"inputs": [tensor(ZEROS)], "outputs": [{"name": "logits", "parameters": {"classification": 2}}]},
            b"",
            "the parameter 'classification' is not known",
        ),
    ],
)
def test_a_bad_inference_gets_a_sentence(server: Running, request_: dict[str, Any], behind: bytes, fault: str) -> None:
    """As inference_error_response, with a status of 4xx and no traceback."""
    header = json.dumps(request_).encode()
    status, _, said = server.ask(INFER, header + behind, headers={"inference-header-content-length": str(len(header))})
    assert status in (400, 413), said
    assert fault in json.loads(said)["error"]
    assert server.said() == ""


@pytest.mark.parametrize(
    ("path", "headers", "status", "fault"),
    [
        ("/v2/models/other/infer", {}, 404, "there is no such model; here is odn"),
        ("/v2/models/odn/versions/0/infer", {}, 404, "there is no such model"),
        (INFER, {"content-encoding": "gzip"}, 415, "compressed requests are not read"),
        (INFER, {"inference-header-content-length": "99"}, 400, "expected a number of at most"),
        (INFER, {"inference-header-content-length": "-1"}, 400, "expected a number of at most"),
        ("/v2/nothing", {}, 404, "POST /v2/nothing is not answered here"),
        ("/v2/models/odn", {}, 405, "POST /v2/models/odn is not answered here"),
    ],
)
def test_a_wrong_path_or_header_gets_a_sentence(server: Running, path: str, headers: dict[str, str], status: int, fault: str) -> None:
    """What is asked for in the wrong place is told what there is."""
    found, _, said = server.ask(path, b"{}", headers=headers)
    assert (found, fault in json.loads(said)["error"]) == (status, True), said


def test_a_request_that_is_too_large_is_refused(server: Running) -> None:
    """Its client reads why, and the server goes on."""
    status, _, said = server.ask("/invocations", bytes(17 * 2**20), headers={"content-type": "image/png"})
    assert (status, "larger than 16,777,216 bytes" in json.loads(said)["message"]) == (413, True)
    assert server.ask("/ping")[0] == 200


def test_too_many_images_are_refused(server: Running) -> None:
    """A request that others would have to wait for is to be split."""
    many = np.zeros((1025, 1, 8, 8), np.uint8)
    status, _, said = server.ask("/invocations", {"inputs": many.tolist()}, headers={})
    assert (status, "send at most 1,024 at a time" in json.loads(said)["message"]) == (413, True)


def test_more_images_than_a_pass_holds_are_answered_in_order(server: Running) -> None:
    """They are computed a part at a time."""
    many = np.random.default_rng(2).integers(0, 256, (150, 1, 8, 8)).astype(np.uint8)
    found = server.json("/invocations", {"inputs": many.tolist()})["predictions"]
    assert np.abs(np.array(found) - expected(many)).max() < 1e-6  # float32
