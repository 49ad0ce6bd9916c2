"""Checksums: raw data cannot drift silently."""

import subprocess
from pathlib import Path

import pytest

from odn.data.checksums import verify_checksums, write_checksums
from odn.errors import DataError, MissingInputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of three files, one below another folder, with their checksums."""
    (tmp_path / "b").mkdir()
    for name in ("a.png", "b/ü 1.png", "c.png"):
        (tmp_path / name).write_text(name)
    write_checksums(tmp_path)
    return tmp_path


def test_an_untouched_folder_passes(folder: Path) -> None:
    """What was listed a moment ago is as it was; hidden files are nobody's business."""
    (folder / ".DS_Store").touch()
    before = sorted(folder.rglob("*"))
    verify_checksums(folder)  # raises where anything differs
    assert sorted(folder.rglob("*")) == before


def test_the_list_is_that_of_sha256sum(folder: Path) -> None:
    """A user can check the files without this program."""
    result = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "a.png: OK\nb/ü 1.png: OK\nc.png: OK\n")


def test_writing_again_gives_the_same_bytes(folder: Path) -> None:
    """The list does not list itself."""
    before = (folder / "SHA256SUMS").read_bytes()
    write_checksums(folder)
    assert (folder / "SHA256SUMS").read_bytes() == before


@pytest.mark.parametrize("content", ["", "a.pn", "A.png"])
def test_a_changed_file_is_named(folder: Path, content: str) -> None:
    """Emptied, truncated or one letter changed."""
    (folder / "a.png").write_text(content)
    with pytest.raises(DataError, match=r"a.png is not the file that was fetched \(sha256 .*\); run 'dvc repro -f fetch'"):
        verify_checksums(folder)


def test_a_missing_file_is_named_and_counted(folder: Path) -> None:
    """One of three."""
    (folder / "c.png").unlink()
    with pytest.raises(DataError, match=r"c.png is missing \(1 of 3 raw files are\)"):
        verify_checksums(folder)


def test_an_added_file_is_named(folder: Path) -> None:
    """A file put among raw data by hand would be trained on without a trace."""
    (folder / "b" / "new.png").touch()
    with pytest.raises(DataError, match=r"b/new.png is not in SHA256SUMS: it was put there by hand"):
        verify_checksums(folder)


def test_a_damaged_list_is_named_with_its_line(folder: Path) -> None:
    """A line that is no checksum does not count as one."""
    (folder / "SHA256SUMS").write_text("what?\n")
    with pytest.raises(DataError, match="SHA256SUMS is damaged at line 1: 'what.'"):
        verify_checksums(folder)


def test_no_raw_data_names_the_command_that_brings_it(tmp_path: Path) -> None:
    """An empty folder, or none."""
    with pytest.raises(MissingInputError, match=r"raw data is missing: no .*SHA256SUMS; run 'dvc repro prepare', which fetches it first"):
        verify_checksums(tmp_path / "data")


def test_a_name_with_a_line_break_is_refused(tmp_path: Path) -> None:
    """No line of the list could hold it."""
    (tmp_path / "a\nb.png").touch()
    with pytest.raises(DataError, match=r"a file's name holds a line break: 'a\\nb.png'; rename it"):
        write_checksums(tmp_path)
