"""What `params.yaml` may say, and how a setting that is refused is named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from odn.config import Config, allowed, load_config, make_config
from odn.errors import ConfigError

PARAMS = Path(__file__).parents[2] / "params.yaml"


def settings_with(**changes: Any) -> dict[str, Any]:
    """Return the repository's settings with `section__key` changed."""
    settings: dict[str, Any] = yaml.safe_load(PARAMS.read_text())
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            settings[section][key] = value
        else:
            settings[section] = value
    return settings


def refusal(settings: Any) -> str:
    """Return the message with which settings are refused."""
    with pytest.raises(ConfigError) as caught:
        make_config(settings)
    return str(caught.value)


def test_the_repositorys_own_settings_are_accepted() -> None:
    """`params.yaml` loads, and its map of depths becomes a tuple."""
    assert load_config(PARAMS).search.schedule == (1, 2, 3, 4, 5, 6, 7, 8)


def test_config_is_frozen() -> None:
    """A config cannot be changed once it is made."""
    config = load_config(PARAMS)
    with pytest.raises(ValueError, match="frozen"):
        config.search.target = 0.5  # type: ignore[misc]  # the very thing that must fail


def test_canonical_json_round_trip_is_equal() -> None:
    """A config that travels as JSON text reads back to an equal object, whole numbers whole."""
    config = load_config(PARAMS)
    back = make_config(config.to_json())
    assert back == config
    assert type(back.train.batch_size) is int


def test_equal_configs_give_equal_json() -> None:
    """The order of the keys in the file leaves no trace in the canonical JSON."""
    settings = settings_with()
    turned = {section: settings[section] for section in reversed(settings)}
    assert make_config(turned).to_json() == make_config(settings).to_json()


def test_whole_number_is_a_valid_fraction_of_epochs() -> None:
    """Where a number is asked for, a whole number will do: `warmup_epochs: 1`."""
    assert make_config(settings_with(train__warmup_epochs=1)).train.warmup_epochs == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train__lrr": 0.1}, "unknown setting train.lrr (did you mean train.lr?)"),
        ({"search__tolerence": 0.1}, "unknown setting search.tolerence (known here: mode, ladder, cost, target, accept,"),
        ({"train__target": 0.9}, "unknown setting train.target (did you mean search.target?)"),
        ({"serch": {}}, "unknown setting serch (did you mean search?)"),
    ],
)
def test_unknown_setting_is_refused_with_the_nearest_right_name(change: dict[str, Any], message: str) -> None:
    """A misspelt or misplaced key is named with the key that was probably meant."""
    assert message in refusal(settings_with(**change))


def test_missing_setting_is_named_with_what_it_may_be() -> None:
    """Leaving a key out is an error that says what belongs there."""
    settings = settings_with()
    del settings["search"]["target"]
    assert refusal(settings) == "missing setting search.target (a number > 0 and < 1)"


def test_key_that_is_not_text_is_refused() -> None:
    """A number in a key's place is named, not passed on to a library's traceback."""
    settings = settings_with()
    settings["train"][3] = 4
    assert refusal(settings) == "unknown setting train.3: a setting's name is text"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": True}, "seed: must be a whole number ≥ 0 and < 2147483648; got True"),
        ({"train": None}, "train: must be a section of settings; got None"),
        ({"train__batch_size": 64.0}, "train.batch_size: must be a whole number ≥ 2 and ≤ 65536; got 64.0"),
        ({"train__lr": "1.2.3e4"}, "train.lr: must be a number > 0 and ≤ 100; got '1.2.3e4'"),
        ({"train__lr": ".e4"}, "train.lr: must be a number > 0 and ≤ 100; got '.e4'"),
        ({"train__lr": "fast"}, "train.lr: must be a number > 0 and ≤ 100; got 'fast'"),
        ({"augment__flip": 1}, "augment.flip: must be true or false; got 1"),
        ({"data__root": 7}, "data.root: must be text or null; got 7"),
    ],
)
def test_ill_typed_setting_is_refused_with_what_is_allowed(change: dict[str, Any], message: str) -> None:
    """Nothing is converted silently: a boolean is no number, and 64.0 is no whole number."""
    assert refusal(settings_with(**change)) == message


