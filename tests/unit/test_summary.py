"""The short summary that `make repro` ends with."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from odn import cli
from odn.errors import MissingInputError
from odn.report.words import change, saving, share, short
from stages.made_up_search import MadeUpSearch, make_search

REGISTRATION: dict[str, Any] = {
    "name": "odn-digits",
    "version": "3",
    "run_id": "1f",
    "tracking_uri": "http://mlflow.example",
    "aliases": ["candidate"],
    "champion": False,
    "reason": "not more accurate: 90.00% on test against 95.00% of version 2",
    "previous_champion": "2",
}


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> MadeUpSearch:
    """Give a search that ended at depth 2."""
    return make_search(tmp_path_factory.mktemp("search"))


@pytest.fixture
def exhausted(tmp_path: Path) -> MadeUpSearch:
    """Give a search that no depth of reached the target."""
    return make_search(tmp_path, right=((180, 185), (186, 190)))


def test_summary_begins_with_the_finding(search: MadeUpSearch) -> None:
    """The first line is the finding."""
    assert search.show().describe().splitlines()[0] == "2 of 8 blocks are enough for digits"


def test_summary_has_a_line_a_depth(search: MadeUpSearch) -> None:
    """Each depth has its EMA accuracy, its accuracy after a cooldown with its interval, and its verdict; one is kept."""
    shown = [" ".join(line.split()) for line in search.show().describe().splitlines()]
    assert "1 85.00% - 79.39% to 89.29% expand" in shown
    assert "2 96.00% 99.00% 96.43% to 99.73% target reached <- kept" in shown


def test_summary_has_the_numbers_of_the_record(search: MadeUpSearch) -> None:
    """Test accuracy with its interval, every cost before and after, and what the search cost, by phase."""
    shown = " ".join(search.show().describe().split())
    assert "90.00% of 60 images are right, 95% interval 79.85% to 95.34%" in shown
    assert "parameters 149,322 11,172,810 98.7%" in shown
    assert "MACs 9,474,688 34,644,992 72.7%" in shown
    assert "latency, 1 image 0.50 ms 2.50 ms 80.0%" in shown
    assert "cost 2.19 full-network epochs (of all 8 blocks): training 1.64, trial anneal 0.55" in shown


def test_summary_says_why(search: MadeUpSearch) -> None:
    """The verdict comes with its reason."""
    shown = " ".join(search.show().describe().split())
    assert "target reached: depth 2 is kept, its val accuracy 99.00% (198 of 200) reaches the target 97.00%." in shown


def test_summary_of_an_exhausted_search_says_so(exhausted: MadeUpSearch) -> None:
    """That the target is not reached stands in the first line, and at the end what would help."""
    lines = exhausted.show().describe().splitlines()
    assert lines[0] == "No depth reached the target of 97.00% on digits; depth 2 of 8 is kept for now"
    assert "It is a candidate, not a success." in " ".join(" ".join(lines).split())
    assert lines[-3].strip() == "- go deeper: search.schedule ends at depth 2, and resnet18 has 8 blocks"
    assert lines[-2].strip() == "- ask for less: search.target 97.00%; the best on val is 95.00%"


def test_summary_names_what_is_not_there_yet(search: MadeUpSearch) -> None:
    """Without a report and a registration it names the commands that make them."""
    shown = " ".join(search.show().describe().split())
    assert "not in the registry as odn-digits yet: odn register" in shown
    assert "not written yet: odn report" in shown


def test_summary_names_the_registry_version(tmp_path: Path) -> None:
    """A registered model is named with version, alias and address, and why it is not champion."""
    search = make_search(tmp_path)
    search.register(REGISTRATION)
    shown = " ".join(search.show().describe().split())
    place = "at http://mlflow.example (as it was registered; not asked again)"
    assert f"in the registry odn-digits version 3, candidate, {place}; not champion: not more accurate: 90.00%" in shown


def test_a_version_whose_store_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    """A store that was deleted holds nothing, whatever the last registration says."""
    search = make_search(tmp_path)
    search.register(REGISTRATION | {"tracking_uri": f"sqlite:///{tmp_path}/gone.db"})
    shown = "".join(search.show().describe().split())
    assert "whichdoesnotholditanymore:odnregister" in shown
    assert "intheregistry" not in shown
    assert not (tmp_path / "gone.db").exists()


def test_version_of_other_weights_is_not_shown(tmp_path: Path) -> None:
    """After a new search the version of the old one's model is not taken for this one's."""
    search = make_search(tmp_path)
    search.register(REGISTRATION)
    (tmp_path / "model/weights.safetensors").write_bytes(b"other weights")
    assert "not in the registry as odn-digits yet: odn register" in " ".join(search.show().describe().split())


@pytest.mark.parametrize("n_depths", [1, 2, 8])
def test_summary_fits_a_screen(tmp_path: Path, n_depths: int) -> None:
    """However deep the search went, the summary has at most 30 lines of at most 100 columns."""
    search = make_search(tmp_path, right=((120, None),) * (n_depths - 1) + ((196, 198),))
    lines = search.show().describe().replace(f"{tmp_path}/", "").splitlines()  # what make repro prints are names in its own folder
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 100


def test_summary_is_plain_unless_asked(search: MadeUpSearch) -> None:
    """There is no terminal code in the plain text, and with color the same words."""
    plain, colored = search.show().describe(), search.show().describe(color=True)
    assert "\x1b" not in plain
    assert "\x1b[1;32m2 of 8 blocks are enough for digits\x1b[0m" in colored


def test_summary_of_an_unfinished_search_names_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a depth is accepted `odn show` exits with 2 and says what to run."""
    params = Path(__file__).parents[2] / "params.yaml"
    assert cli.main(["show", "--params", str(params), "--model", str(tmp_path / "model")]) == 2
    assert "card.json is missing; run 'dvc repro truncate' first" in capsys.readouterr().err


