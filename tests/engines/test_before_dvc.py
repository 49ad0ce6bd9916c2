"""What `make repro` does before it calls DVC: records that a killed DVC left half-written are mended, a user's files stop it."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from voluptuous import Invalid

from pipelines.leftovers import READERS

ROOT = Path(__file__).parents[2]
RWLOCK, LOCK = Path(".dvc/tmp/rwlock"), Path("dvc.lock")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a git repository with the project's dvc.yaml, data.dvc and dvc.lock in it, and go there."""
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "data.dvc", "dvc.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    RWLOCK.parent.mkdir(parents=True)
    for command in (["init", "--quiet"], ["add", "--all"], ["-c", "user.name=o", "-c", "user.email=o@example.com", "commit", "-qm", "A"]):
        subprocess.run(["git", *command], check=True)
    return tmp_path


def before_dvc() -> tuple[int, list[str]]:
    """Run what `make repro` runs first; return its exit code and its lines."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    done = subprocess.run([sys.executable, "-m", "pipelines.before_dvc"], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_make_repro_calls_it_before_dvc() -> None:
    """The Makefile does what these tests try."""
    recipe = (ROOT / "Makefile").read_text().partition("\nrepro:")[2]
    assert [line.split("/")[1].split(" #")[0] for line in recipe.splitlines()[1:4]] == [
        "python -m pipelines.before_dvc",
        "dvc repro",
        "odn show",
    ]


def test_nothing_is_said_where_nothing_is_wrong(project: Path) -> None:
    """Without records, with a good one, and in a clone."""
    assert before_dvc() == (0, [])
    RWLOCK.write_text(json.dumps({"read": {"/x": []}, "write": {}}))
    assert before_dvc() == (0, [])
    for name in ("data.dvc", "dvc.lock"):
        Path(name).unlink()
    Path("data.dvc").write_bytes((ROOT / "data.dvc").read_bytes())
    assert before_dvc() == (0, [])


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"read": {"/x": [{"pi', b"\0" * 99, b"\xff", b"[]", b'{"read": 1}', b'{"write": {"/x": {}}}']
)
def test_an_unreadable_rwlock_is_removed(project: Path, content: bytes) -> None:
    """DVC begins a new one; a line says so."""
    RWLOCK.write_bytes(content)
    code, (line,) = before_dvc()
    assert (code, line) == (0, "odn: .dvc/tmp/rwlock was left by a DVC that was killed; it was removed")
    assert not RWLOCK.exists()


def test_a_lock_of_a_dvc_that_is_gone_is_removed(project: Path) -> None:
    """One that was killed and waits to be buried, and one whose number another program has got since: DVC would wait for both for ever."""
    with subprocess.Popen(["true"]) as dead, subprocess.Popen(["sleep", "60"]) as other:
        while Path(f"/proc/{dead.pid}/stat").read_text().split()[2] != "Z":
            time.sleep(0.01)
        for pid in (dead.pid, other.pid):
            RWLOCK.write_text(json.dumps({"write": {"/x": {"pid": pid, "cmd": "dvc repro"}}}))
            assert before_dvc() == (0, ["odn: .dvc/tmp/rwlock was left by a DVC that was killed; it was removed"])
            assert not RWLOCK.exists()
        other.kill()


def test_a_lock_of_a_dvc_at_work_stays(project: Path) -> None:
    """It is DVC's to wait for it."""
    with subprocess.Popen(["bash", "-c", "exec -a dvc sleep 60"]) as working:
        while b"dvc" not in Path(f"/proc/{working.pid}/cmdline").read_bytes().split(b"\0")[0]:
            time.sleep(0.01)
        RWLOCK.write_text(json.dumps({"read": {"/x": [{"pid": working.pid, "cmd": "dvc repro"}]}}))
        assert before_dvc() == (0, [])
        assert RWLOCK.exists()
        working.kill()


@pytest.mark.parametrize("name", ["lock", "rwlock.lock"])
def test_a_record_is_left_alone_while_dvc_works(project: Path, name: str) -> None:
    """Under either of DVC's own locks nothing is touched, and nothing waits for long."""
    from dvc.lock import make_lock  # type: ignore[import-untyped]

    RWLOCK.touch()
    began = time.monotonic()
    with make_lock(str(RWLOCK.with_name(name)), tmp_dir=str(RWLOCK.parent)):
        code, (line,) = before_dvc()
    assert (code, line) == (0, "odn: .dvc/tmp/rwlock cannot be read now, and another DVC process is at work; it was left as it is")
    assert RWLOCK.exists()
    assert time.monotonic() - began < 10
    assert before_dvc()[1] == ["odn: .dvc/tmp/rwlock was left by a DVC that was killed; it was removed"]


