"""A user's files survive: images may lie where no run writes, and a file that was not fetched stops `fetch` with its name."""

import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from odn.data.places import MADE

ROOT = Path(__file__).parents[2]
FOLDER: dict[str, Any] = {"source": "folder", "val_fraction": 0.2, "test_fraction": 0.2}


@pytest.fixture
def fetch(project: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `odn fetch` in the project's folder on data settings, and return its exit code and its lines of error."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("HOME", str(project.folder))

    def run(**data: Any) -> tuple[int, list[str]]:
        project.configure(**data)
        return project.command("fetch"), capsys.readouterr().err.splitlines()

    return run


def files_below(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("root", [*MADE, "data/", "./work/mine", "images/../model", "~/report", "HERE/plots", "to_data", "to_data/mine"])
@pytest.mark.parametrize("source", ["folder", "mnist"])
def test_images_may_not_lie_where_a_run_writes(project: Any, fetch: Any, class_folders: Path, root: str, source: str) -> None:
    """However the folder is called, it is refused by name, and what lies there stays."""
    root = root.replace("HERE", str(project.folder))
    for name in ("images", "data"):
        Path(name).mkdir()
    Path("to_data").symlink_to("data")
    place = Path(root).expanduser()
    (place / "0").mkdir(parents=True)
    shutil.copyfile(class_folders / "0/0.png", place / "0/0.png")
    before = files_below(project.folder)
    code, (line,) = fetch(source=source, root=root)
    assert code == 2
    assert re.match(r"odn: data\.root: .* lies in \S+, which a run writes and empties; move the images to a folder of their own", line)
    assert {name: content for name, content in files_below(project.folder).items() if name != "params.yaml"} == before


def test_class_folders_may_not_hold_what_a_run_writes(fetch: Any) -> None:
    """The project's own folder is no folder of classes."""
    code, (line,) = fetch(source="folder", root=".")
    assert (code, re.match(r"odn: data\.root: \. holds \S*downloads, which a run writes", line) is not None) == (2, True)


def test_a_class_folder_that_is_a_link_into_an_output_is_refused(project: Any, fetch: Any, class_folders: Path) -> None:
    """Links are followed there, too."""
    shutil.move(class_folders / "0", project.folder / "data" / "0")
    (class_folders / "0").symlink_to(project.folder / "data" / "0")
    code, (line,) = fetch(root=str(class_folders), **FOLDER)
    assert (code, line.partition(", which")[0]) == (2, f"odn: data.root: {class_folders}/0 lies in data")


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("", "must name a folder; got ''"),
        ("  ", "must name a folder; got '  '"),
        ("~nosuchuser/x", "~nosuchuser/x: there is no such user here; write the folder's path in full"),
    ],
)
@pytest.mark.parametrize("source", ["folder", "mnist", "digits"])
def test_a_root_that_names_nothing(fetch: Any, root: str, message: str, source: str) -> None:
    """One clean line for any source."""
    assert fetch(source=source, root=root) == (2, [f"odn: data.root: {message}"])


@pytest.mark.parametrize("source", ["folder", "mnist"])
def test_a_root_that_is_a_pipe(project: Any, fetch: Any, source: str) -> None:
    """It is not waited for."""
    os.mkfifo(project.raw)
    code, (line,) = fetch(source=source, root="raw")
    assert (code, line.startswith("odn: data.root: ")) == (2, True)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "broken link", "link to a pipe"])
def test_what_is_no_regular_file_among_images(project: Any, fetch: Any, class_folders: Path, kind: str) -> None:
    """It is named, not opened: a pipe would be waited for without end."""
    odd = class_folders / "1" / "odd.png"
    os.mkfifo(project.folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "socket":
            listener.bind(os.path.relpath(odd))
        elif kind == "pipe":
            os.mkfifo(odd)
        else:
            odd.symlink_to({"device": "/dev/zero", "broken link": "nowhere", "link to a pipe": project.folder / "pipe"}[kind])
        code, lines = fetch(root="raw", **FOLDER)
    assert (code, lines) == (2, ["odn: raw/1/odd.png is not a regular file, or a link to nothing; remove it"])


@pytest.mark.parametrize("place", ["downloads", "data"])
@pytest.mark.parametrize("name", ["mine/thesis.txt", "thesis.txt", ".hidden/thesis.txt"])
@pytest.mark.parametrize("fetched", [True, False])
def test_a_file_that_was_not_fetched_stops_fetch(project: Any, fetch: Any, place: str, name: str, fetched: bool) -> None:
    """Its name is told, it stays, and everything goes on when it is moved away."""
    if fetched:
        assert fetch() == (0, [])
        shutil.copytree("downloads", "data")
    stranger = project.folder / place / name
    stranger.parent.mkdir(parents=True, exist_ok=True)
    stranger.write_text("all my work")
    before = files_below(project.folder)
    code, (line,) = fetch()
    assert (code, f"{place}/{name} did not come by 'odn fetch'" in line) == (2, True)
    assert {**files_below(project.folder), "params.yaml": b""} == {**before, "params.yaml": b""}
    stranger.unlink()
    assert fetch() == (0, [])


def test_what_an_earlier_source_left_goes_by_itself(project: Any, fetch: Any, class_folders: Path) -> None:
    """Only what its list names, and what is not in the new source as it is; half a file of DVC's goes, too."""
    assert fetch(root="raw", **FOLDER) == (0, [])
    shutil.copytree("downloads", "data")
    Path("data/1/.abcdefghijklmnopqrst_-.tmp").touch()
    shutil.rmtree(class_folders / "2")
    (class_folders / "3").mkdir()
    shutil.copyfile(class_folders / "1/1.png", class_folders / "3/1.png")
    shutil.copyfile(class_folders / "1/1.png", class_folders / "0/0.png")
    kept = Path("data/1/0.png").stat().st_mtime_ns
    assert fetch(root="raw", **FOLDER) == (0, [])
    assert not {"SHA256SUMS", "0/0.png", "2/0.png"} & set(files_below(Path("data")))
    assert sorted(path.name for path in Path("data").iterdir()) == ["0", "1"]
    assert len(list(Path("data").rglob("*.*"))) == 19
    assert Path("data/1/0.png").stat().st_mtime_ns == kept


def test_a_copy_that_was_broken_off_is_known_by_the_list_beside_it(project: Any, fetch: Any, class_folders: Path) -> None:
    """After a kill in the middle of copying, data/ holds files and no list: they are no user's."""
    assert fetch(root="raw", **FOLDER) == (0, [])
    shutil.copytree("downloads/0", "data/0")
    assert fetch() == (0, [])
    assert not list(Path("data").iterdir())


def test_a_damaged_list_says_what_to_do(project: Any, fetch: Any) -> None:
    """What cannot be told apart is not removed."""
    fetch()
    Path("downloads/SHA256SUMS").write_text("nonsense\n")
    code, (line,) = fetch()
    assert code == 2
    assert "downloads/SHA256SUMS is damaged at line 1: 'nonsense'; move what is yours out of " in line


def test_the_list_of_what_a_run_makes_is_whole() -> None:
    """What dvc.yaml, data.dvc and .gitignore name as made is where no images may lie."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    entries = [each for stage in stages.values() for kind in ("outs", "metrics", "plots") for each in stage.get("do", stage).get(kind, [])]
    outputs = {(each if isinstance(each, str) else next(iter(each))).partition("/")[0] for each in entries}
    ignored = set(re.findall(r"^/(.*)/$", (ROOT / ".gitignore").read_text(), re.MULTILINE))
    assert (outputs | ignored | {"data"}) - set(MADE) == set()
