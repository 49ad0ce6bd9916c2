"""Records are read into their types; what is not of the type is refused in a line that names file, field, value and the way out."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from odn.errors import DataError, MissingInputError, OdnError
from odn.records import read_if_there, read_known, read_record, read_table
from odn.searching.records import Decision, read_decision
from odn.searching.results import HistoryRow, read_depth_step, read_verdict
from unit.search_examples import step

HISTORY = "depth,phase,epoch,lr,train_loss,train_accuracy,val_accuracy,val_loss\n1,stable,1,0.1,1.5,0.5,0.75,1.25\n"


@pytest.fixture
def depth(tmp_path: Path) -> Path:
    """Give the folder of a trained depth 1, with its record."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1/metrics.json").write_text(json.dumps(dataclasses.asdict(step(900))))
    return tmp_path / "1"


def test_a_record_comes_back_in_its_type(depth: Path) -> None:
    """Lists become tuples."""
    assert read_depth_step(depth) == step(900)


def test_a_skipped_depth_has_no_record(tmp_path: Path) -> None:
    """Its marker is read as nothing, whatever the stage."""
    (tmp_path / "1").mkdir()
    for name in ("metrics.json", "verdict.json"):
        (tmp_path / "1" / name).write_text('{"depth": 1, "skipped": true}')
    assert read_depth_step(tmp_path / "1") is None
    assert read_verdict(tmp_path / "1") is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"verdict": "banana", "accepted": null}', "verdict must be 'expand', 'target_reached' or 'exhausted'; got 'banana'"),
        ('{"verdict": "target_reached", "accepted": null}', "accepted: None contradicts the verdict target_reached"),
        ('{"verdict": "expand", "accepted": 3}', "accepted: 3 contradicts the verdict expand"),
        ('{"verdict": "target_reached", "accepted": true}', "accepted must be a valid integer; got True"),
        ('{"verdict": "target_reached", "accepted": 0}', "accepted must be greater than or equal to 1; got 0"),
        ('{"verdict": "expand", "verdict": "expand"}', "verdict stands twice"),
        ('{"verdict": "expand", "note": 1}', "unknown field note"),
        ("{}", "verdict is missing"),
        ("[]", "the content must be an object; got []"),
        ("null", "the content must be an object; got None"),
        ("", "not JSON (EOF while parsing a value at line 1 column 0)"),
        ("[" * 10_000, "not JSON (recursion limit exceeded at line 1 column 202)"),
    ],
)
def test_a_damaged_decision_says_nothing(tmp_path: Path, content: str, why: str) -> None:
    """One line says what is wrong with it, and how it is written anew."""
    (tmp_path / "1.json").write_text(content)
    with pytest.raises(DataError) as refused:
        read_decision(tmp_path / "1.json", made_by="check@1")
    assert refused.value.lines == (f"{tmp_path}/1.json is damaged: {why}; run 'dvc repro -f check@1' to write it anew",)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("val_accuracy", float("nan"), "val_accuracy must be a finite number; got nan"),
        ("val_accuracy", 1.01, "val_accuracy must be less than or equal to 1; got 1.01"),
        ("val_accuracy", 0.5, "val_accuracy: 0.5 is not 900 of 1000"),
        ("val_accuracy", "0.9", "val_accuracy must be a valid number; got '0.9'"),
        ("val_correct", -1, "val_correct must be greater than or equal to 0; got -1"),
        ("n_val", 0, "n_val must be greater than or equal to 1; got 0"),
        ("n_val", 1000.0, "n_val must be a valid integer; got 1000.0"),
        ("curve", [0.5, None], "curve.1 must be a valid number; got None"),
        ("curve", {}, "curve must be a valid array; got {}"),
        ("stopped", "", "stopped must be 'flat', 'ceiling', 'max_epochs' or 'supernet'; got ''"),
        ("macs", 2**63, f"macs must be less than or equal to {2**63 - 1}; got {2**63}"),
        ("macs_full", 0, "macs_full must be greater than or equal to 1; got 0"),
        ("cost", float("inf"), "cost must be a finite number; got inf"),
        ("depth", 2, "depth must be that of its folder; got 2"),
        ("why", "x" * 5000, None),
    ],
)
def test_a_field_out_of_its_domain_is_named(depth: Path, field: str, value: Any, why: str | None) -> None:
    """With the value that was found."""
    (depth / "metrics.json").write_text(json.dumps(dataclasses.asdict(step(900)) | {field: value}))
    if why is None:
        assert read_depth_step(depth) is not None
        return
    with pytest.raises(DataError) as refused:
        read_depth_step(depth)
    assert refused.value.lines == (f"{depth}/metrics.json is damaged: {why}; run 'dvc repro -f train@1' to write it anew",)


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b'{"verdict": "\xff"}', b'{"verdict": "\\ud800"}', b"\x00" * 9]
)
def test_bytes_that_are_no_json_are_refused(tmp_path: Path, content: bytes) -> None:
    """A byte order mark, UTF-16, bytes that are no text, half a character, zeros."""
    (tmp_path / "decision.json").write_bytes(content)
    with pytest.raises(DataError, match=r"decision.json is damaged: not JSON \(.*\); run 'dvc repro -f open' to write it anew"):
        read_decision(tmp_path / "decision.json", made_by="open")


