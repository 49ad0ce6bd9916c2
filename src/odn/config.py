"""Turn `params.yaml` into one frozen, typed `Config`, refusing whatever is unknown, missing, ill-typed or out of range.

The sections are in `odn.sections`. To Kubeflow the config travels as one canonical
JSON string (`Config.to_json`), which reads back to an equal object.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from odn.backbones import can_be_narrowed, is_outside, n_blocks_of
from odn.errors import ConfigError
from odn.modes import Mode
from odn.plain import read_json, read_yaml
from odn.refusals import REFUSED, allowed_in, missing_in, refusals, shown
from odn.sections import SearchConfig, Settings

LEAST_RUNGS = {"resnet18": 8, "resnet34": 9, "resnet50": 9}  # of a spread ladder, at width 0.25 and below
DEPTH = re.compile(r"[1-9][0-9]{0,3}")  # as a key of the schedule: no 01, and no digits of another script


def _read_schedule(search: Any) -> Any:
    """Read `schedule`; what is wrong with it is one of the refusals, beside those of other sections."""
    try:
        return _schedule_in(search)
    except ConfigError as error:
        raise PydanticCustomError(REFUSED, "{said}", {"said": error.args[0]}) from None


def _schedule_in(search: Any) -> Any:
    """Accept `schedule` as a list of depths, or as the map {"depth": {after: depth}} that DVC's foreach needs."""
    if not isinstance(search, dict) or "schedule" not in search:
        return search
    schedule = search["schedule"]
    if isinstance(schedule, dict):
        depths, previous = [], 0
        for key, entry in schedule.items():
            if not (isinstance(key, str) and DEPTH.fullmatch(key) and isinstance(entry, dict) and set(entry) == {"after"}):
                raise ConfigError(
                    f'search.schedule: each entry reads "2": {{after: 1}}, with the depth in quotes; got {shown(key)}: {shown(entry)}'
                )
            if type(entry["after"]) is not int or entry["after"] != previous:
                raise ConfigError(f"search.schedule: depth {key} must come after {previous}; got after: {shown(entry['after'])}")
            depths.append(int(key))
            previous = int(key)
    elif isinstance(schedule, (list, tuple)):
        depths = list(schedule)
    else:
        raise ConfigError(f"search.schedule: expected a map of depths or a list; got {shown(schedule)}")
    if not depths:
        raise ConfigError("search.schedule: is empty; name at least one depth")
    for depth in depths:
        if type(depth) is not int or depth < 1:
            raise ConfigError(f"search.schedule: a depth is a whole number ≥ 1; got {shown(depth)}")
    if any(deeper <= shallower for shallower, deeper in pairwise(depths)):
        raise ConfigError(f"search.schedule: depths must ascend; got {shown(depths)}")
    return {**search, "schedule": tuple(depths)}


