"""A name with a terminal's codes and a forged line in it, as class, folder, path and reason, is shown in one line everywhere."""

import dataclasses
import io
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from odn import cli
from odn.cli import main
from odn.config import make_config
from odn.data.dataset import read_manifest
from odn.files import write_json
from odn.sanitize import markdown
from odn.searching.folder import SearchFolder
from odn.searching.outcome import Judged
from odn.searching.records import read_search
from odn.stages import truncate
from odn.tables import depth_table, epoch_table, registration_note
from odn.tracking.record import read_record
from odn.tracking.registry import Registration
from odn.tracking.words import depth_note, model_note, search_note, version_note
from stages.made_up_search import MadeUpSearch, make_search

NAME = "\x1b[31mred\nodn: forged\u202e\u2028 | <b>$x$</b> [a](b) `c`"
Said = Callable[..., str]


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> MadeUpSearch:
    """Give a search in a folder of that name, on images in a folder of that name, with a class and a reason of that name."""
    folder = tmp_path_factory.mktemp("hostile") / NAME.replace("/", "")
    made = make_search(folder, classes=(NAME, "b", "c"), n_wrong=40)
    settings = made.config.model_dump(mode="json")
    settings["data"] |= {"source": "folder", "root": f"photos/{NAME.replace('/', '')}"}
    work, changes = folder / "work", {"source": "folder", "reason": NAME, "why": NAME}
    for path in (work / "prepared/dataset.json", *work.rglob("verdict.json"), *work.rglob("metrics.json")):
        content = json.loads(path.read_text())
        write_json(path, content | {name: value for name, value in changes.items() if name in content})
    made = dataclasses.replace(made, config=make_config(settings))
    truncate.run(
        made.config,
        prepared=work / "prepared",
        search=SearchFolder(work),
        model=folder / "model",
        metrics=folder / "metrics/search.json",
        plots=folder / "plots",
        progress=folder / ".odn",
    )
    registered = {"name": "odn-digits", "version": "1", "aliases": ["candidate"], "champion": False, "reason": NAME}
    made.register({**registered, "tracking_uri": f"file:{NAME}", "run_id": "1", "previous_champion": None})
    (folder / f"{NAME.replace('/', '')}.yaml").write_text(yaml.safe_dump(settings))
    return made


