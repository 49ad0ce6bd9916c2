"""What is in a file of settings besides plain values is refused: exit code 2, a clean line for each problem, and nothing is written."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from odn import steps
from odn.cli import main
from odn.commands.preset import read_preset
from odn.config import load_config, make_config
from odn.errors import ConfigError
from odn.plain import read_yaml
from unit.mutations import mutated

PARAMS = Path(__file__).parents[2] / "params.yaml"
TEXT = PARAMS.read_text()
N_MUTATIONS = 400
LAUGHS = "a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\n"


def said_of(content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run a command on settings: they are taken, or lines are said and nothing is written."""
    path = folder / "params.yaml"
    path.write_bytes(content)
    code = main(["open", "--params", str(path), "--search", str(folder)])
    out, err = capsys.readouterr()
    lines = err.splitlines()
    if code == 0:
        config = load_config(path)
        assert make_config(config.to_json()) == config
        assert (lines, (folder / "decisions/0.json").is_file()) == ([], True)
        return []
    assert (code, out) == (2, "")
    assert 1 <= len(lines) <= 21
    assert all(line.startswith("odn: ") and line.isprintable() and len(line) < 2200 for line in lines), err
    assert [one.name for one in folder.iterdir()] == ["params.yaml"], "a refused command writes nothing"
    return lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.replace("seed: 0 ", "seed: 2026-13-45 "), "line 3, column 7: 2026-13-45 is more than text to YAML; put it in quotes, or"),
        (TEXT.replace("seed: 0 ", "seed: 2026-11-27 "), "line 3, column 7: 2026-11-27 is more than text to YAML; put it in quotes, or"),
        (TEXT.replace("seed: 0 ", "seed: !!int abc "), "params.yaml, line 3, column 7: the tag !!int is not taken; write the plain value"),
        (TEXT.replace("seed: 0 ", "seed: !!python/name:os.system "), "the tag !!python/name:os.system is not taken"),
        (TEXT.replace("seed: 0 ", "seed: 0b_ "), "0b_ is more than text to YAML"),
        (TEXT.replace("seed: 0 ", "seed: 010 "), "010 is more than text to YAML"),
        (TEXT.replace("seed: 0 ", "seed: 1:30 "), "1:30 is more than text to YAML"),
        (TEXT.replace("seed: 0 ", f"seed: {'9' * 5000} "), f"column 7: {'9' * 80} is more than text to YAML"),
        (TEXT.replace("seed: 0 ", f"seed: {'9' * 250} "), "seed: must be a whole number ≥ 0 and < 2147483648; got 9999"),
        (TEXT.replace(" lr: 0.1 ", f" lr: {'9' * 299} "), "train.lr: must be a number > 0 and ≤ 100; got 9999"),
        (TEXT.replace(" lr: 0.1 ", " lr: 1e999 "), "train.lr: must be a number > 0 and ≤ 100; got inf"),
        (TEXT.replace(" lr: 0.1 ", " lr: .nan "), "train.lr: must be a number > 0 and ≤ 100; got nan"),
        (TEXT.replace(" lr: 0.1 ", " lr: -.inf "), "train.lr: must be a number > 0 and ≤ 100; got -inf"),
        (
            TEXT.replace("flip: false", "flip: yes"),
            "yes is more than text to YAML; put it in quotes, or write a number, true, false or null",
        ),
        (TEXT.replace("flip: false", 'flip: "yes"'), "augment.flip: must be true or false; got 'yes'"),
        (TEXT.replace("root: null", "root: 0x10"), "0x10 is more than text to YAML"),
        (TEXT.replace("root: null", 'root: "a\\0b"'), "data.root: no path has a zero byte in it; got 'a\\x00b'"),
        (TEXT.replace("root: null", 'root: "\\ud800"'), "column 9: the text holds half of a character, as \\ud800 is"),
        (TEXT.replace("root: null", 'root: "\\U00110000"'), "is not valid YAML: chr() arg not in range(0x110000)"),
        (TEXT.replace("root: null", 'root: "\\Uffffffff"'), "is not valid YAML: "),
        (TEXT.replace("root: null", f"root: {'[' * 2000}"), "sections are nested more than 16 deep"),
        (TEXT.replace("root: null", f"root: {'{a: ' * 2000}"), "sections are nested more than 16 deep"),
        (TEXT.replace("root: null", f"root:\n{'  - ' * 2000}"), "sections are nested more than 16 deep"),
        (TEXT.replace("root: null", f"root: [{'ab, ' * 9000}]"), "data.root: must be text or null; got ['ab', 'ab', "),
        (TEXT.replace("root: null", f"root: [{'x' * 9000}]"), "data.root: must be text or null; got ['xxxx"),
        (TEXT + LAUGHS, "*a stands for no plain value; write out what is meant"),
        (TEXT + "a: &a [*a]\n", "*a stands for no plain value"),
        (TEXT + "a: *nothing\n", "*nothing stands for no plain value"),
        (TEXT.replace("  shift: 1", "  <<: {shift: 1}\n  shift: 1"), "<< is more than text to YAML"),
        (TEXT + "? [1, 2]\n: 3\n", "the name of a setting is text, not a section or a list"),
        (TEXT + "? {a: 1}\n: 3\n", "the name of a setting is text, not a section or a list"),
        (TEXT + "seed: 1\n", "setting seed stands twice in the section that begins in line 3; keep one"),
        (TEXT + '"seed": 1\n', "setting seed stands twice"),
        (TEXT + "---\nseed: 1\n", "a second document begins; keep one"),
        ("%YAML 1.1\n---\n" + TEXT, "lines such as %YAML are not taken; remove them"),
        (f"%YAML 1.{'1' * 5000}\n---\n" + TEXT, "is not valid YAML: "),
        (TEXT.replace("  shift: 1", "\tshift: 1"), "is not valid YAML: line "),
        (TEXT + "a: 'b\n", "while scanning a quoted scalar, found unexpected end of stream"),
        (TEXT + "a: \x1b[31m\n", "is not valid YAML: unacceptable character #x001b"),
        (TEXT + '"\\e[31mred\\nodn: forged": 1\n', "unknown setting \\x1b[31mred\\nodn: forged"),
        (TEXT + f"a: {'x' * 2**18}\n", "is no file of settings: it is larger than 262,144 bytes"),
        ("- seed\n", "the config holds no sections of settings; got ['seed']"),
        ("", "the config holds no sections of settings; got None"),
        ("seed\n", "the config holds no sections of settings; got 'seed'"),
        ("".join(f"a{number}: 1\n" for number in range(9000)), "more settings are refused"),
    ],
)
def test_more_than_plain_values_is_refused(content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Dates, tags, numbers of other bases, endless nesting and repetition: none of them ends in a traceback."""
    assert any(message in line for line in said_of(content.encode(), tmp_path, capsys))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_text_that_is_not_utf_8_is_refused(encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As DVC cannot read it either."""
    (line,) = said_of(f"# é\n{TEXT.replace('≥', '>=').replace('×', 'x')}".encode(encoding), tmp_path, capsys)
    assert "params.yaml is not valid YAML: it is not UTF-8 text, from byte " in line


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ("\ufeff" + TEXT, "lr", 0.1),
        (TEXT.replace("\n", "\r\n"), "lr", 0.1),
        (TEXT.replace(" lr: 0.1 ", " lr: 1e-3 "), "lr", 0.001),
        (TEXT.replace(" lr: 0.1 ", " lr: &rate 0.2 ", 1).replace("muon_lr: 0.05", "muon_lr: *rate"), "muon_lr", 0.2),
        (TEXT.replace(" lr: 0.1 ", " lr: .5 "), "lr", 0.5),
        ("---\n" + TEXT + "...\n", "lr", 0.1),
    ],
)
def test_what_dvc_reads_as_plain_values_is_taken(content: str, name: str, value: float, tmp_path: Path) -> None:
    """A byte order mark, Windows' lines, a number such as 1e-3, and a plain value that stands in two places."""
    parse_yaml = importlib.import_module("dvc.utils.serialize").parse_yaml
    path = tmp_path / "params.yaml"
    path.write_bytes(content.encode())
    assert getattr(load_config(path).train, name) == value
    assert read_yaml(path) == parse_yaml(content, "params.yaml")


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ('"01": {after: 0}', "with the depth in quotes; got '01': {'after': 0}"),
        ('"0": {after: 0}', "with the depth in quotes; got '0': {'after': 0}"),
        ('"-1": {after: 0}', "with the depth in quotes; got '-1': {'after': 0}"),
        ('"٣": {after: 0}', "with the depth in quotes; got '٣': {'after': 0}"),
        ('"²": {after: 0}', "with the depth in quotes; got '²': {'after': 0}"),
        ('"1 ": {after: 0}', "with the depth in quotes; got '1 ': {'after': 0}"),
        (f'"{"9" * 900}": {{after: 0}}', "with the depth in quotes; got '9999"),
        ("false: {after: 0}", "with the depth in quotes; got False: {'after': 0}"),
        ("1.0: {after: 0}", "with the depth in quotes; got 1.0: {'after': 0}"),
        ('"1": {after: false}', "search.schedule: depth 1 must come after 0; got after: False"),
        ('"1": {after: 0.0}', "search.schedule: depth 1 must come after 0; got after: 0.0"),
        ('"1": {after: "0"}', "search.schedule: depth 1 must come after 0; got after: '0'"),
        ('"1": {after: 0}\n    "2": {after: true}', "search.schedule: depth 2 must come after 1; got after: True"),
        ('"1": {after: 0, before: 2}', "with the depth in quotes; got '1': {'after': 0, 'before': 2}"),
        ('"9999": {after: 0}', "search.schedule: rung 9999 is beyond the 8 rungs"),
        ('"1": {after: 0}\n    "1": {after: 0}', "setting 1 stands twice in the section"),
    ],
)
def test_a_depth_is_a_plain_whole_number(schedule: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In ASCII digits, without a leading zero; `after` is a number and no truth."""
    settings = TEXT[: TEXT.index('    "1": ')] + f"    {schedule}\n\n" + TEXT[TEXT.index("climb:  ") :]
    (line,) = said_of(settings.encode(), tmp_path, capsys)
    assert message in line


@pytest.mark.parametrize("depths", [[True], [1.0], ["1"], [float("nan")], [-1], [1, 1], [10**400], [None], [[1]]])
def test_a_list_of_depths_holds_plain_whole_numbers(depths: list[Any]) -> None:
    """The same for a list, which a preset and canonical JSON have."""
    settings = {**yaml.safe_load(TEXT)}
    settings["search"]["schedule"] = depths
    with pytest.raises(ConfigError, match=r"^search\.schedule: .{1,300}$"):
        make_config(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"seed":0', '"seed":0,"seed":1'), "the config: seed stands twice in a section; keep one"),
        (('"lr":0.1', '"lr":0.1,"lr":0.2'), "the config: lr stands twice in a section; keep one"),
        (('"seed":0', '"seed":NaN'), "seed: must be a whole number ≥ 0 and < 2147483648; got nan"),
        (('"lr":0.1', '"lr":Infinity'), "train.lr: must be a number > 0 and ≤ 100; got inf"),
        (('"seed":0', f'"seed":{"9" * 5000}'), "the config is not valid JSON: Exceeds the limit"),
        (('"lr":0.1', f'"lr":{"9" * 400}'), "train.lr: must be a number > 0 and ≤ 100; got 9999"),
        (('"seed":0', f'"seed":{"[" * 100_000}'), "the config is not valid JSON: sections within sections without end"),
        (('"seed":0', '"\\ud800":0'), "the config is not valid JSON: 'utf-8' codec can't encode character '\\ud800'"),
        (('"seed":0', '"seed":"\\u001b[31m\\nodn: forged"'), "got '\\x1b[31m\\nodn: forged'"),
    ],
)
def test_canonical_json_is_read_as_strictly(change: tuple[str, str], message: str) -> None:
    """A step of a pipeline gets its settings as text."""
    text = load_config(PARAMS).to_json()
    assert change[0] in text
    with pytest.raises(ConfigError) as caught:
        make_config(text.replace(*change, 1))
    assert any(message in line for line in caught.value.lines)
    assert all(line.isprintable() for line in caught.value.lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"search.target: 0.9\nsearch.target: 0.8\n", "setting search.target stands twice in the section that begins in line 1; keep one"),
        (b"search.target: 2026-13-45\n", "line 1, column 16: 2026-13-45 is more than text to YAML"),
        (b"search.target: !!int abc\n", "the tag !!int is not taken"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"search: [\n", "is not valid YAML: line "),
        (b"", "expected lines such as 'search.mode: paper'"),
        (b"1: 2\n", "expected lines such as 'search.mode: paper'"),
        (b"search.: 2\n", "unknown setting search."),
        (b"train.lr.x: 2\n", "unknown setting train.lr.x"),
        (b'"search.\\e[31m\\nodn: forged": 2\n', "unknown setting search.\\x1b[31m\\nodn: forged"),
    ],
)
def test_a_preset_is_read_as_strictly(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One reader for both."""
    (tmp_path / "params").mkdir()
    (tmp_path / "params/mine.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert main(["preset", "mine", "--params", str(PARAMS)]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines()), err[:5]) == ("", 1, "odn: ")
    assert message in err


def test_the_presets_that_ship_read_as_before() -> None:
    """What stands in them means the same to YAML 1.1."""
    folder = PARAMS.parent / "params"
    for path in folder.rglob("*.yaml"):
        name = path.relative_to(folder).with_suffix("").as_posix()
        assert read_preset(name, folder=folder) == yaml.safe_load(path.read_text())
    assert read_yaml(PARAMS) == yaml.safe_load(TEXT)


@pytest.mark.parametrize("name", ["a\0b", "\udcff.yaml", "x" * 5000, ""])
def test_a_name_that_no_file_can_have_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a file that is missing is."""
    assert main(["open", "--params", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("odn: ")
    assert line.isprintable()


def test_a_mutated_file_is_taken_or_refused_in_clean_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand mutations of params.yaml from one seed, of its bytes and of its structure."""
    taken = 0
    for number, content in enumerate(mutated(re.sub(" +#.*", "", TEXT).encode(), n=N_MUTATIONS, seed=13)):
        folder = tmp_path / str(number)
        folder.mkdir()
        taken += said_of(content, folder, capsys) == []
    assert 0.05 * N_MUTATIONS < taken < 0.6 * N_MUTATIONS, "the mutations reach both sides"


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ("[]", {}, "the config holds no sections of settings; got []"),
        ("{", {}, "the config is not valid JSON: "),
        (None, {"x.y": 1}, "unknown setting x"),
        (None, {"search.target": "\x1b\nodn: forged"}, r"search.target: must be a number > 0 and < 1; got '\x1b\nodn: forged'"),
    ],
)
def test_a_step_refuses_its_settings_in_one_line(
    config: str | None, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a command does."""
    with pytest.raises(SystemExit, match="2"):
        steps.configure(config or load_config(PARAMS).to_json(), changes=changes, repository="", revision="")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"odn: {message}")


def test_json_settings_round_trip_through_the_reader() -> None:
    """JSON is plain values as well."""
    text = load_config(PARAMS).to_json()
    assert make_config(json.loads(text)) == make_config(text)