class Config(Settings):
    """Hold everything that changes a number: the whole of `params.yaml`, with its schedule as a tuple."""

    search: Annotated[SearchConfig, BeforeValidator(_read_schedule)] = SearchConfig()

    def to_json(self) -> str:
        """Return the canonical JSON: keys sorted, no spaces; equal configs give equal strings."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def to_short_json(self) -> str:
        """Return canonical JSON of the settings that are not the defaults, and a digest of the defaults that it counts on."""
        whole, usual = self.model_dump(mode="json"), Config().model_dump(mode="json")
        changes: dict[str, Any] = {}
        for name, value in whole.items():
            if isinstance(value, dict):
                differing = {key: one for key, one in value.items() if one != usual[name][key]}
                changes |= {name: differing} if differing else {}
            elif value != usual[name]:
                changes[name] = value
        return json.dumps({"changes": changes, "defaults": _defaults_digest()}, sort_keys=True, separators=(",", ":"))

    @property
    def mode(self) -> Mode:
        """Return what the configured mode means."""
        return self.search.meaning

    @property
    def spreads(self) -> bool:
        """Return whether the rungs are thin networks that keep every stride, and not prefixes of the backbone."""
        return self.search.spreads

    @property
    def unit(self) -> str:
        """Name what a number of the schedule counts: a rung of the ladder, or the depth of a prefix."""
        return "rung" if self.spreads else "depth"

    @property
    def n_units(self) -> int:
        """Count the rungs up to the whole backbone, or its blocks."""
        model = self.model
        if self.spreads:
            return 1 if self.search.budget else rungs_of(model.backbone, width=model.width)
        return n_blocks_of(model.backbone, model.arguments)

    @property
    def normalises_by_backbone(self) -> bool:
        """Return whether images are normalised as those that the backbone was trained on, and not by their own mean and deviation."""
        return self.data.normalise == "backbone" or (self.data.normalise is None and self.model.weights is not None)

    def require_pair(self, depth: int, *, after: int) -> None:
        """Require that the schedule grows `depth` from `after`.

        Raises:
            ConfigError: `depth` is not in the schedule, or follows another.
        """
        before = self.depth_before(depth)
        if after != before:
            raise ConfigError(
                f"depth {depth} grows from depth {before} by search.schedule {list(self.search.schedule)}; got --after {after}"
            )

    def depth_before(self, depth: int) -> int:
        """Return the scheduled depth that `depth` grows from; 0 for the first.

        Raises:
            ConfigError: `depth` is not in the schedule.
        """
        schedule = self.search.schedule
        if depth not in schedule:
            raise ConfigError(f"depth {depth} is not in search.schedule {list(schedule)}")
        return (0, *schedule)[schedule.index(depth)]


def rungs_of(backbone: str, *, width: float) -> int:
    """Count the rungs of a spread ladder, up to the backbone itself: each has about half the bytes of the next, or somewhat more."""
    return max(LEAST_RUNGS[backbone], 1 + halvings_of(backbone, width=width)) if can_be_narrowed(backbone) else 1


def halvings_of(backbone: str, *, width: float) -> int:
    """Count how often a backbone is halved down to the smallest network that is tried, of about 22 kB."""
    return max(2, LEAST_RUNGS[backbone] - 1 + round(2 * math.log2(width / 0.25)))


def load_config(path: Path) -> Config:
    """Read and check `params.yaml`.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds a setting that is refused; every refusal is named.
    """
    return _complete(read_yaml(path))


def make_config(settings: Any) -> Config:
    """Check settings (nested dicts, or a canonical JSON string), all of which must be there, and return them typed.

    Raises:
        ConfigError: one line for each refused setting: its name, what is allowed, the value, the nearest right name.
    """
    return _complete(read_json(settings, what="the config") if isinstance(settings, str) else settings)


def read_config(text: str) -> Config:
    """Read what `to_short_json` wrote, or the whole config as JSON.

    Raises:
        ConfigError: a setting is refused, or what was written counts on other defaults than this version of odn has.
    """
    content = read_json(text, what="the config")
    if not isinstance(content, dict) or set(content) != {"changes", "defaults"}:
        return _complete(content)
    if content["defaults"] != _defaults_digest():
        raise ConfigError(
            "the config was written by a version of odn whose settings have other defaults than those of this one; "
            "compile the pipeline, and build its image, from the same commit"
        )
    usual = Config().model_dump(mode="json")
    changes = content["changes"] if isinstance(content["changes"], dict) else {"changes": content["changes"]}
    merged = {name: usual[name] | value if isinstance(value, dict) and isinstance(usual.get(name), dict) else value
              for name, value in changes.items()}  # fmt: skip
    return _complete(usual | merged)


def _defaults_digest() -> str:
    return hashlib.sha256(Config().to_json().encode()).hexdigest()[:16]


def settings(changes: Mapping[str, Any] | None = None, *, n_blocks: int | None = None, n_rungs: int | None = None) -> Config:
    """Return the defaults with some settings, by their dotted names, changed: {"train.lr": 0.05}.

    `n_blocks` counts the blocks, and `n_rungs` the rungs, of a network that is not `model.backbone` at `model.width`.

    Raises:
        ConfigError: a setting is unknown or refused.
    """
    return changed(Config(), changes or {}, n_blocks=n_blocks, n_rungs=n_rungs)


def changed(config: Config, changes: Mapping[str, Any], *, n_blocks: int | None = None, n_rungs: int | None = None) -> Config:
    """Return a config with some settings, by their dotted names, changed.

    Raises:
        ConfigError: a setting is unknown or refused.
    """
    content = json.loads(config.to_json())
    for key, value in changes.items():
        section, found, setting = key.partition(".")
        if not found:
            content[section] = value
        elif isinstance(content.get(section), dict):
            content[section][setting] = value
        else:
            content[section] = {setting: value}  # to be refused by its name
    return _complete(json.loads(json.dumps(content)), n_blocks=n_blocks, n_rungs=n_rungs)


def _complete(settings: Any, *, n_blocks: int | None = None, n_rungs: int | None = None) -> Config:
    """Check settings, none of which may be missing: a file says all that a run depends on."""
    if not isinstance(settings, dict):
        raise ConfigError(f"the config holds no sections of settings; got {shown(settings)}")
    missing = missing_in(settings, Config)
    try:
        config = Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(*refusals(error.errors(include_url=False), Config, missing=missing)) from None
    if missing:
        raise ConfigError(*refusals([], Config, missing=missing))
    model = config.model
    n_blocks = n_blocks or n_blocks_of(model.backbone, model.arguments)
    _check_backbone(config, n_blocks=n_blocks)
    _cross_check(config, n_blocks=n_blocks, n_rungs=n_rungs or rungs_of(model.backbone, width=model.width))
    return config


def _check_backbone(config: Config, *, n_blocks: int) -> None:
    model, wrong = config.model, []
    if config.spreads and not can_be_narrowed(model.backbone):
        wrong.append(
            f"search.ladder: {model.backbone} cannot be narrowed, and is searched by its prefixes; set it to prefix, and search.schedule "
            f"to depths up to {n_blocks} ('odn preset pretrained' prints settings for pretrained networks)"
        )
    if model.weights is not None and not is_outside(model.backbone):
        wrong.append(f"model.weights: only networks of timm and torchvision have them, not {model.backbone}; set it to null")
    if model.weights == "timm" and not model.backbone.startswith("timm/"):
        wrong.append(f"model.weights: timm has none of {model.backbone}; name a file")
    if config.data.normalise == "backbone" and not is_outside(model.backbone):
        wrong.append(f"data.normalise: nobody says on which images {model.backbone} was trained; set it to data or null")
    if model.arguments and can_be_narrowed(model.backbone):
        wrong.append(f"model.arguments: {model.backbone} takes none; set it to {{}}")
    if model.weights is not None and config.mode.inherits and config.growth.init != "pretrained":
        wrong.append(f"growth.init: {config.growth.init} would replace pretrained blocks as they are added; set it to pretrained")
    if wrong:
        raise ConfigError(*wrong)


def _cross_check(config: Config, *, n_blocks: int, n_rungs: int) -> None:
    deepest, model = config.search.schedule[-1], config.model
    if config.spreads and deepest > n_rungs:
        raise ConfigError(
            f"search.schedule: rung {shown(deepest)} is beyond the {n_rungs} rungs from the smallest network to the whole "
            f"{model.backbone} at width {model.width:g}; end the schedule at {n_rungs}"
        )
    if config.search.budget and (not config.spreads or config.mode.exhaustive):
        first = next(iter(config.search.budget))
        raise ConfigError(f"search.max_{first}: a budget needs search.mode climb and search.ladder spread; set it to null, or change these")
    if not config.spreads and deepest > n_blocks:
        raise ConfigError(
            f"search.schedule: depth {shown(deepest)} is beyond the {n_blocks} blocks of model.backbone {config.model.backbone}; "
            f"end the schedule at {n_blocks} or choose a deeper backbone"
        )
    if config.growth.min_epochs > config.growth.max_epochs:
        raise ConfigError(f"growth.min_epochs: {config.growth.min_epochs} is more than growth.max_epochs {config.growth.max_epochs}")
    if config.train.batch_size % config.train.processes or config.train.batch_size < 2 * config.train.processes:
        raise ConfigError(
            f"train.processes: {config.train.processes} cannot share train.batch_size {config.train.batch_size} evenly, two images or more "
            "each; make the batch a multiple"
        )
    wrong = config.mode.check(config)
    if wrong is not None:
        raise ConfigError(wrong)
    widths = config.supernet.widths
    if 1.0 not in widths or len(set(widths)) < len(widths):
        raise ConfigError(f"supernet.widths: expected fractions without repetition, 1.0 among them; got {list(widths)}")
    if config.mode.one_depth and len(config.search.schedule) > 1:
        raise ConfigError(
            f"search.schedule: with search.mode {config.search.mode} one depth is trained; got {list(config.search.schedule)}; "
            f'leave the one that is meant, such as {{"{deepest}": {{after: 0}}}}'
        )
    if "\0" in (config.data.root or ""):
        raise ConfigError(f"data.root: no path has a zero byte in it; got {shown(config.data.root)}")
    _check_data(config)


def _check_data(config: Config) -> None:
    if config.data.source in ("folder", "s3") and config.data.root is None:
        raise ConfigError(f"data.root: must name where the images are when data.source is {config.data.source}")
    if config.data.source == "s3" and not str(config.data.root).startswith("s3://"):
        raise ConfigError(f"data.root: expected s3://bucket/prefix when data.source is s3; got {config.data.root}")
    if config.data.source == "s3" and set("@:") & set(str(config.data.root).removeprefix("s3://").partition("/")[0]):
        raise ConfigError(
            f"data.root: an s3 address holds no user and password, which the environment tells (see docs/data.md); got {config.data.root}"
        )
    if config.data.source != "s3" and str(config.data.root).startswith("s3://"):
        raise ConfigError(f"data.root: {config.data.root} needs data.source: s3; got data.source: {config.data.source}")
    if config.data.image_size is not None and config.data.source not in ("folder", "s3"):
        raise ConfigError(f"data.image_size: only folder and s3 images are resized; set it to null for {config.data.source}")


def allowed(name: str) -> str:
    """Say in words which values the setting `name` takes: `a number > 0 and < 1`.

    Raises:
        ValueError: there is no such setting.
    """
    return allowed_in(Config, name)