def test_summary_of_another_search_is_refused(search: MadeUpSearch) -> None:
    """After a change of the target the old model is not taken for the new search's."""
    with pytest.raises(MissingInputError, match="is of a search with search.target 0.97, and the settings say 0.98; run 'dvc repro' first"):
        search.show(config=search.other_config(target=0.98))


def test_summary_of_another_model_is_refused(tmp_path: Path) -> None:
    """Numbers that were measured on another model are not shown as this one's."""
    search, other = make_search(tmp_path / "one"), make_search(tmp_path / "other", right=((198, 198),))
    (search.folder / "metrics/evaluation.json").write_bytes((other.folder / "metrics/evaluation.json").read_bytes())
    with pytest.raises(MissingInputError, match="is of another model than .*; run 'dvc repro evaluate' first"):
        search.show()


def test_summary_starts_fast() -> None:
    """Telling what was found loads neither torch nor MLflow nor what draws."""
    code = "import sys, odn.commands.show; print(sorted({'torch', 'mlflow', 'matplotlib', 'jinja2', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.5, "50.0%"), (0.99974, "99.97%"), (0.99999, "99.999%"), (1.0, "100.0%"), (0.9993, "99.9%")]
)
def test_share_does_not_round_up_to_everything(fraction: float, text: str) -> None:
    """A saving of almost everything keeps as many decimals as tell it from everything, up to three."""
    assert share(fraction) == text


@pytest.mark.parametrize(("saved", "text"), [(0.986, "98.6% less"), (-0.03, "3.0% more"), (0.0, "the same")])
def test_change_says_which_way(saved: float, text: str) -> None:
    """A network that costs more is not said to save."""
    assert change(saved) == text
    assert saving(saved) == (text if saved < 0 else share(saved))


@pytest.mark.parametrize(
    ("count", "text"), [(75_338, "75.3 k"), (999_600, "1.00 M"), (11_172_810, "11.2 M"), (1.8e9, "1.80 G"), (12, "12 ")]
)
def test_large_counts_are_short(count: float, text: str) -> None:
    """A large count keeps three digits."""
    assert short(count) == text


def test_a_busy_machine_is_said_of_the_latency(tmp_path: Path) -> None:
    """A time that was measured beside other work is not told as if it were sure."""
    assert "The machine was busy while latency was measured" in " ".join(
        make_search(tmp_path / "busy", busy=True).show().describe().split()
    )
    assert "machine was busy" not in make_search(tmp_path / "quiet").show().describe()


@pytest.mark.parametrize(
    ("duplicates", "said"),
    [
        ({"test_in_train": 12, "test_in_val": 0, "conflicts": 0}, "Of the 60 test images 12 are in train too, pixel by pixel"),
        ({"test_in_train": 12, "test_in_val": 3, "conflicts": 0}, "Of the 60 test images 12 are in train too and 3 are in val too"),
        ({"test_in_train": 0, "test_in_val": 0, "conflicts": 4}, "4 images have a twin, pixel by pixel, under another label"),
    ],
)
def test_data_that_flatters_is_said(tmp_path: Path, duplicates: dict[str, int], said: str) -> None:
    """What is learnt by heart, or cannot be learnt, stands beside the accuracy that it spoils: in the summary and on the page."""
    made = make_search(tmp_path, duplicates=duplicates)
    assert said in " ".join(made.show().describe().split())
    assert said in " ".join(made.page().split())


def test_data_without_duplicates_is_not_suspected(tmp_path: Path) -> None:
    """Nothing is said where nothing was found."""
    shown = make_search(tmp_path, duplicates={"test_in_train": 0, "test_in_val": 0, "conflicts": 0}).show().describe()
    assert "pixel by pixel" not in shown
