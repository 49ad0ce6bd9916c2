"""Whatever flag names a folder of a user's, it is as it was afterwards; names that cannot be written down are refused first."""

import os
from pathlib import Path
from typing import Any

import pytest

from odn import cli

OUTPUTS = [  # a command and the flag of a folder that it replaces
    ["fetch", "--downloads"],
    ["prepare", "--prepared"],
    ["open", "--search"],
    ["train", "--depth", "1", "--after", "0", "--search"],
    ["check", "--depth", "1", "--after", "0", "--search"],
    ["truncate", "--model"],
    ["evaluate", "--evaluation"],
    ["export", "--exported"],
    ["report", "--report"],
    ["specialise", "--target", "accuracy>=0.5", "--specialised"],
    ["route", "--macs", "0.5", "--routed"],
]
BELOW = {  # the folder below the flag's that is replaced
    "--prepared": "train",
    "--specialised": "accuracy-0.5",
    "--routed": "confidence",
}


def everything(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", OUTPUTS, ids=" ".join)
def test_a_folder_of_a_user_is_refused(command: list[str], project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Exit code 2 and one line that names the file, before anything else is done."""
    monkeypatch.chdir(project.folder)
    project.configure()
    own = {"open": "depths/0", "train": "depths/1", "check": "checks/1"}  # of --search
    name = own.get(command[0], BELOW.get(command[-1], ""))
    thesis = Path("home", name, "docs", "thesis.txt")
    thesis.parent.mkdir(parents=True)
    thesis.write_text("ten years of work")
    before = everything(project.folder)
    assert cli.main([*command, "home"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    said = "did not come by 'odn fetch'" if command[0] == "fetch" else "is replaced as a whole, and holds what odn did not write"
    assert str(thesis) in line
    assert said in line
    assert everything(project.folder) == before


@pytest.mark.parametrize("place", [".", "..", "~"])
@pytest.mark.parametrize("command", [["fetch", "--downloads"], ["report", "--report"], ["truncate", "--model"]], ids=lambda one: one[0])
def test_the_current_folder_is_refused(command: list[str], place: str, project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Also its parent, and the home."""
    here = project.folder / "here"
    here.mkdir()
    project.configure()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(project.folder))
    before = everything(project.folder)
    assert cli.main([*command, str(project.folder) if place == "~" else place, "--params", "../params.yaml"]) == 2
    assert "cannot be replaced: it is the current folder, one that holds it, or a home" in capsys.readouterr().err
    assert everything(project.folder) == before


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize(
    ("depth", "after", "message"),
    [
        ("2", "2", "depth 2 grows from depth 1"),
        ("2", "0", "depth 2 grows from depth 1"),
        ("1", "-1", "depth 1 grows from depth 0"),
        ("0", "0", "depth 0 is not in search.schedule"),
        ("-1", "0", "depth -1 is not in search.schedule"),
        ("99999999999999999999", "8", "is not in search.schedule"),
        ("9", "8", "depth 9 is not in search.schedule"),
    ],
)
def test_depths_that_do_not_belong_together(
    command: str, depth: str, after: str, message: str, project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The pair is held against the schedule before a decision is read: once the search has ended, a trained depth would be overwritten."""
    monkeypatch.chdir(project.folder)
    project.configure()
    trained, decisions = Path("work/depths/2"), Path("work/decisions")
    for folder in (trained, decisions):
        folder.mkdir(parents=True)
    (trained / "weights.safetensors").write_bytes(b"weights")
    for number in range(-1, 10):
        (decisions / f"{number}.json").write_text('{"verdict": "target_reached", "accepted": 1}')
    before = everything(project.folder)
    assert cli.main([command, f"--depth={depth}", f"--after={after}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("odn: ")
    assert message in line
    assert everything(project.folder) == before


@pytest.mark.parametrize("odd", ["a\u2028b", "a\x85b", "a\x0bb", "a\x0cb", "a\x1cb", "a b ", " a", "é", "日本", "'\"$(x)", "a\tb", "-rf"])
def test_odd_names_of_images_and_classes(odd: str, project: Any, class_folders: Path) -> None:
    """What `str.splitlines` takes for a line break is none: such files are fetched, verified and prepared."""
    (class_folders / "0").rename(class_folders / odd)
    image = next((class_folders / odd).iterdir())
    image.rename(image.with_name(f"{odd}.png"))
    manifest = project.make(source="folder", root=str(class_folders), val_fraction=0.3, test_fraction=0.3)
    assert odd in manifest.classes


@pytest.mark.parametrize(
    ("name", "message"),
    [(b"caf\xe9", "is not UTF-8; rename it"), (b"a\nb", "holds a line break"), (b"SHA256SUMS", "name of odn's own list of files")],
)
@pytest.mark.parametrize("of", ["class", "image"])
def test_names_that_cannot_be_written_down(name: bytes, message: str, of: str, project: Any, class_folders: Path, capsys: Any) -> None:
    """Refused by fetch, in one line, and nothing is written."""
    old = class_folders / "0" if of == "class" else class_folders / "0" / "0.png"
    old.rename(old.with_name(os.fsdecode(name)))
    project.configure(source="folder", root=str(class_folders))
    assert project.command("fetch") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("odn: ")
    assert message in line
    assert not project.downloads.exists()
