"""Files that are whole or not there."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from odn.errors import OutputError
from odn.files import MANIFEST, new_folder, remove_folder, sha256_of, write_bytes, write_json, write_text


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
    made(tmp_path / "out", stale="1")
    with new_folder(tmp_path / "out") as folder:
        (folder / "fresh").touch()
        assert (tmp_path / "out" / "stale").exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MANIFEST, "fresh"]


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


def made(path: Path, **files: str) -> Path:
    """Let odn make a folder."""
    with new_folder(path) as folder:
        for name, text in files.items():
            write_text(folder / name.replace("__", "/"), text)
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_odn_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """What it held before is gone, what is new is there, and nothing else beside it."""
    made(tmp_path / "out", a="1", sub__b="2")
    made(tmp_path / "out", a="3")
    assert snapshot(tmp_path / "out").keys() == {"a", MANIFEST}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["thesis.txt", "docs/thesis.txt", ".hidden", "a.txt"])
def test_a_folder_that_a_user_filled_is_refused(name: str, tmp_path: Path) -> None:
    """It names what is not odn's, and everything is as it was: before the work begins, and also where the file comes meanwhile."""
    home = tmp_path / "home"
    write_text(home / name, "ten years of work")
    with pytest.raises(OutputError, match=f"holds what odn did not write: .*{name}; move that away"):
        made(home, a="1")
    assert snapshot(tmp_path) == {f"home/{name}": b"ten years of work"}


@pytest.mark.parametrize("name", ["notes.txt", "sub/notes.txt", "new"])
def test_what_a_user_puts_into_a_folder_of_odn_stays(name: str, tmp_path: Path) -> None:
    """Beside the files in the manifest every other counts, an empty folder too."""
    out = made(tmp_path / "out", a="1", sub__b="2")
    (out / name).mkdir() if name == "new" else write_text(out / name, "mine")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match=str(out / name)):
        made(out, a="3")
    with pytest.raises(OutputError, match=str(out / name)):
        remove_folder(out)
    assert snapshot(tmp_path) == before


def test_a_file_that_comes_while_odn_works_stays(tmp_path: Path) -> None:
    """The folder is looked at again before it is replaced."""
    out = made(tmp_path / "out", a="1")
    with pytest.raises(OutputError, match="late.txt"), new_folder(out) as folder:
        write_text(folder / "a", "2")
        write_text(out / "late.txt", "mine")
    assert {name: text for name, text in snapshot(tmp_path).items() if not name.endswith(MANIFEST)} == {
        "out/a": b"1",
        "out/late.txt": b"mine",
    }


def test_places_that_are_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, those that hold it, the home, a link, a file: refused even where they are empty."""
    home, here = tmp_path / "home", tmp_path / "project/here"
    here.mkdir(parents=True)
    home.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    (here / "link").symlink_to(home)
    write_text(here / "file", "mine")
    for place in (".", "..", "../..", "/", str(home), str(here), "link", "file", "sub/.."):
        with pytest.raises(OutputError, match="cannot be replaced"):
            made(Path(place), a="1")
    assert snapshot(tmp_path) == {"project/here/file": b"mine"}


@pytest.mark.parametrize("name", [".out.backup", ".out.odn", ".out.odn-short", ".out.odn-12345678x", ".other.odn-abcdefgh"])
def test_folders_with_names_alike_are_no_leftovers(name: str, tmp_path: Path) -> None:
    """Only what `new_folder` itself names is removed."""
    write_text(tmp_path / name / "file", "mine")
    made(tmp_path / "out", a="1")
    assert (tmp_path / name / "file").read_text() == "mine"


def test_what_a_kill_left_is_mended(tmp_path: Path) -> None:
    """Unfinished folders go; one that was set aside while its successor had not its name yet comes back."""
    out = made(tmp_path / "out", a="1")
    write_text(tmp_path / ".out.odn-abcdefgh" / "half", "")
    out.rename(tmp_path / ".out.odn-abcdefgh.old")
    with pytest.raises(ZeroDivisionError), new_folder(out):
        assert (out / "a").read_text() == "1"
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """What a link of a user's points to is never touched."""
    precious = tmp_path / "precious"
    write_text(precious / "thesis.txt", "mine")
    out = made(tmp_path / "out", a="1")
    (out / "link").symlink_to(precious)
    with pytest.raises(OutputError, match="link"):
        made(out, a="2")
    assert (precious / "thesis.txt").read_text() == "mine"


def test_the_same_files_give_the_same_manifest(tmp_path: Path) -> None:
    """In whatever order they were written: outputs repeat to the byte."""
    one, two = made(tmp_path / "one", a="1", b="2"), made(tmp_path / "two", b="2", a="1")
    assert (one / MANIFEST).read_bytes() == (two / MANIFEST).read_bytes()


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own word for it names none."""

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'file'}'"):
        write_bytes(tmp_path / "file", b"new")
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'folder'}'"), new_folder(tmp_path / "folder"):
        os.fsync(0)
    assert list(tmp_path.iterdir()) == []
