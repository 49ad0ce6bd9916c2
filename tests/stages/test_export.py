"""The stage `export` and what is told of it: files, numbers that repeat, times that are kept, a table wherever results are shown."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from laws.search_data import small_config
from laws.stage_runs import Stages, read
from odn.config import Config, changed
from odn.errors import DataError, MissingInputError
from odn.files import sha256_of
from odn.report.exports import BUSY
from odn.stages import export, report
from odn.tables import export_table

FILES = ("export/export.json", "export/model.onnx", "export/model.int8.onnx", "metrics/export.json")
SEARCH: dict[str, Any] = {"search": {"mode": "climb", "ladder": "prefix", "schedule": [2], "target": 0.3}, "climb": {"epochs": 6}}


@pytest.fixture(scope="module")
def done(quick_exports: None, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Give a small search with its model exported."""
    stages = Stages(small_config(**SEARCH, export={"max_drop": 0.05}), tmp_path_factory.mktemp("exported"))
    stages.search()
    stages.truncate()
    stages.evaluate()
    stages.export()
    return stages


@pytest.fixture
def copied(done: Stages, tmp_path: Path) -> Path:
    """Give a copy of its folder, to be changed at will."""
    shutil.copytree(done.folder, tmp_path / "search")
    return tmp_path / "search"


def exported(folder: Path, config: Config) -> None:
    """Run the stage in a folder."""
    places = {"exported": folder / "export", "metrics": folder / "metrics/export.json", "latency": folder / "metrics/export_latency.json"}
    export.run(config, prepared=folder / "work/prepared", model=folder / "model", **places)


def shown(folder: Path, config: Config) -> str:
    """Run `odn show` in a folder."""
    from odn.commands import show

    paths = {name: folder / name for name in ("model", "metrics", "report")}
    summary = show.run(
        config, **paths, exported=folder / "export", registered_weights=folder / "none.json", registration=folder / "none.json"
    )
    return summary.describe()


def test_each_file_is_certified_beside_the_network(done: Stages) -> None:
    """The network has the accuracy that `evaluate` found; files and digests are those of the record; the numbers are those of it too."""
    record, numbers = read(done.folder / "export/export.json"), read(done.folder / "metrics/export.json")
    evaluation = read(done.folder / "metrics/evaluation.json")
    assert record["network"] == {
        "accuracy": evaluation["test_accuracy"],
        "low": evaluation["test_accuracy_low"],
        "high": evaluation["test_accuracy_high"],
        "n": evaluation["n_test"],
    }
    assert record["model_sha256"] == sha256_of(done.folder / "model/weights.safetensors")
    assert [(one["file"], sha256_of(done.folder / "export" / one["file"])) for one in record["artifacts"]] == [
        (one["file"], one["sha256"]) for one in record["artifacts"]
    ]
    assert list(numbers) == ["network", "onnx", "onnx-int8"]
    assert numbers["onnx"]["test_accuracy"] == record["artifacts"][0]["accuracy"] == evaluation["test_accuracy"]
    assert numbers["onnx-int8"]["bytes"] < numbers["onnx"]["bytes"]


def test_a_second_run_changes_no_byte_and_times_that_are_known_are_kept(done: Stages, copied: Path) -> None:
    """Files, record and numbers repeat; what was timed while the machine was quiet stays as it is."""
    before = {name: (copied / name).read_bytes() for name in FILES}
    latency = copied / "metrics/export_latency.json"
    known = {**read(latency), "busy": False, "passes": 7}
    latency.write_text(json.dumps(known))
    exported(copied, done.config)
    assert {name: (copied / name).read_bytes() for name in FILES} == before
    assert read(latency) == known


def test_other_files_are_timed_anew(done: Stages, copied: Path) -> None:
    """A record of times names the files that it is of, with the network itself."""
    config = changed(done.config, {"export.formats": ["torch"]})
    exported(copied, config)
    latency = read(copied / "metrics/export_latency.json")
    assert list(latency["speeds"]) == list(latency["files"]) == ["network", "torch"]
    assert sorted(path.name for path in (copied / "export").iterdir() if path.name[0] != ".") == ["export.json", "model.pt2"]
    assert "torch's own file" not in shown(copied, config)
    assert "model.pt2" in shown(copied, config)