@pytest.fixture
def said(search: MadeUpSearch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command in the folder of the search; what it says is clean."""
    params = next(search.folder.glob("*.yaml"))
    places = {
        "prepared": "work/prepared",
        "search": "work",
        "registered-weights": "work/registered.json",
        "registration": ".odn/registration.json",
        "evaluation": "work/evaluation",
        "progress": ".odn",
    }

    def run(command: str, *names: str, code: int = 0, more: tuple[str, ...] = ()) -> str:
        flags = [text for name in names for text in (f"--{name}", str(search.folder / places.get(name, name)))]
        assert main([command, "--params", str(params), *flags, *more]) == code
        out, err = capsys.readouterr()
        assert all(line.isprintable() and not line.startswith("odn: forged") for line in (out + err).split("\n"))
        assert (err == "") is (code == 0)
        return out + err

    return run


def test_what_is_found_is_told_in_clean_lines(said: Said) -> None:
    """By `truncate`, and by `odn show`."""
    assert r"\x1b[31mred\nodn: forged" in said("truncate", "prepared", "search", "model", "metrics", "plots", "progress")
    told = said("show", "model", "metrics", "registered-weights", "registration", "report", "exported")
    assert r"blocks are enough for \x1b[31mred\nodn: forged" in told
    assert " ".join(told.split()).count("odn: forged") == 5, "the data, the reason, the model's place, and the registry's place and reason"


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("fetch", ("--downloads", "nowhere")),
        ("prepare", ("--data", NAME)),
        ("train", ("--depth", "1", "--after", "0", "--prepared", NAME)),
        ("evaluate", ("--model", NAME, "--prepared", NAME)),
        ("export", ("--model", NAME, "--prepared", NAME)),
        ("report", ("--model", NAME)),
        ("show", ("--model", NAME)),
        ("track", ("--replay", "--prepared", NAME)),
        ("preset", (NAME,)),
        ("cost", ("--prepared", NAME)),
        ("specialise", ("--target", NAME)),
        ("route", ("--macs", "1", "--supernet", NAME, "--prepared", NAME)),
        ("open", ("--params", NAME)),
        ("open", ("--params", "caf\udce9")),
    ],
)
def test_what_is_refused_is_told_in_one_clean_line(
    said: Said, command: str, more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever path or setting holds the name."""
    monkeypatch.chdir(tmp_path)
    assert len(said(command, code=2, more=more).splitlines()) == 1


def test_a_terminal_of_few_letters_gets_all_lines(search: MadeUpSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its encoding lacks is written out, and so is a path that is not UTF-8."""
    report = search.folder / "caf\udce9"
    os.makedirs(report, exist_ok=True)  # noqa: PTH103  pathlib knows the name as well, but this is what a shell does
    (report / "report.html").touch()
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.chdir(search.folder)
    assert main(["show", "--params", next(search.folder.glob("*.yaml")).name, "--report", str(report)]) == 0
    screen.seek(0)
    assert r"caf\udce9/report.html" in screen.read()


def test_the_page_shows_it_as_text(search: MadeUpSearch, said: Said) -> None:
    """No control character is in it, and no element that is not the page's own."""
    assert r"\x1b[31mred\nodn: forged" in said("report", "prepared", "model", "metrics", "plots", "evaluation", "exported", "report")
    page = (search.folder / "report/report.html").read_text(encoding="utf-8")
    assert all(letter.isprintable() or letter == "\n" for letter in page)
    assert "<b>" not in page
    assert r"<strong>\x1b[31mred\nodn: forged\u202e\u2028 | &lt;b&gt;$x$&lt;/b&gt; [a](b) `c`</strong>" in page
    assert (search.folder / "report/mistakes.png").stat().st_size > 10_000


def is_plain_markdown(text: str) -> bool:
    """Tell whether the name makes no row, link, code or element of its own."""
    own = ("<b>", "[a]", "`c`", "\nodn:", "| &")
    return all(line.isprintable() for line in text.split("\n")) and not any(sign in text for sign in own)


def test_notes_and_tables_show_it_as_text(search: MadeUpSearch) -> None:
    """Of MLflow, and of a pipeline's steps."""
    paths = {name: search.folder / name for name in ("model", "metrics", "plots", "report")} | {"exported": search.folder / "export"}
    work = search.folder / "work"
    record = read_record(search.config, dataset=work / "prepared/dataset.json", search=SearchFolder(work), **paths)
    assert record.search is not None
    done = Registration(
        name="odn-digits", version="1", run_id="a", tracking_uri=f"file:{NAME}", aliases=("candidate",), champion=False, reason=NAME,
        previous_champion=None,
    )  # fmt: skip
    judged: list[Judged] = list(read_search((1, 2), folder=SearchFolder(work)))
    notes = [
        search_note(record),
        version_note(record),
        model_note(record),
        *(depth_note(one, unit="depth") for one in record.depths),
        registration_note(done),
    ]
    notes += [depth_table(judged, target=0.97, unit="depth"), epoch_table(work / "depths/1/history.csv", title="Depth 1", note=NAME)]
    assert [note for note in notes if not is_plain_markdown(note.replace("`candidate`", "").replace("`champion`", ""))] == []
    assert sum("odn: forged" in note for note in notes) == len(notes)


def test_plain_names_stay_as_they_are_in_markdown() -> None:
    """What a name usually holds has no meaning there."""
    assert markdown("fashion_mnist, odn-digits 2.0 (é): 97.3 %") == "fashion_mnist, odn-digits 2.0 (é): 97.3 %"
    assert markdown("a|b<c>`d`*e*[f]\\g&h\ni") == "a&#124;b&#60;c&#62;&#96;d&#96;&#42;e&#42;&#91;f&#93;&#92;g&#38;h&#92;ni"


def test_a_librarys_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Without its place in a library's code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = cli._show_warning
        warnings.warn(f"odd\n{NAME}", UserWarning, stacklevel=1)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(r"odn: UserWarning: odd\n\x1b[31mred\nodn: forged")


def test_a_manifest_keeps_the_name_as_it_is(search: MadeUpSearch) -> None:
    """Only what is shown is changed: the class is still called what its folder is."""
    manifest: Any = read_manifest(search.folder / "work/prepared/dataset.json")
    assert manifest.classes[0] == NAME
