"""The page that tells what a search found: it needs nothing beside itself, repeats to the byte, and says what happened."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from odn.errors import MissingInputError
from odn.files import MANIFEST, write_json
from stages.made_up_search import MadeUpSearch, costs, make_search

HOSTILE = ('<script>alert("cat")</script>', 'a" onload="alert(1)', "$x_2$ & 猫\n")
EXHAUSTED = ((180, 185), (186, 190))


class Elements(HTMLParser):
    """Collect every element of a page with its attributes, and its text."""

    def __init__(self, page: str) -> None:
        """Read the page."""
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the element."""
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> MadeUpSearch:
    """Give a search that ended at depth 2."""
    return make_search(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def report(search: MadeUpSearch) -> Path:
    """Give the folder of its report."""
    return search.report()


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    """Give its page."""
    return (report / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> MadeUpSearch:
    """Give a search on color images whose class names look like HTML and mathematics, with its report."""
    search = make_search(tmp_path_factory.mktemp("hostile"), classes=HOSTILE, channels=3, n_wrong=40)
    search.report()
    return search


def test_page_loads_nothing(page: str) -> None:
    """Whatever the page refers to is inside it, and it tells the browser to load nothing else."""
    attributes = [(name, value or "") for _, found in Elements(page).found for name, value in found.items()]
    assert [value for name, value in attributes if name in {"src", "srcset", "href", "action"} and not value.startswith("data:")] == []
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|https?://", page)


def test_page_needs_no_script(page: str) -> None:
    """There is no script, and no element that runs one."""
    elements = Elements(page).found
    assert {tag for tag, _ in elements} & {"script", "iframe", "object", "embed"} == set()
    assert [name for _, found in elements for name in found if name.startswith("on")] == []


def test_same_record_gives_same_bytes(search: MadeUpSearch, report: Path) -> None:
    """Two reports of one record are equal, page and pictures, to the byte."""
    again = search.report("again")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {path.name: path.read_bytes() for path in report.iterdir()}


def test_report_holds_page_and_pictures(report: Path) -> None:
    """The folder holds the page and a PNG of every figure."""
    pictures = {"depths.png", "cost.png", "ledger.png", "curves.png", "mistakes.png"}
    assert {path.name for path in report.iterdir()} == {"report.html", MANIFEST} | pictures


def test_headline_says_the_finding(page: str) -> None:
    """The heading is the finding in one sentence, with the key figures below it."""
    text = Elements(page).text
    assert "2 of 8 blocks are enough for digits" in text
    assert "90.00% on test, with 98.7% fewer parameters and 72.7% fewer MACs." in text
    assert "Depth 2 is kept, its val accuracy 99.00% (198 of 200) reaches the target 97.00%." in text


def test_every_depth_has_its_reason(page: str) -> None:
    """The page says of each depth why it was left or kept, and what the kept one costs, in full."""
    text = Elements(page).text
    assert "The EMA accuracy 85.00% plus the gain of a cooldown gives at most 92.50%, below the target 97.00%." in text
    assert all(number in text for number in ("149,322", "11,172,810", "599,888", "9,474,688"))


def test_notes_are_honest(page: str) -> None:
    """The page says how sure its accuracy is, that full depth was not trained, and what the ledger leaves out."""
    text = Elements(page).text
    assert "on 60 images, after everything was chosen. Its 95% interval is 79.85% to 95.34%" in text
    assert "which was not trained here" in text
    assert "It leaves out measuring accuracies" in text
    assert "the least of many passes on one machine (a processor, 2 threads) and differ elsewhere" in text


def test_exhausted_search_is_said_plainly(tmp_path: Path) -> None:
    """Where no depth reaches the target the page says so first, and says what would help."""
    text = Elements(make_search(tmp_path, right=EXHAUSTED).page()).text
    assert "No depth reached the target of 97.00% on digits; depth 2 of 8 is kept for now" in text
    assert "Search exhausted: the target is not reached" in text
    assert "What would help: go deeper: search.schedule ends at depth 2, and resnet18 has 8 blocks" in text
    assert "enough for" not in text


def test_hostile_class_names_are_text(hostile: MadeUpSearch) -> None:
    """A class name that looks like HTML or mathematics is shown as it is written, and runs nothing."""
    elements = Elements((hostile.folder / "report/report.html").read_text(encoding="utf-8"))
    assert {tag for tag, _ in elements.found} & {"script"} == set()
    assert [name for _, found in elements.found for name in found if name.startswith("on")] == []
    assert all(" ".join(name.split()) in elements.text for name in HOSTILE)


def test_of_many_mistakes_the_surest_are_shown(hostile: MadeUpSearch) -> None:
    """The page says how many there are, and shows a screenful of them."""
    page = (hostile.folder / "report/report.html").read_text(encoding="utf-8")
    assert "of the 40 others, here are the 24 that it was surest of" in page
    assert page.count('alt="test image') == 24


def test_pictures_have_words(page: str) -> None:
    """Every picture has an alternative text; those of the figures hold the numbers."""
    words = [found["alt"] or "" for tag, found in Elements(page).found if tag == "img"]
    assert all(words)
    assert "Accuracy on val by depth, target 97.00%. depth 1: 85.00%, expand; depth 2: 99.00%, target reached." in words


def test_page_fits_light_and_dark(page: str) -> None:
    """Each of the four figures is there on a light and on a dark ground, and the page follows the phone's width."""
    sources = [found for tag, found in Elements(page).found if tag == "source"]
    assert [found["media"] for found in sources] == ["(prefers-color-scheme: dark)"] * 4
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page


def test_wrong_images_are_shown_surest_first(page: str) -> None:
    """The images that were got wrong stand in the order of the confidence, with both class names."""
    shown = [found["alt"] or "" for tag, found in Elements(page).found if tag == "img" and str(found["alt"]).startswith("test image")]
    assert [re.findall(r"\d+", words)[0] for words in shown] == ["5", "4", "3", "2", "1", "0"]
    assert "54 of 60 test images are right; here is what it got wrong, the surest first." in page
    assert "cat taken for dog, 2 times" in page


def test_nothing_wrong_is_said(tmp_path: Path) -> None:
    """A model without a mistake, here of a search of one depth, has a page that says so, and no empty picture."""
    search = make_search(tmp_path, right=((196, 198),), n_wrong=0)
    assert "Nothing: all 60 test images are right." in search.page()
    assert not (tmp_path / "report/mistakes.png").exists()


def test_whole_backbone_saves_nothing(tmp_path: Path) -> None:
    """A search that ends at full depth, with every image of val right, is told as what it is."""
    text = Elements(make_search(tmp_path, right=((60, None),) * 7 + ((200, 200),)).page()).text
    assert "digits needs all 8 blocks" in text
    assert "The kept network is the whole backbone: nothing is saved." in text


def test_predictions_of_other_images_are_refused(tmp_path: Path) -> None:
    """A report is not made of predictions that belong to another test split."""
    search = make_search(tmp_path)
    path = tmp_path / "work/evaluation/predictions.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(MissingInputError, match="is of other images than the test split; run 'dvc repro evaluate' first"):
        search.report()
    assert not (tmp_path / "report").exists()


def test_networks_between_rungs_stand_among_the_trained(tmp_path: Path) -> None:
    """Each has its row, with its bytes and MACs; the row of the kept one is marked."""
    made = make_search(tmp_path, right=((170, None), (198, None)), mode="climb", looks=0)
    tried = {"macs": 4321, "epochs": 4, "n": 200, "full_network_epochs": 0.1, "reason": "why"}
    missed = tried | {"n_params": 9, "size_bytes": 1234, "n_correct": 180, "reached": False}
    kept = tried | {"n_params": costs(2)["n_params"], "size_bytes": costs(2)["size_bytes"], "n_correct": 197, "reached": True}
    record = json.loads((tmp_path / "model/search.json").read_text())
    write_json(tmp_path / "model/search.json", record | {"refinements": [missed, kept]})
    rows = re.findall(r"<tr( class=\"kept\")?>(<th scope=\"row\">below 2.*?)</tr>", made.page())
    assert [bool(mark) for mark, _ in rows] == [False, True]
    assert [re.findall(r">([^<>]+)<", row)[:5] for _, row in rows] == [
        ["below 2", "missed", "1,234", "4,321", "90.00%"],
        ["below 2", "target reached", f"{costs(2)['size_bytes']:,}", "4,321", "98.50%"],
    ]
