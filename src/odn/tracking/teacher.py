"""Fetch the teacher that `search.distill` names from the registry."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from odn.config import Config
from odn.errors import DataError, MissingInputError, TrackingError
from odn.files import sha256_of
from odn.models.stored_networks import load_network
from odn.records import Fraction, Part, Positive, read_record
from odn.searching.data import SearchData
from odn.searching.teachers import TeacherRecord, Teaching
from odn.searching.teaching import as_teacher, normalising, require_fit


@dataclass(frozen=True, kw_only=True)
class Seen(Part):
    """Hold what the card of a registered model says of the images that it knows."""

    classes: tuple[str, ...]
    channels: Positive
    height: Positive
    width: Positive
    mean: tuple[Fraction, ...]
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...]


def fetched_teacher(config: Config, *, data: SearchData) -> Callable[[], Teaching] | None:
    """Return what fetches the teacher; None where `search.distill` names no model of the registry."""
    reference = config.search.distill
    return (lambda: _fetch(reference, data=data)) if reference.startswith("models:/") else None


def _fetch(reference: str, *, data: SearchData) -> Teaching:
    """Fetch a model.

    Raises:
        TrackingError: the registry cannot be reached, or has no such model.
        DataError: it knows other classes, or images of another size.
    """
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
        network, digest = load_network(found.folder), sha256_of(found.folder / "weights.safetensors")
    record = TeacherRecord(name=f"models:/{found.name}/{found.version}", weights_sha256=digest, mean=card.mean, std=card.std)
    return Teaching(normalising(as_teacher(network, machine=data.machine), mean=card.mean, std=card.std, data=data), record)