def test_a_missing_record_names_what_makes_it(tmp_path: Path) -> None:
    """A stage, or a command; a folder in its place is damage."""
    for made_by, command in (("check@2", "dvc repro check@2"), ("odn route", "odn route")):
        with pytest.raises(MissingInputError, match=f"decision.json is missing; run '{command}' first"):
            read_record(Decision, tmp_path / "decision.json", made_by=made_by)
    assert read_if_there(Decision, tmp_path / "decision.json", made_by="open") is None
    (tmp_path / "decision.json").mkdir()
    with pytest.raises(DataError, match="decision.json is damaged: it is a folder; delete it and run 'odn route' again"):
        read_record(Decision, tmp_path / "decision.json", made_by="odn route")


def test_what_can_be_found_out_again_is_left_out_where_it_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line says so; where nothing is there, nothing is said."""
    assert read_known(Decision, tmp_path / "decision.json", otherwise="it is measured anew") is None
    assert capsys.readouterr().err == ""
    (tmp_path / "decision.json").write_text("{}")
    assert read_known(Decision, tmp_path / "decision.json", otherwise="it is measured anew") is None
    assert capsys.readouterr().err == f"odn: {tmp_path}/decision.json is damaged: verdict is missing; it is measured anew\n"


def test_a_table_comes_back_in_its_type(tmp_path: Path) -> None:
    """Texts become numbers; a table may have no row."""
    (tmp_path / "history.csv").write_text(HISTORY)
    (row,) = read_table(HistoryRow, tmp_path / "history.csv", made_by="train@1")
    assert (row.phase, row.epoch, row.val_accuracy) == ("stable", 1, 0.75)
    (tmp_path / "history.csv").write_text(HISTORY.splitlines()[0])
    assert read_table(HistoryRow, tmp_path / "history.csv", made_by="train@1") == []


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("0.75", "nan", "line 2: val_accuracy must be a finite number; got 'nan'"),
        ("0.75", "7.5", "line 2: val_accuracy must be less than or equal to 1; got '7.5'"),
        ("0.75", "", "line 2: val_accuracy must be a valid number, unable to parse string as a number; got ''"),
        ("stable", "banana", "line 2: phase must be 'stable', "),
        (",1.25", "", "line 2: val_loss is missing"),
        ("1.25", "1.25,9", "line 2: "),
        ("val_loss", "loss", "expected the columns depth, phase, epoch, lr, "),
        (HISTORY, "", "expected the columns depth, phase, epoch, lr, "),
        ("stable", '"stable', "unexpected end of data"),
        ("stable", "st\xffble", "'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_damaged_table_names_line_and_column(tmp_path: Path, old: str, new: str, why: str) -> None:
    """Nothing of it is taken."""
    (tmp_path / "history.csv").write_bytes(HISTORY.replace(old, new).encode("latin-1"))
    with pytest.raises(OdnError) as refused:
        read_table(HistoryRow, tmp_path / "history.csv", made_by="train@1")
    assert str(refused.value).startswith(f"{tmp_path}/history.csv is damaged: {why}")
    assert str(refused.value).endswith("; run 'dvc repro -f train@1' to write it anew")