def test_number_in_quotes_is_explained() -> None:
    """A number in quotes is text; the refusal says how to write it."""
    assert refusal(settings_with(train__lr="1e-3")).endswith("got '1e-3' (this is text: write 0.001, without quotes)")


@pytest.mark.parametrize(
    ("name", "value", "range_in_words"),
    [
        ("search__target", 0.0, "a number > 0 and < 1"),
        ("search__target", 1, "a number > 0 and < 1"),
        ("data__val_fraction", 1.0, "a number > 0 and < 1"),
        ("data__test_fraction", 0.0, "a number > 0 and < 1"),
        ("data__image_size", 3, "a whole number ≥ 4 and ≤ 1024 or null"),
        ("train__lr", 0.0, "a number > 0 and ≤ 100"),
        ("train__lr", float("nan"), "a number > 0 and ≤ 100"),
        ("train__lr", float("inf"), "a number > 0 and ≤ 100"),
        ("train__momentum", 1.0, "a number ≥ 0 and < 1"),
        ("search__cooldown_gain", 1.01, "a number ≥ 0 and ≤ 1"),
        ("growth__min_epochs", 0, "a whole number ≥ 1 and ≤ 10000"),
        ("supernet__widths", [], "a list of numbers > 0 and ≤ 1"),
        ("seed", -1, "a whole number ≥ 0 and < 2147483648"),
        ("train__threads", 0, "auto or a whole number ≥ 1 and ≤ 256"),
        ("train__threads", 257, "auto or a whole number ≥ 1 and ≤ 256"),
        ("train__threads", 2.0, "auto or a whole number ≥ 1 and ≤ 256"),
        ("train__threads", True, "auto or a whole number ≥ 1 and ≤ 256"),
        ("train__threads", "all", "auto or a whole number ≥ 1 and ≤ 256"),
        ("train__threads", None, "auto or a whole number ≥ 1 and ≤ 256"),
    ],
)
def test_value_out_of_range_is_refused_with_the_whole_range(name: str, value: Any, range_in_words: str) -> None:
    """The refusal states both ends of the range, and the value that was given."""
    assert refusal(settings_with(**{name: value})) == f"{name.replace('__', '.')}: must be {range_in_words}; got {value!r}"


def test_entry_of_a_list_is_refused_as_the_list() -> None:
    """The setting is named, not the place in its list."""
    assert refusal(settings_with(supernet__widths=[1.0, 2.0])) == "supernet.widths: must be a list of numbers > 0 and ≤ 1; got 2.0"


def test_wrong_choice_is_refused_with_the_choices_and_the_nearest() -> None:
    """A misspelt choice lists all choices and the one that was probably meant."""
    assert refusal(settings_with(model__backbone="resnet-18")) == (
        "model.backbone: must be one of resnet18, resnet34, resnet50; got 'resnet-18' (did you mean resnet18?)"
    )


