"""The pipeline on Kubeflow: the compiled YAML, run step by step, gives what DVC gives, byte for byte."""

import shutil
import subprocess
from pathlib import Path

import pytest

from engines.conftest import Clone, files_of, make_clone, require_same_bytes, run_compiled, write_digits
from odn.data.dataset import read_manifest

CASES = {  # mode, target, epochs, number of rungs or depths, which is kept
    "exhausted": ("grid", 0.999, 1, 2, None),
    "in the middle": ("climb", 0.61, 6, 3, "2"),
    "all depths in one training": ("supernet", 0.3, 2, 3, "3"),
}


@pytest.fixture(scope="module")
def on_dvc(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Make a clone whose `odn` is quick."""
    clone = make_clone(tmp_path_factory.mktemp("dvc"))
    path = f"{programs}:{clone.variables()['PATH']}"
    return Clone(clone.folder, {"PATH": path})


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_dvc_and_kubeflow_give_the_same_bytes(
    case: str, on_dvc: Clone, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepared data, every depth, every verdict, the model, the exported files, the metrics and the tables, however the search ends."""
    mode, target, epochs, last, kept = CASES[case]
    on_dvc.change("search", mode=mode, target=target, schedule={str(number): {"after": number - 1} for number in range(1, last + 1)})
    on_dvc.change("climb", epochs=epochs)
    on_dvc.change("supernet", epochs=epochs)
    formats = ["onnx", "onnx-int8", "torch"] if case == "in the middle" else []  # once: exporting takes longer than all the rest
    on_dvc.change("export", formats=formats, max_drop=1.0)
    on_dvc.repro("evaluate", "export")
    (tmp_path / "params.yaml").write_bytes((on_dvc.folder / "params.yaml").read_bytes())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    artifacts = run_compiled(tmp_path, python=programs / "python", monkeypatch=monkeypatch)

    require_same_bytes(on_dvc, artifacts)
    assert not files_of(tmp_path / "run/run/progress/searches")  # checkpoints of what has ended
    unit = "depth" if mode == "supernet" else "rung"
    ending = f"target {target:.2%} reached at {unit} {kept}" if kept else "exhausted: no rung reaches the target 99.90%; rung "
    log = (tmp_path / "run/log.txt").read_text()
    assert f"odn table: {ending}" in log
    assert f"; kept: {on_dvc.read('metrics/evaluation.json')['size_bytes']:,} bytes, " in log
    (table,) = (tmp_path / "run/run").glob("*/export*/table")
    assert ("| model.onnx | " in table.read_text()) == bool(formats)
    assert not formats or {"model.onnx", "model.int8.onnx", "model.pt2"} < set(files_of(artifacts["exported"]))
    assert on_dvc.read(f"work/checks/{kept or last}/verdict.json")["verdict"] == ("target_reached" if kept else "exhausted")


@pytest.mark.slow
def test_arguments_of_a_run_take_the_place_of_the_settings(
    programs: Path, on_dvc: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A target given to the run, not compiled in, decides; so does a repository, whose DVC-versioned data is what is trained on."""
    (tmp_path / "params.yaml").write_bytes((on_dvc.folder / "params.yaml").read_bytes())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("KFP_TOKEN", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, f"topsecret-{name}")
    photos = Clone(tmp_path / "photos", on_dvc.environment)
    write_digits(tmp_path / "images", n=200)
    subprocess.run(["git", "clone", "--quiet", str(on_dvc.folder), str(photos.folder)], check=True)
    photos.change("data", source="folder", root=str(tmp_path / "images"))
    photos.repro("prepare")
    photos.commit("Other images")
    shutil.rmtree(tmp_path / "images")
    given = ("target=0.15", "seed=3", "data_source=folder", "data_root=gone", f"data_repository={photos.folder}")
    artifacts = run_compiled(tmp_path, *given, python=programs / "python", monkeypatch=monkeypatch)
    out = capsys.readouterr()
    shown = out.out
    assert "topsecret" not in shown + out.err + (tmp_path / "run/log.txt").read_text() + (tmp_path / "pipeline.yaml").read_text()
    assert "reaches the target 15.00%" in " ".join(shown.split())
    assert "version 1, candidate and champion" in " ".join(shown.split())
    table = max((tmp_path / "run/run").glob("*/check*/table"))
    assert "# Depths against the target 15.00%" in table.read_text()
    commit = photos.run("git", "rev-parse", "HEAD").stdout.strip()
    (configured,) = (tmp_path / "run/run").glob("*/configure/executor_output.json")
    assert commit in configured.read_text()
    assert read_manifest(artifacts["dataset"] / "dataset.json").source == "folder"


@pytest.mark.slow
def test_missing_data_fails_its_step_in_plain_words(
    programs: Path, on_dvc: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained, the exit code is 1, and the line says what is missing."""
    (tmp_path / "params.yaml").write_bytes((on_dvc.folder / "params.yaml").read_bytes())
    with pytest.raises(AssertionError):
        run_compiled(tmp_path, "data_source=folder", "data_root=gone", python=programs / "python", monkeypatch=monkeypatch)
    out = capsys.readouterr()
    assert "odn: " in out.out
    assert "gone" in out.out
    assert "the run failed" in out.err
    assert not list((tmp_path / "run/run").glob("*/train*"))