@pytest.mark.parametrize(
    ("name", "content"), [("dvc.lock", b""), ("dvc.lock", b"schema: '2.0'\nstages:\n  fetch:\n    cm"), ("data.dvc", b"")]
)
def test_a_record_of_gits_comes_back_from_the_last_commit(project: Path, name: str, content: bytes) -> None:
    """DVC writes it in place, so that a kill leaves a part of it."""
    Path(name).write_bytes(content)
    code, (line,) = before_dvc()
    assert (code, line.startswith(f"odn: {name} was left half-written by a DVC that was killed; it is now as in the last commit")) == (
        0,
        True,
    )
    assert Path(name).read_bytes() == (ROOT / name).read_bytes()


def test_a_lock_that_was_never_committed_is_removed(project: Path) -> None:
    """DVC begins a new one, and its cache has what ran."""
    subprocess.run(["git", "rm", "--quiet", "--cached", "dvc.lock"], check=True)
    subprocess.run(["git", "-c", "user.name=o", "-c", "user.email=o@example.com", "commit", "-qm", "B"], check=True)
    LOCK.write_text("schema: '2.0'\nsta")
    assert before_dvc()[1][0].endswith("; it was removed, and what ran is in DVC's cache")
    assert not LOCK.exists()


def test_a_conflict_after_a_merge_is_left_to_the_user(project: Path) -> None:
    """Both sides stay in the file."""
    LOCK.write_text(conflict := "<<<<<<< HEAD\nschema: '2.0'\n=======\n>>>>>>> other\n")
    assert (before_dvc(), LOCK.read_text()) == ((0, []), conflict)


def test_a_part_of_a_lock_is_mended_where_dvc_refuses_it(project: Path) -> None:
    """Wherever dvc.lock is cut, what is left alone passes DVC's own schema."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # type: ignore[import-untyped]

    whole = LOCK.read_bytes()
    start = whole.index(b"  prepare:")
    stage = b"schema: '2.0'\nstages:\n" + whole[start : whole.index(b"\n  report:", start)]
    for length in range(0, min(len(stage), 3000), 7):
        LOCK.write_bytes(stage[:length])
        try:
            COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(LOCK.read_text()) or {})
            reads = True
        except (Invalid, yaml.YAMLError):
            reads = False
        assert reads or not READERS[LOCK](LOCK), LOCK.read_text()[-200:]
    LOCK.write_bytes(whole)
    assert READERS[LOCK](LOCK)


@pytest.mark.parametrize(
    "name", ["model/notes.txt", "report/mine/a.txt", "work/depths/3/mine.md", "work/prepared/val/.x", "data/m/t", "downloads/t"]
)
@pytest.mark.parametrize("content", ["", "all my work"])
def test_a_file_of_the_users_among_outputs_stops_it(project: Path, name: str, content: str) -> None:
    """It is named before DVC could delete it; beside the outputs there is no danger."""
    for each in (name, "work/mine.txt", "metrics/mine.txt", "images/mine.txt"):
        Path(each).parent.mkdir(parents=True, exist_ok=True)
        Path(each).write_text(content)
    assert before_dvc() == (2, [f"odn: {name} is not of odn's making, and DVC would delete it with its folder; move it elsewhere"])


def test_what_odn_made_or_dvc_has_raises_no_alarm(project: Path) -> None:
    """Files of the manifest, whatever they hold; files in DVC's cache; halves of files that DVC left; what file managers strew."""
    for folder in (Path("model"), Path("report"), cached := Path(".dvc/cache/files/md5")):
        folder.mkdir(parents=True)
    Path("model/weights.safetensors").write_text("weights")
    Path("model/.odn-manifest.json").write_text(json.dumps({"files": ["weights.safetensors"]}))
    Path("report/report.html").write_text("page")
    digest = hashlib.md5(b"page", usedforsecurity=False).hexdigest()
    (cached / digest[:2]).mkdir()
    (cached / digest[:2] / digest[2:]).write_text("page")
    for name in (".abcdefghijklmnopqrst_-.tmp", ".DS_Store"):
        (Path("report") / name).touch()
    assert before_dvc() == (0, [])


@pytest.mark.parametrize("content", ["<<<<<<< HEAD\n", "[]", "stages: 3", ""])
def test_a_pipeline_that_cannot_be_read_is_dvcs_to_tell(project: Path, content: str) -> None:
    """It says nothing, and DVC says where the mistake is."""
    Path("dvc.yaml").write_text(content)
    assert before_dvc() == (0, [])


def test_many_files_are_counted(project: Path) -> None:
    """Five are named, the others told by their number; a name's line break is written out."""
    Path("model").mkdir()
    for number in range(8):
        Path(f"model/{number}\n").touch()
    code, lines = before_dvc()
    assert (code, lines[0][:17], lines[-1]) == (2, "odn: model/0\\n is", "odn: and 3 more; move them elsewhere")


def test_it_is_quick(project: Path) -> None:
    """Torch, DVC and MLflow stay out of it."""
    program = (
        "import sys, pipelines.before_dvc; print([name for name in ('torch', 'dvc', 'mlflow', 'kfp', 'pydantic') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    assert subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout == "[]\n"
