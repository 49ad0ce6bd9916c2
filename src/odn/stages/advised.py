"""Ask once which mode `search.mode: auto` stands for, and hand the answer on from depth to depth."""

from dataclasses import asdict
from pathlib import Path

from odn.config import Config
from odn.files import list_also, write_json
from odn.records import read_record
from odn.search.advice import Advice

NAME = "advice.json"  # in the folder of each depth


def ask(config: Config, *, prepared: Path, progress: Path) -> Advice:
    """Look ahead, and return the advice.

    Raises:
        MissingInputError: data is not prepared.
        TrainingError: the loss is not finite.
    """
    from odn.search.advising import look_ahead
    from odn.stages.working import follow, opened, progress_key
    from odn.training.checkpoint import in_progress

    data, first = opened(prepared, config=config), config.search.schedule[0]
    sections = ("seed", "data", "model", "train", "augment", "growth", "supernet", "auto")
    key = progress_key(config, *sections, inputs=[data.manifest.sha256, config.search.schedule])
    with in_progress(progress / "advice" / f"{key}.safetensors", keep=True) as checkpoint:
        events = look_ahead(data=data, config=config, checkpoint=checkpoint)
        epochs = config.auto.epochs
        return follow(events, Advice, config=config, data=data, depth=first, phase="advice", epochs=epochs, epochs_before=0)


def read_advice(folder: Path, config: Config) -> Advice | None:
    """Read what was advised for the depth in `folder`; None where `search.mode` says itself what is done.

    Raises:
        MissingInputError: it is not there.
        DataError: it is damaged.
    """
    if config.search.mode != "auto":
        return None
    return read_record(Advice, folder / NAME, made_by=f"train@{folder.name}")


def write_advice(folder: Path, advice: Advice) -> None:
    """Write the advice into the folder of a trained depth."""
    list_also(folder, NAME)
    write_json(folder / NAME, asdict(advice))


def followed(config: Config, advice: Advice | None) -> Config:
    """Return the settings under the mode that was advised, if any was."""
    return config if advice is None else config.in_mode(advice.mode)
