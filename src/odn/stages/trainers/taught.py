"""Bring a depth its teacher, as `search.distill` says: train it, fetch it, or take it over from the depth before."""

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from odn.config import Config
from odn.errors import DataError, MissingInputError, TrackingError
from odn.files import sha256_of, write_json
from odn.models.stored_networks import load_network, save_network
from odn.records import Fraction, Part, Positive, read_record
from odn.search.data import SearchData
from odn.search.teaching import TrainedTeacher, comes_from_outside, require_fit, teacher_of, train_teacher
from odn.stages.records import history_rows, write_table
from odn.stages.teachers import teacher_in
from odn.stages.working import follow, progress_key
from odn.training.checkpoint import in_progress
from odn.training.objective import Teacher
from odn.training.state import TrainState


@dataclass(frozen=True)
class Brought:
    """Hold a teacher that is there, and the folder that says all of it; None where it is the depth before."""

    teacher: Teacher
    folder: Path | None


@dataclass(frozen=True, kw_only=True)
class Seen(Part):
    """Hold what the card of a registered model says of the images that it knows."""

    classes: tuple[str, ...]
    channels: Positive
    height: Positive
    width: Positive
    mean: tuple[Fraction, ...]
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...]


def bring_teacher(
    config: Config, *, data: SearchData, state: TrainState | None, after: int, before: Path, progress: Path, held: contextlib.ExitStack
) -> Brought | None:
    """Return who teaches the depth that grows from `state`: before the first depth it is trained or fetched, later handed on.

    What it needs on the way, its interrupted training too, is there until `held` is closed.

    Raises:
        TrackingError: the registry cannot be reached, or has no such model.
        DataError: it knows other classes, or images of another size.
        MissingInputError: the depth before has none to hand on.
    """
    if not comes_from_outside(config):
        known = teacher_of(config, before=state.average if state is not None else None, outside=None, machine=data.machine)
        return Brought(known, None) if known is not None else None
    folder = before / "teacher"
    if after == 0:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory())) / "teacher"
        if config.search.distill == "full":
            _train(config, data=data, folder=folder, progress=progress, held=held)
        else:
            _fetch(config.search.distill, data=data, folder=folder)
    return Brought(teacher_in(folder, data=data), folder)


def write_teacher(folder: Path, brought: Brought, *, data: SearchData) -> None:
    """Write who taught a depth, or hand it on."""
    if brought.folder is not None:
        shutil.copytree(brought.folder, folder)
        return
    network = brought.teacher.network
    save_network(network, folder)
    write_json(folder / "teacher.json", {"name": f"depth {network.depth}", **_normalisation(data)})


def _train(config: Config, *, data: SearchData, folder: Path, progress: Path, held: contextlib.ExitStack) -> None:
    depth, epochs = data.backbone.depth, config.distill.epochs
    inputs = [epochs, config.growth.shortcut, data.manifest.sha256]
    name = progress_key(config, "seed", "model", "train", "augment", inputs=inputs)
    # Kept when it is done: another weight or temperature asks for the same teacher again, and the answer is there.
    checkpoint = held.enter_context(in_progress(progress / "teacher" / f"{name}.safetensors", keep=True))
    events = train_teacher(data=data, config=config, checkpoint=checkpoint)
    done = follow(events, TrainedTeacher, config=config, data=data, depth=depth, phase="teacher", epochs=epochs, epochs_before=0)
    save_network(done.network, folder)
    write_table(folder / "history.csv", history_rows(done.rows))
    last = done.rows[-1]
    judged = {"epochs": epochs, "full_depth_epochs": done.cost, "val_correct": last.val_correct, "n_val": last.n_val}
    write_json(folder / "teacher.json", {"name": "full depth", "depth": depth, **judged, **_normalisation(data)})


def _fetch(reference: str, *, data: SearchData, folder: Path) -> None:
    from odn.tracking.connection import AwayError
    from odn.tracking.download import download_model
    from odn.tracking.place import tracking_place

    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = download_model(reference, folder=Path(scratch))
        except AwayError as error:
            way_out = "start the server or set MLFLOW_TRACKING_URI, then run again"
            raise TrackingError(
                f"search.distill: {reference} cannot be fetched from {tracking_place().shown} ({error.reason}); {way_out}"
            ) from None
        except TrackingError as error:
            raise TrackingError(f"search.distill: {error}") from None
        try:
            card = read_record(Seen, found.folder / "card.json", made_by="register")
        except (DataError, MissingInputError) as error:
            why = str(error).rpartition("card.json")[2].partition("; ")[0].strip()
            raise DataError(f"search.distill: the card of {reference} {why}; name a model that a search registered") from None
        shape = {"channels": card.channels, "height": card.height, "width": card.width}
        require_fit(name=reference, classes=card.classes, **shape, manifest=data.manifest)
        save_network(load_network(found.folder), folder)
        record = {"name": f"models:/{found.name}/{found.version}", "weights_sha256": sha256_of(found.folder / "weights.safetensors")}
        write_json(folder / "teacher.json", {**record, "mean": card.mean, "std": card.std})


def _normalisation(data: SearchData) -> dict[str, Any]:
    return {"mean": data.manifest.mean, "std": data.manifest.std}
