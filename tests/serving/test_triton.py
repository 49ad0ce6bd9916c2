"""`odn triton` writes what Triton reads: folders by name, a configuration of its schema, and the labels."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from odn.cli import main
from serving.onnx_files import CLASSES, onnx_file

# Those fields of triton-inference-server/common, protobuf/model_config.proto, that are written here: number, type, and whether repeated.
FIELD = descriptor_pb2.FieldDescriptorProto
STRING, INTEGER, LONG, MESSAGE, ENUM = FIELD.TYPE_STRING, FIELD.TYPE_INT32, FIELD.TYPE_INT64, FIELD.TYPE_MESSAGE, FIELD.TYPE_ENUM
TENSOR: dict[str, tuple[Any, ...]] = {"name": (1, STRING), "data_type": (2, ENUM, ".Kind")}
SCHEMA: dict[str, dict[str, tuple[Any, ...]]] = {
    "ModelInput": {**TENSOR, "dims": (4, LONG, "", True)},
    "ModelOutput": {**TENSOR, "dims": (3, LONG, "", True), "label_filename": (4, STRING)},
    "Batching": {},
    "ModelConfig": {
        "name": (1, STRING),
        "backend": (17, STRING),
        "max_batch_size": (4, INTEGER),
        "input": (5, MESSAGE, ".ModelInput", True),
        "output": (6, MESSAGE, ".ModelOutput", True),
        "dynamic_batching": (11, MESSAGE, ".Batching"),
    },
}
KINDS = {"TYPE_INVALID": 0, "TYPE_UINT8": 2, "TYPE_FP32": 11}


def parsed(text: str) -> Any:
    """Read a configuration as protobuf does: an unknown field or value is an error."""
    file = descriptor_pb2.FileDescriptorProto(name="triton.proto", syntax="proto3")
    kinds = file.enum_type.add(name="Kind")
    for kind, number in KINDS.items():
        kinds.value.add(name=kind, number=number)
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, type_, of, repeated) in (
            (key, (*value, "", False)[:4] if len(value) < 4 else value) for key, value in fields.items()
        ):
            label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=type_, label=label, type_name=of or None)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return text_format.Parse(text, message_factory.GetMessageClass(pool.FindMessageTypeByName("ModelConfig"))())


def test_a_repository_is_what_triton_reads(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NAME/1/model.onnx holds the very file; the configuration names its tensors without the batch; a label stands in each line."""
    assert main(["triton", "repository", "--name", "digits"]) == 0
    assert "tritonserver --model-repository=repository" in capsys.readouterr().out
    made = project / "repository/digits"
    assert (made / "1/model.onnx").read_bytes() == onnx_file()
    config = parsed((made / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.max_batch_size) == ("digits", "onnxruntime", 64)
    assert [(one.name, one.data_type, list(one.dims)) for one in config.input] == [("images", 2, [1, 8, 8])]
    assert [(one.name, one.data_type, list(one.dims)) for one in config.output] == [("logits", 11, [3]), ("probabilities", 11, [3])]
    assert config.HasField("dynamic_batching")
    assert (made / config.output[1].label_filename).read_text().splitlines() == list(CLASSES)


def test_a_repository_is_written_again_and_others_stay(project: Path) -> None:
    """A newer model takes the place of the older; what else is in the repository is left alone."""
    (project / "repository/other").mkdir(parents=True)
    assert main(["triton", "repository"]) == 0
    (project / "export/model.onnx").write_bytes(onnx_file(seed=1))
    assert main(["triton", "repository"]) == 0
    assert (project / "repository/odn/1/model.onnx").read_bytes() == onnx_file(seed=1)
    assert (project / "repository/other").is_dir()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["repository", "--name", "../up"], "is no name for a model of Triton"),
        (["foreign"], "holds what odn did not write"),
        (["repository", "--model", "model"], "there is no model at model"),
    ],
)
def test_what_cannot_be_written_is_refused(project: Path, arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In a line, and nothing is left half done."""
    (project / "foreign/odn").mkdir(parents=True)
    (project / "foreign/odn/mine").write_text("mine")
    assert main(["triton", *arguments]) == 2
    assert fault in capsys.readouterr().err
    assert sorted(path.name for path in project.iterdir()) == ["export", "foreign", "pictures"]
