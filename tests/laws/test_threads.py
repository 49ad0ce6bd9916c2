"""The machine's cores change nothing: the settings that ship give the same bytes on one, two and eight of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from laws.search_data import prepare_digits, small_config
from odn.files import sha256_of

TRAIN = """
import os, sys
os.sched_setaffinity(0, set(map(int, sys.argv[1].split(","))))
from odn.cli import main
folders = ["--prepared", "work/prepared", "--search", "work", "--params", "params.yaml"]
codes = [main(["open", "--search", "work", "--params", "params.yaml"])]
codes += [main(["train", "--depth", "1", "--after", "0", *folders])]
sys.exit(max(codes))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write settings of the shipped width and batch, for an epoch on 300 digits, and prepare those."""
    folder = tmp_path_factory.mktemp("threads")
    config = small_config(
        model={"width": 0.25}, train={"precision": "auto"}, growth={"min_epochs": 1, "max_epochs": 1}, search={"schedule": [1]}
    )
    assert config.train.threads == "auto"
    (folder / "params.yaml").write_text(config.to_json())
    prepare_digits(config, folder)
    return folder


def trained(folder: Path, tmp_path: Path, *, cores: str, **environment: str) -> tuple[str, int]:
    """Train depth 1 in a process of its own on these cores; return the digest of all that it wrote, and its number of threads."""
    (tmp_path / "work").mkdir(parents=True)
    (tmp_path / "params.yaml").symlink_to(folder / "params.yaml")
    (tmp_path / "work/prepared").symlink_to(folder / "work/prepared")
    known = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", TRAIN, cores], cwd=tmp_path, env=known | environment, check=True, capture_output=True)
    depth = tmp_path / "work/depths/1"
    files = [depth / name for name in ("weights.safetensors", "state.safetensors", "metrics.json", "history.csv")]
    return sha256_of(*files), json.loads((depth / "metrics.json").read_text())["threads"]


def test_any_number_of_cores_gives_the_same_bytes(prepared: Path, tmp_path: Path) -> None:
    """Weights, momentum, history and record: on one core, on all, and where PyTorch is told of eight."""
    cores = sorted(os.sched_getaffinity(0))
    everywhere = ",".join(map(str, cores))
    found = [
        trained(prepared, tmp_path / "one", cores=str(cores[0])),
        trained(prepared, tmp_path / "all", cores=everywhere),
        trained(prepared, tmp_path / "eight", cores=everywhere, OMP_NUM_THREADS="8"),
    ]
    assert found == [(found[0][0], 1)] * 3
