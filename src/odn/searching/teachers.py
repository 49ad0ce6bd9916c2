"""Who taught a depth, in memory and in files; it is handed on from depth to depth.

`depths/d/teacher/` holds who taught depth d: `architecture.json`, `weights.safetensors`, and `teacher.json`, which says where it is from,
how its images were normalised and, where it was trained here, what that cost; `history.csv` has its epochs, where it was trained first.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from odn.config import Config
from odn.files import write_json
from odn.models.network import DepthNetwork
from odn.models.stored_networks import load_network, save_network, weights_digest
from odn.records import Amount, Count, Fraction, Positive, Record, Sha256, damaged, read_record
from odn.searching.data import SearchData
from odn.searching.outcome import LedgerEntry
from odn.searching.records import history_rows, write_table
from odn.searching.teaching import TrainedTeacher, as_teacher, normalising
from odn.training.fit import EpochRow
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
    full_network_epochs: Amount | None = None
    val_correct: Count | None = None
    n_val: Positive | None = None

    def entries(self) -> list[LedgerEntry]:
        """Return what its training cost; nothing where it was not trained here."""
        if self.depth is None or self.epochs is None or self.full_network_epochs is None:
            return []
        return [LedgerEntry(depth=self.depth, phase="teacher", epochs=self.epochs, full_network_epochs=self.full_network_epochs)]


@dataclass(frozen=True)
class Teaching:
    """Hold who teaches, where that network is from, and the epochs of its training where that was just now."""

    teacher: Teacher
    record: TeacherRecord
    rows: tuple[EpochRow, ...] = ()


def teaching_of(network: DepthNetwork, *, name: str, data: SearchData) -> Teaching:
    """Let a network teach that was trained on the images of the search."""
    record = TeacherRecord(name=name, mean=data.manifest.mean, std=data.manifest.std)
    return Teaching(as_teacher(network, machine=data.machine), record)


def trained_teaching(done: TrainedTeacher, *, data: SearchData) -> Teaching:
    """Let a teacher of full depth teach that was trained here."""
    last = done.rows[-1]
    record = TeacherRecord(
        name="full depth",
        mean=data.manifest.mean,
        std=data.manifest.std,
        depth=done.network.depth,
        epochs=len(done.rows),
        full_network_epochs=done.cost,
        val_correct=last.val_correct,
        n_val=last.n_val,
    )
    return Teaching(as_teacher(done.network, machine=data.machine), record, done.rows)


def inputs_of(config: Config, teaching: Teaching | None) -> list[str]:
    """Return what an interrupted phase must share with the one that goes on, where anybody teaches: who, and how much it counts."""
    if teaching is None and config.search.distill in {"none", "shallower"}:
        return []
    digest = weights_digest(teaching.teacher.network) if teaching is not None else ""
    return [config.search.distill, f"{config.distill.weight}", f"{config.distill.temperature}", digest]


def write_teacher(folder: Path, teaching: Teaching) -> None:
    """Write who taught a depth."""
    save_network(teaching.teacher.network, folder)
    write_json(folder / "teacher.json", {name: value for name, value in asdict(teaching.record).items() if value is not None})
    if teaching.rows:
        write_table(folder / "history.csv", history_rows(teaching.rows))


def read_teacher(folder: Path, *, data: SearchData) -> Teaching:
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
    return Teaching(normalising(as_teacher(network, machine=data.machine), mean=record.mean, std=record.std, data=data), record)


def read_teacher_record(folder: Path) -> TeacherRecord:
    """Read who a teacher is.

    Raises:
        MissingInputError: it is not there.
        DataError: it is damaged.
    """
    return read_record(TeacherRecord, folder / "teacher.json", made_by=_made_by(folder))


def _made_by(folder: Path) -> str:
    return f"train@{folder.parent.name}"
