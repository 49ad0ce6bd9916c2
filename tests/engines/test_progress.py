"""The volume of interrupted trainings: each search has its own place there, and leaves nothing when it has ended."""

import os
import time
from pathlib import Path

import pytest

from engines.conftest import small_settings
from odn.config import changed, make_config
from odn.files import locked
from odn.progress import KEPT_SECONDS, clear, folder_of

DATA = {"train": "a" * 64, "val": "b" * 64, "test": "c" * 64}


def interrupted(folder: Path, *, days_ago: float = 0.0) -> Path:
    """Leave a checkpoint in a search's folder."""
    checkpoint = folder / "stable-1/0123.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"epoch 3")
    when = time.time() - days_ago * 24 * 3600
    for path in (checkpoint, checkpoint.parent, folder):
        os.utime(path, (when, when))
    return checkpoint


@pytest.fixture(autouse=True)
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a volume."""
    monkeypatch.setenv("ODN_PROGRESS", str(tmp_path))
    return tmp_path


def test_a_search_keeps_its_place_whatever_its_target() -> None:
    """Other settings and other data have another one: searches that share a volume do not remove each other's checkpoints."""
    config = make_config(small_settings())
    here = folder_of(config, data_sha256=DATA)
    assert folder_of(changed(config, {"search.target": 0.5}), data_sha256=DATA) == here
    assert folder_of(changed(config, {"seed": 7}), data_sha256=DATA) != here
    assert folder_of(config, data_sha256={**DATA, "train": "d" * 64}) != here


def test_what_ended_leaves_and_what_is_at_work_stays() -> None:
    """A phase that a process holds is another run's; the rest goes, folder and all."""
    folder = folder_of(make_config(small_settings()), data_sha256=DATA)
    done, at_work = interrupted(folder), folder / "stable-2"
    with locked(at_work):
        clear(folder)
        assert at_work.is_dir()
    assert not done.parent.exists()
    clear(folder)
    assert not folder.exists()


def test_a_search_that_was_given_up_is_forgotten_in_time(volume: Path) -> None:
    """Another one clears it after a month, and not before."""
    days = KEPT_SECONDS / 24 / 3600
    old, young = (interrupted(volume / "searches" / name, days_ago=age) for name, age in (("old", days + 1), ("young", days - 1)))
    folder_of(make_config(small_settings()), data_sha256=DATA)
    assert (old.exists(), young.exists()) == (False, True)