def test_the_table_stands_in_the_terminal_the_page_and_the_steps_markdown(done: Stages) -> None:
    """Each file with its bytes, accuracy, interval, p, times and memory; what 8 bits bought is said."""
    folder, record = done.folder, read(done.folder / "export/export.json")
    report.run(
        done.config,
        prepared=done.prepared,
        evaluation=done.work / "evaluation",
        exported=folder / "export",
        out=folder / "report",
        **{name: folder / name for name in ("model", "metrics", "plots")},
    )
    digest = sha256_of(folder / "model/weights.safetensors")
    page = (folder / "report/report.html").read_text()
    markdown = export_table(folder / "export", latency=folder / "metrics/export_latency.json", weights_sha256=digest)
    for text in (shown(folder, done.config), page, markdown):
        for one in record["artifacts"]:
            assert one["file"] in text
            assert f"{one['bytes']:,}" in text
            assert f"{one['accuracy']:.2%}" in text
        assert "8 bits take" in text
        assert "torch, float32" in text
    assert (folder / "report/exports.png").stat().st_size > 5_000
    assert "Which file goes onto a device?" in page
    assert "Accuracy on test by bytes and by milliseconds. torch, float32: " in page


def test_what_is_refused_is_said(done: Stages, copied: Path) -> None:
    """A file of 8 bits that loses too much is not there; why stands in the summary."""
    record, latency = read(copied / "export/export.json"), read(copied / "metrics/export_latency.json")
    reason = "8 bits cost too much: 90.00% on val; most to blame: stem.conv"
    refused = {"artifacts": record["artifacts"][:1], "refused": [{"format": "onnx-int8", "reason": reason}]}
    (copied / "export/export.json").write_text(json.dumps(record | refused))
    left = {name: {key: latency[name][key] for key in ("network", "onnx")} for name in ("files", "speeds")}
    (copied / "metrics/export_latency.json").write_text(json.dumps(latency | left))
    assert f"ONNX, 8 bits is not there: {reason}." in " ".join(shown(copied, done.config).split())


def test_no_format_leaves_a_record_and_no_table(done: Stages, copied: Path) -> None:
    """`export.formats: []` is allowed."""
    config = changed(done.config, {"export.formats": []})
    exported(copied, config)
    assert read(copied / "export/export.json")["artifacts"] == []
    assert "Export" not in shown(copied, config)


def test_a_busy_machine_is_told(done: Stages, copied: Path) -> None:
    """As for `evaluate`."""
    latency = copied / "metrics/export_latency.json"
    latency.write_text(json.dumps({**read(latency), "busy": True}))
    assert BUSY in " ".join(shown(copied, done.config).split())
    latency.write_text(json.dumps({**read(latency), "busy": False}))
    assert BUSY not in " ".join(shown(copied, done.config).split())


def test_files_of_another_model_are_refused(done: Stages, copied: Path) -> None:
    """They are not shown as if they were of this one, nor are times of other files."""
    record = read(copied / "export/export.json")
    (copied / "export/export.json").write_text(json.dumps({**record, "model_sha256": "0" * 64}))
    with pytest.raises(MissingInputError, match="holds another model than the one that is kept; run 'dvc repro export' first"):
        shown(copied, done.config)
    (copied / "export/export.json").write_text(json.dumps(record))
    latency = read(copied / "metrics/export_latency.json")
    latency["files"]["onnx"] = "0" * 64
    (copied / "metrics/export_latency.json").write_text(json.dumps(latency))
    with pytest.raises(MissingInputError, match="is of other files than those in"):
        shown(copied, done.config)


def test_missing_or_damaged_inputs_are_named(done: Stages, copied: Path) -> None:
    """The model first, then each split."""
    images = copied / "work/prepared/train/images.npy"
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)
    with pytest.raises(DataError, match="train is not what was prepared"):
        exported(copied, done.config)
    (copied / "model/weights.safetensors").unlink()
    with pytest.raises(MissingInputError, match="weights.safetensors is missing"):
        exported(copied, done.config)
