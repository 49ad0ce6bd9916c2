"""What trainers share: the name of an interrupted phase, and the record of a trained depth."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from odn.config import Config
from odn.files import write_json
from odn.search.convergence import DepthStep
from odn.search.data import SearchData
from odn.stages.records import HISTORY, history_rows, write_table
from odn.stages.working import progress_key
from odn.training.fit import EpochRow


def checkpoint_name(config: Config, data: SearchData, *, before: Path, inputs: Sequence[str] = ()) -> str:
    """Return the file name of an interrupted depth, which only the same settings, data, depth before and further `inputs` share."""
    sections = ("seed", "data", "model", "train", "augment", "growth", "paper", "supernet", "prune")
    inherited = [config.search.mode, data.manifest.sha256, before / "state.safetensors"]
    return f"{progress_key(config, *sections, inputs=[*inherited, *inputs])}.safetensors"


def write_record(folder: Path, step: DepthStep, rows: Sequence[EpochRow]) -> None:
    """Write history.csv and metrics.json of a trained depth."""
    write_table(folder / "history.csv", history_rows(rows), columns=HISTORY)
    write_json(folder / "metrics.json", asdict(step))
