"""Turn `params.yaml` into one frozen, typed `Config`, refusing whatever is unknown, missing, ill-typed or out of range.

The sections are in `odn.sections`. To Kubeflow the config travels as one canonical
JSON string (`Config.to_json`), which reads back to an equal object.
"""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from odn.errors import ConfigError
from odn.refusals import allowed_in, refusal
from odn.sections import (
    AugmentConfig,
    AutoConfig,
    DataConfig,
    DistillConfig,
    FinishConfig,
    GrowthConfig,
    ModelConfig,
    PaperConfig,
    PruneConfig,
    RegistryConfig,
    RouteConfig,
    SearchConfig,
    Section,
    SupernetConfig,
    TrainConfig,
)

N_BLOCKS = {"resnet18": 8, "resnet34": 16, "resnet50": 16}  # a law holds it equal to models.zoo, without importing torch here
TARGETLESS_SECTIONS = ("data", "model", "train", "augment", "growth")  # what the weights of a depth depend on, beside the seed


def _schedule_in(search: Any) -> Any:
    """Accept `schedule` as a list of depths, or as the map {"depth": {after: depth}} that DVC's foreach needs."""
    if not isinstance(search, dict) or "schedule" not in search:
        return search
    schedule = search["schedule"]
    if isinstance(schedule, dict):
        depths, previous = [], 0
        for key, entry in schedule.items():
            if not (isinstance(key, str) and key.isdigit() and isinstance(entry, dict) and set(entry) == {"after"}):
                raise ConfigError(f'search.schedule: each entry reads "2": {{after: 1}}, with the depth in quotes; got {key!r}: {entry!r}')
            if entry["after"] != previous:
                raise ConfigError(f"search.schedule: depth {key} must come after {previous}; got after: {entry['after']!r}")
            depths.append(int(key))
            previous = int(key)
    elif isinstance(schedule, (list, tuple)):
        depths = list(schedule)
    else:
        raise ConfigError(f"search.schedule: expected a map of depths or a list; got {schedule!r}")
    if not depths:
        raise ConfigError("search.schedule: is empty; name at least one depth")
    for depth in depths:
        if type(depth) is not int or depth < 1:
            raise ConfigError(f"search.schedule: a depth is a whole number ≥ 1; got {depth!r}")
    if any(deeper <= shallower for shallower, deeper in pairwise(depths)):
        raise ConfigError(f"search.schedule: depths must ascend; got {depths}")
    return {**search, "schedule": tuple(depths)}


class Config(Section):
    """Hold everything that changes a number: the whole of `params.yaml`."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(description="of every random draw")
    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    augment: AugmentConfig
    growth: GrowthConfig
    search: Annotated[SearchConfig, BeforeValidator(_schedule_in)]
    paper: PaperConfig
    supernet: SupernetConfig
    distill: DistillConfig
    auto: AutoConfig
    route: RouteConfig
    prune: PruneConfig
    finish: FinishConfig
    registry: RegistryConfig

    def to_json(self) -> str:
        """Return the canonical JSON: keys sorted, no spaces; equal configs give equal strings."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def in_mode(self, mode: str) -> "Config":
        """Return the same settings under another `search.mode`."""
        return self.model_copy(update={"search": self.search.model_copy(update={"mode": mode})})

    def depth_before(self, depth: int) -> int:
        """Return the scheduled depth that `depth` grows from; 0 for the first.

        Raises:
            ConfigError: `depth` is not in the schedule.
        """
        schedule = self.search.schedule
        if depth not in schedule:
            raise ConfigError(f"depth {depth} is not in search.schedule {list(schedule)}")
        return (0, *schedule)[schedule.index(depth)]


def load_config(path: Path) -> Config:
    """Read and check `params.yaml`.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds a setting that is refused; every refusal is named.
    """
    try:
        settings = yaml.load(path.read_text(), Loader=_OnceLoader)  # noqa: S506  a SafeLoader
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; run odn in the project's folder, or name the file with --params") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    return make_config(settings)


