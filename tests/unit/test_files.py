"""Files that are whole or not there."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from odn.files import new_folder, sha256_of, write_bytes, write_json, write_text


def test_json_round_trip_is_exact(tmp_path: Path) -> None:
    """Numbers come back bit for bit, text in any script, and the file ends in a newline."""
    value = {"val_accuracy": 0.1 + 0.2, "why": "flach – 平"}
    write_json(tmp_path / "a" / "record.json", value)
    assert json.loads((tmp_path / "a" / "record.json").read_text()) == value
    assert (tmp_path / "a" / "record.json").read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_holds_only_numbers_that_json_knows(tmp_path: Path, number: float) -> None:
    """A record that is not finite is refused, and nothing is written."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "record.json", {"loss": number})
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_the_whole_file(tmp_path: Path) -> None:
    """A shorter content leaves no tail of the longer one, and no temporary file stays."""
    write_bytes(tmp_path / "file", b"long content")
    write_bytes(tmp_path / "file", b"short")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"short")]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk fails in the middle of a write, the reader still sees the old file."""
    write_bytes(tmp_path / "file", b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_new_folder_appears_when_its_block_ends_well(tmp_path: Path) -> None:
    """Until the last file is written there is no folder to be taken for a whole one; then it replaces the old."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale").touch()
    with new_folder(tmp_path / "out") as folder:
        (folder / "fresh").touch()
        assert (tmp_path / "out" / "stale").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fresh"]


def test_new_folder_vanishes_when_its_block_fails(tmp_path: Path) -> None:
    """A stage that fails leaves the old output, and nothing half-written beside it."""
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as folder:
        (folder / "half").touch()
        raise KeyboardInterrupt
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out"]


def test_what_is_written_can_be_read_by_others(tmp_path: Path) -> None:
    """Temporary files are private by default; what they become is not."""
    write_text(tmp_path / "file", "text")
    with new_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def test_sha256_runs_over_files_in_order(tmp_path: Path) -> None:
    """The hash of several files is the hash of their bytes, one after the other."""
    write_bytes(tmp_path / "images", b"im")
    write_bytes(tmp_path / "labels", b"la")
    assert sha256_of(tmp_path / "images", tmp_path / "labels") == hashlib.sha256(b"imla").hexdigest()
