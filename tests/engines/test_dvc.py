"""The pipeline on DVC: it does what changed, no more, and what is killed goes on.

These tests build on each other, in the order in which they stand: a person uses the same clone again and again, too.
"""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from engines.conftest import Clone, make_clone
from odn.files import sha256_of

TRAINED = "work/depths/{}/weights.safetensors"


def weights(clone: Clone, name: str = "model/weights.safetensors") -> str:
    """Return the digest of a file of weights."""
    return sha256_of(clone.folder / name)


def test_the_first_repro_runs_everything(clone: Clone) -> None:
    """From nothing to a registered model, and depth 2 after the search has ended is a marker."""
    ran = clone.repro()
    assert ran == [
        "code",
        "fetch",
        "prepare",
        "open",
        "settings",
        "train@1",
        "check@1",
        "train@2",
        "check@2",
        "truncate",
        "evaluate",
        "export",
        "report",
        "register",
    ]
    assert clone.read("metrics/search.json")["depth"] == 1
    assert clone.read("work/depths/2/metrics.json") == {"depth": 2, "skipped": True}
    assert clone.read(".odn/registration.json")["aliases"] == ["candidate", "champion"]


@pytest.mark.parametrize(
    ("name", "ran"),
    [
        ("routing/policies.py", []),
        ("tracking/replay.py", ["register"]),
        ("errors.py", ["report", "register"]),
    ],
)
def test_a_change_that_changes_no_result_trains_nothing(clone: Clone, name: str, ran: list[str]) -> None:
    """`dvc status` names the digests alone, and behind them at most what tells of the search runs again.

    The next case takes the change back, too: more runs there, never less.
    """
    path = clone.folder / "src/odn" / name
    text = path.read_text()
    path.write_text(f"{text}\n\nTOUCHED = True\n")
    status = clone.run("dvc", "status").stdout
    assert [line for line in status.splitlines() if line and not line[0].isspace()] == ["code:"]
    done = clone.repro()
    path.write_text(text)
    assert done[0] == "code"
    assert set(done[1:]) <= set(ran)  # a report of the same bytes is not registered again


def test_a_second_repro_does_nothing(clone: Clone) -> None:
    """What has not changed is not done again."""
    clone.repro()
    assert clone.repro() == []


def test_show_tells_what_was_found(clone: Clone) -> None:
    """The summary names the depth kept, without torch or mlflow being imported first."""
    shown = clone.run("odn", "show").stdout
    assert "1 of 8" in shown
    assert "target reached" in shown


def test_a_raised_target_trains_only_deeper(clone: Clone) -> None:
    """Depth 1 stays as it was trained; its verdict is made anew, and depth 2 is trained from it."""
    before = weights(clone, TRAINED.format(1))
    clone.change("search", target=0.45)
    ran = clone.repro("evaluate")
    assert "train@1" not in ran
    assert "train@2" in ran
    assert clone.read("metrics/search.json")["depth"] == 2
    assert weights(clone, TRAINED.format(1)) == before


def test_metrics_params_and_plots_are_dvcs(clone: Clone) -> None:
    """`dvc metrics show`, `dvc params diff` and `dvc plots show` find what the stages wrote."""
    assert "val_accuracy" in clone.run("dvc", "metrics", "show").stdout
    assert "search.target" in clone.run("dvc", "params", "diff").stdout
    clone.run("dvc", "plots", "show", "--out", "plots_page")
    assert "vega" in (clone.folder / "plots_page" / "index.html").read_text()


def test_a_lowered_target_retrains_nothing(clone: Clone) -> None:
    """Back to the first target: DVC's run cache has what was trained."""
    clone.change("search", target=0.2)
    done = clone.run("dvc", "repro", "evaluate").stdout
    assert "Running stage 'train" not in done
    assert clone.read("metrics/search.json")["depth"] == 1


def test_killed_in_the_middle_the_next_repro_ends_with_the_same_bytes(clone: Clone, tmp_path: Path) -> None:
    """`kill -9` of the whole process group within the first depth, then `dvc repro`: it goes on, to the weights of a quiet run."""
    killed = Clone(make_clone(tmp_path / "killed").folder, clone.environment)
    progress = killed.folder / ".odn" / "progress" / "train-1"
    running = subprocess.Popen(
        ["dvc", "repro"],
        cwd=killed.folder,
        env=killed.variables(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(progress.glob("*.safetensors")):  # the first epoch is kept
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (killed.folder / "work/depths/1").exists()
    assert "train@1" in killed.repro("truncate")
    assert weights(killed, TRAINED.format(1)) == weights(clone, TRAINED.format(1))
    assert weights(killed) == weights(clone)
    assert not list(progress.glob("*.safetensors"))


def test_data_and_model_go_to_s3_and_come_back(clone: Clone, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `dvc push`, a clone that shares only git pulls the same bytes from the bucket."""
    monkeypatch.delenv("AWS_CONFIG_FILE")  # DVC refuses one that is no regular file
    s3.create_bucket(Bucket="odn-store")
    clone.run("dvc", "remote", "add", "--default", "store", "s3://odn-store/dvc")
    clone.run("dvc", "remote", "modify", "store", "endpointurl", os.environ["AWS_ENDPOINT_URL"])
    clone.run("dvc", "push", "--quiet")
    other = Clone(tmp_path / "other")
    clone.commit("Found")
    subprocess.run(["git", "clone", "--quiet", str(clone.folder), str(other.folder)], check=True)
    other.run("dvc", "pull", "--quiet", "model", "data")
    assert weights(other) == weights(clone)
    assert sha256_of(other.folder / "data" / "SHA256SUMS") == sha256_of(clone.folder / "data" / "SHA256SUMS")


def test_an_experiment_runs_beside(clone: Clone) -> None:
    """`dvc exp run -S` tries a setting, and `dvc exp show` lists it."""
    clone.run("dvc", "exp", "run", "--name", "no-finish", "--set-param", "finish.epochs=0", "evaluate")
    assert "no-finish" in clone.run("dvc", "exp", "show", "--csv").stdout
