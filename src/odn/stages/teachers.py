"""Read who taught a depth, which is handed on from depth to depth beside the trunk.

`depths/d/teacher/` holds who taught depth d: `architecture.json`, `weights.safetensors`, and `teacher.json`, which says where it is from,
how its images were normalised and, where it was trained here, what that cost; `history.csv` has its epochs.
"""

from pathlib import Path

from odn.config import Config
from odn.files import read_json
from odn.models.network import load_network, weights_digest
from odn.search.data import SearchData
from odn.search.teaching import as_teacher, normalising
from odn.training.objective import Teacher


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
    """
    record = read_json(folder / "teacher.json", made_by="train")
    mean, std = tuple(record["mean"]), tuple(record["std"])
    return normalising(as_teacher(load_network(folder), machine=data.machine), mean=mean, std=std, data=data)