class _OnceLoader(yaml.SafeLoader):
    """Refuse a key that stands twice in a section, where YAML would quietly take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"setting {key} stands twice in the section that begins in line {node.start_mark.line + 1}; keep one")
        return super().construct_mapping(node, deep=deep)


def make_config(settings: Any) -> Config:
    """Check settings (nested dicts, or a canonical JSON string) and return them typed.

    Raises:
        ConfigError: one line for each refused setting: its name, what is allowed, the value, the nearest right name.
    """
    if isinstance(settings, str):
        try:
            settings = json.loads(settings)
        except ValueError as error:
            raise ConfigError(f"the config is not valid JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"the config holds no sections of settings; got {settings!r}")
    try:
        config = Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(*(refusal(item, Config) for item in error.errors(include_url=False))) from None
    _cross_check(config)
    return config


def changed(config: str, changes: Mapping[str, Any]) -> Config:
    """Return the settings of a canonical JSON with a run's own, {"section.key": value}, over them.

    Raises:
        ConfigError: a setting is refused.
    """
    settings = make_config(config).model_dump(mode="json")
    for name, value in changes.items():
        *sections, key = name.split(".")
        place = settings
        for section in sections:
            place = place[section]
        place[key] = value
    return make_config(settings)


def _cross_check(config: Config) -> None:
    n_blocks, deepest = N_BLOCKS[config.model.backbone], config.search.schedule[-1]
    if deepest > n_blocks:
        raise ConfigError(
            f"search.schedule: depth {deepest} is beyond the {n_blocks} blocks of model.backbone {config.model.backbone}; "
            f"end the schedule at {n_blocks} or choose a deeper backbone"
        )
    if config.growth.min_epochs > config.growth.max_epochs:
        raise ConfigError(f"growth.min_epochs: {config.growth.min_epochs} is more than growth.max_epochs {config.growth.max_epochs}")
    if config.search.mode == "paper" and config.paper.target != config.search.target:
        raise ConfigError(
            f"paper.target: with search.mode paper it must be that of search.target, {config.search.target:g}; got {config.paper.target:g}"
        )
    widths = config.supernet.widths
    if 1.0 not in widths or len(set(widths)) < len(widths):
        raise ConfigError(f"supernet.widths: expected fractions without repetition, 1.0 among them; got {list(widths)}")
    if config.search.mode in {"scratch", "prune"} and len(config.search.schedule) > 1:
        raise ConfigError(
            f"search.schedule: with search.mode {config.search.mode} one depth is trained; got {list(config.search.schedule)}; "
            f'leave the one that is meant, such as {{"{deepest}": {{after: 0}}}}'
        )
    _check_teaching(config)
    if config.search.mode == "prune" and config.prune.phases[1] < 1:
        raise ConfigError(
            f"prune.dense_fraction: {config.prune.dense_fraction:g} and prune.settle_fraction {config.prune.settle_fraction:g} of "
            f"{config.prune.epochs} epochs leave none in which gates are learnt; lower one of them"
        )
    if config.data.source in ("folder", "s3") and config.data.root is None:
        raise ConfigError(f"data.root: must name where the images are when data.source is {config.data.source}")
    if config.data.source == "s3" and not str(config.data.root).startswith("s3://"):
        raise ConfigError(f"data.root: expected s3://bucket/prefix when data.source is s3; got {config.data.root}")
    if config.data.source != "s3" and str(config.data.root).startswith("s3://"):
        raise ConfigError(f"data.root: {config.data.root} needs data.source: s3; got data.source: {config.data.source}")
    if config.data.image_size is not None and config.data.source not in ("folder", "s3"):
        raise ConfigError(f"data.image_size: only folder and s3 images are resized; set it to null for {config.data.source}")


def _check_teaching(config: Config) -> None:
    mode, distill = config.search.mode, config.search.distill
    if distill != "none" and mode not in ("growth", "grid", "scratch"):
        raise ConfigError(f"search.distill: nobody teaches with search.mode {mode}; set it to none; got {distill}")
    if distill in ("shallower", "exits") and mode != "growth":
        raise ConfigError(
            f"search.distill: {distill} needs search.mode growth, as the depths of {mode} know nothing of one another; "
            f"set it to none, full or a model of the registry"
        )
    if config.search.shave and mode not in ("growth", "grid"):
        raise ConfigError(f"search.shave: with search.mode {mode} there is no trunk of the depth before to try; set it to false")


def allowed(name: str) -> str:
    """Say in words which values the setting `name` takes: `a number > 0 and < 1`.

    Raises:
        ValueError: there is no such setting.
    """
    return allowed_in(Config, name)