def test_every_refused_setting_gets_a_line() -> None:
    """Two mistakes are reported together, so that one run is enough to mend both."""
    assert len(refusal(settings_with(train__lr=0.0, search__target=2.0)).splitlines()) == 2
    assert len(refusal(settings_with(train__lr=0.0, search__schedule=[2, 1])).splitlines()) == 2


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"1": {"after": 0}, "3": {"after": 2}}, "search.schedule: depth 3 must come after 1; got after: 2"),
        ({"2": {"after": 0}, "1": {"after": 2}}, "search.schedule: depths must ascend; got [2, 1]"),
        ({1: {"after": 0}}, "with the depth in quotes; got 1: {'after': 0}"),
        ({"1": {"from": 0}}, "got '1': {'from': 0}"),
        ([1, 1], "search.schedule: depths must ascend; got [1, 1]"),
        ([0, 1], "search.schedule: a depth is a whole number ≥ 1; got 0"),
        ([], "search.schedule: is empty; name at least one depth"),
        ("1-8", "search.schedule: expected a map of depths or a list; got '1-8'"),
        ([1, 9], "rung 9 is beyond the 8 rungs from the smallest network to the whole resnet18 at width 0.25; end the schedule at 8"),
    ],
)
def test_schedule_that_cannot_be_grown_is_refused(schedule: Any, message: str) -> None:
    """Depths ascend, each grows from the one before, and none is deeper than the backbone."""
    assert message in refusal(settings_with(search__schedule=schedule))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"growth__min_epochs": 5, "growth__max_epochs": 4}, "growth.min_epochs: 5 is more than growth.max_epochs 4"),
        ({"supernet__widths": [0.5]}, "supernet.widths: expected fractions without repetition, 1.0 among them; got [0.5]"),
        (
            {"supernet__widths": [1.0, 0.5, 0.5]},
            "supernet.widths: expected fractions without repetition, 1.0 among them; got [1.0, 0.5, 0.5]",
        ),
        ({"data__source": "folder"}, "data.root: must name where the images are when data.source is folder"),
        ({"data__source": "s3", "data__root": "photos"}, "data.root: expected s3://bucket/prefix when data.source is s3; got photos"),
        ({"data__root": "s3://b/p"}, "data.root: s3://b/p needs data.source: s3; got data.source: digits"),
        (
            {"search__mode": "grid", "search__max_macs": 60000},
            "search.max_macs: a budget needs search.mode climb and search.ladder spread; set it to null, or change these",
        ),
        (
            {"search__mode": "growth", "search__max_bytes": 60000},
            "search.max_bytes: a budget needs search.mode climb and search.ladder spread; set it to null, or change these",
        ),
        (
            {"search__mode": "growth", "search__schedule": [1, 9]},
            "search.schedule: depth 9 is beyond the 8 blocks of model.backbone resnet18; end the schedule at 8 or choose a deeper backbone",
        ),
        ({"data__image_size": 32}, "data.image_size: only folder and s3 images are resized; set it to null for digits"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change: dict[str, Any], message: str) -> None:
    """Each setting may be right by itself and wrong beside another."""
    assert refusal(settings_with(**change)) == message


def test_depth_before_follows_the_schedule() -> None:
    """A depth grows from the scheduled depth before it, the first from nothing."""
    config = make_config(settings_with(search__schedule=[2, 5]))
    assert (config.depth_before(2), config.depth_before(5)) == (0, 2)
    with pytest.raises(ConfigError, match="depth 3 is not in search.schedule"):
        config.depth_before(3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: [", "is not valid YAML"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (b"", "the config holds no sections of settings; got None"),
        (b"train:\n  lr: 0.1\n  lr: 0.2\n", "setting lr stands twice in the section that begins in line 2; keep one"),
    ],
)
def test_file_that_is_no_settings_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Broken YAML, an empty file and a key given twice each have their own message."""
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "params.yaml")


def test_absent_file_says_how_to_name_one(tmp_path: Path) -> None:
    """Without a params.yaml the way out is told."""
    with pytest.raises(ConfigError, match=r"is missing; run odn in the project's folder, or name the file with --params"):
        load_config(tmp_path / "params.yaml")


def test_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """A folder's name given for the file's is the user's mistake, not a traceback."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_text_that_is_no_json_is_refused() -> None:
    """A config that travelled as text and was damaged is refused as such."""
    assert refusal("{").startswith("the config is not valid JSON")


def test_allowed_refuses_a_name_that_is_no_setting() -> None:
    """Asking for the range of a setting that is not there is the caller's mistake."""
    with pytest.raises(ValueError, match="no setting train.lrr"):
        allowed("train.lrr")


def test_every_field_says_what_it_means() -> None:
    """No setting is left without its meaning."""
    sections = [Config, *(field.annotation for field in Config.model_fields.values() if hasattr(field.annotation, "model_fields"))]
    silent = [
        (section, name)
        for section in sections
        for name, field in section.model_fields.items()  # type: ignore[union-attr]
        if not (field.description or hasattr(field.annotation, "model_fields"))
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("source", "root", "name"),
    [("mnist", None, "mnist"), ("folder", "photos/cats/", "cats"), ("s3", "s3://photos", "photos"), ("folder", "/", "folder")],
)
def test_data_has_a_name_for_a_person(source: str, root: str | None, name: str) -> None:
    """A user's own images are called by the folder that they are in."""
    settings = load_config(PARAMS).model_dump()
    settings["data"] |= {"source": source, "root": root}
    assert make_config(settings).data.name == name
