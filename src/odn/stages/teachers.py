"""Read who taught a depth, which is handed on from depth to depth beside the state.

`depths/d/teacher/` holds who taught depth d: `architecture.json`, `weights.safetensors`, and `teacher.json`, which says where it is from,
how its images were normalised and, where it was trained here, what that cost; `history.csv` has its epochs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from odn.config import Config
from odn.models.stored_networks import load_network, weights_digest
from odn.records import Amount, Count, Fraction, Positive, Record, Sha256, damaged, read_record
from odn.search.data import SearchData
from odn.search.teaching import as_teacher, normalising
from odn.training.objective import Teacher


@dataclass(frozen=True, kw_only=True)
class TeacherRecord(Record):
    """Say who taught: the content of teacher.json."""

    name: str
    mean: tuple[Fraction, ...]  # that its images were normalised by, a number a channel
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    weights_sha256: Sha256 | None = None  # of one from the registry
    depth: Positive | None = None  # of one that was trained here, and what that took and gave
    epochs: Positive | None = None
    full_depth_epochs: Amount | None = None
    val_correct: Count | None = None
    n_val: Positive | None = None


def read_teacher(config: Config, trained: Path, *, data: SearchData) -> Teacher | None:
    """Read who taught a depth out of its folder; None where nobody did.

    Raises:
        MissingInputError: it should be there, and is not.
    """
    folder = trained / "teacher"
    if config.search.distill in {"none", "exits"} or (config.search.distill == "shallower" and not folder.exists()):
        return None
    return teacher_in(folder, data=data)


def teaching_inputs(config: Config, teacher: Teacher | None) -> list[str]:
    """Return what an interrupted phase must share with the one that goes on, where anybody teaches: who, and how much it counts."""
    if teacher is None and config.search.distill in {"none", "shallower"}:
        return []
    digest = weights_digest(teacher.network) if teacher is not None else ""
    return [config.search.distill, f"{config.distill.weight}", f"{config.distill.temperature}", digest]


def teacher_in(folder: Path, *, data: SearchData) -> Teacher:
    """Read a teacher's folder.

    Raises:
        MissingInputError: it is not there.
        DataError: it is damaged, or for images of other channels or classes.
    """
    record, network = read_teacher_record(folder), load_network(folder)
    mine = network.architecture.in_channels, network.architecture.n_classes
    if mine != (data.manifest.channels, data.manifest.n_classes) or not len(record.mean) == len(record.std) == mine[0]:
        why = f"it is for {mine[0]} channels and {mine[1]} classes, normalised by {len(record.mean)} means and {len(record.std)} deviations"
        raise damaged(folder / "teacher.json", why, made_by=_made_by(folder))
    return normalising(as_teacher(network, machine=data.machine), mean=record.mean, std=record.std, data=data)


def read_teacher_record(folder: Path) -> TeacherRecord:
    """Read who a teacher is.

    Raises:
        MissingInputError: it is not there.
        DataError: it is damaged.
    """
    return read_record(TeacherRecord, folder / "teacher.json", made_by=_made_by(folder))


def _made_by(folder: Path) -> str:
    return f"train@{folder.parent.name}"
