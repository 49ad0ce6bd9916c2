"""The pipeline on Kubeflow: the compiled YAML, run step by step, gives what DVC gives, byte for byte."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engines.conftest import Clone, compile_with, files_of, make_clone, write_digits
from odn.data.dataset import read_manifest
from pipelines.__main__ import main
from pipelines.local import last_artifact

CASES = {"at once": (0.2, "1"), "in the middle": (0.45, "2"), "exhausted": (0.999, None)}  # target, depth that is kept
NOT_COMPARED = {"metrics/latency.json"}  # measured, not computed


@pytest.fixture(scope="module")
def on_dvc(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Make a clone whose `odn` is quick, with a schedule of three depths."""
    clone = make_clone(tmp_path_factory.mktemp("dvc"))
    clone.change("search", schedule={"1": {"after": 0}, "2": {"after": 1}, "3": {"after": 2}})
    path = f"{programs}:{clone.variables()['PATH']}"
    return Clone(clone.folder, {"PATH": path})


def run_compiled(folder: Path, *arguments: str, python: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Compile the settings in a folder, and run the YAML there; return where its artifacts are."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "executable", str(python))
    assert compile_with("--image", "odn-python:test", "--out", "pipeline.yaml") == 0
    assert main(["run-local", "--package", "pipeline.yaml", "--out", "run", *arguments]) == 0
    found = {"search": "check", "model": "truncate", "results": "evaluate", "dataset": "prepare", "test": "prepare"}
    return {name: last_artifact(folder / "run/run", name, component) for name, component in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_dvc_and_kubeflow_give_the_same_bytes(
    case: str, on_dvc: Clone, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepared data, every depth, every verdict, the model, the metrics and the tables, however the search ends."""
    target, kept = CASES[case]
    on_dvc.change("search", target=target)
    on_dvc.repro("report")
    (tmp_path / "params.yaml").write_bytes((on_dvc.folder / "params.yaml").read_bytes())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    artifacts = run_compiled(tmp_path, python=programs / "python", monkeypatch=monkeypatch)

    work, results = on_dvc.folder / "work", artifacts["results"]
    search = files_of(artifacts["search"])
    assert search == {f"{kind}/{name}": data for kind in ("depths", "checks", "gates") for name, data in files_of(work / kind).items()}
    assert files_of(artifacts["model"]) == files_of(on_dvc.folder / "model")
    for kind in ("metrics", "plots"):
        ours, theirs = files_of(results / kind), files_of(on_dvc.folder / kind)
        assert {name: ours[name] for name in ours if f"{kind}/{name}" not in NOT_COMPARED} == {
            name: theirs[name] for name in theirs if f"{kind}/{name}" not in NOT_COMPARED
        }
    assert files_of(artifacts["dataset"]) == {
        name: data for name, data in files_of(work / "prepared").items() if not name.startswith("test/")
    }
    verdict = yaml.safe_load(search[f"checks/{kept or 3}/verdict.json"])["verdict"]
    assert verdict == ("target_reached" if kept else "exhausted")


@pytest.mark.slow
def test_arguments_of_a_run_take_the_place_of_the_settings(
    programs: Path, on_dvc: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A target given to the run, not compiled in, decides; so does a repository, whose DVC-versioned data is what is trained on."""
    (tmp_path / "params.yaml").write_bytes((on_dvc.folder / "params.yaml").read_bytes())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    photos = Clone(tmp_path / "photos", on_dvc.environment)
    write_digits(tmp_path / "images")
    subprocess.run(["git", "clone", "--quiet", str(on_dvc.folder), str(photos.folder)], check=True)
    photos.change("data", source="folder", root=str(tmp_path / "images"))
    photos.repro("prepare")
    photos.commit("Other images")
    shutil.rmtree(tmp_path / "images")
    given = ("target=0.15", "seed=3", "data_source=folder", "data_root=gone", f"data_repository={photos.folder}")
    artifacts = run_compiled(tmp_path, *given, python=programs / "python", monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert "reaches the target 15.00%" in " ".join(shown.split())
    assert "version 1, candidate and champion" in " ".join(shown.split())
    table = max((tmp_path / "run/run").glob("*/check*/table"))
    assert "# Depths against the target 15.00%" in table.read_text()
    commit = photos.run("git", "rev-parse", "HEAD").stdout.strip()
    (configured,) = (tmp_path / "run/run").glob("*/configure/executor_output.json")
    assert commit in configured.read_text()
    assert read_manifest(artifacts["dataset"] / "dataset.json").source == "folder"


@pytest.mark.slow
def test_a_refused_setting_fails_the_first_step_in_plain_words(
    programs: Path, on_dvc: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained, the exit code is 1, and the line says which value is wrong."""
    (tmp_path / "params.yaml").write_bytes((on_dvc.folder / "params.yaml").read_bytes())
    with pytest.raises(AssertionError):
        run_compiled(tmp_path, "target=1.5", python=programs / "python", monkeypatch=monkeypatch)
    out = capsys.readouterr()
    assert "odn: search.target" in out.out
    assert "the run failed" in out.err
    assert not list((tmp_path / "run/run").glob("*/prepare*"))
