"""Read NAME=VALUE arguments for a run against what the compiled pipeline takes: Kubeflow itself would drop a wrong name silently."""

import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from odn.config import changed, read_config
from odn.errors import ConfigError
from pipelines.names import require_title

SETTINGS = {  # argument of the pipeline: the setting that it takes the place of, as in components/configure.py
    "target": "search.target",
    "data_source": "data.source",
    "data_root": "data.root",
    "max_epochs": "growth.max_epochs",
    "epochs": "climb.epochs",
    "seed": "seed",
}
LARGEST = 2**53  # numbers travel as doubles
WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _text(text: str) -> str:
    text.encode()  # a ValueError where the terminal's bytes were no UTF-8
    return text


def _whole(text: str) -> int:
    if not WHOLE.fullmatch(text) or abs(int(text)) > LARGEST:
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    if not NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


TYPES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "STRING": ("text in UTF-8", _text),
    "NUMBER_INTEGER": ("a whole number", _whole),
    "NUMBER_DOUBLE": ("a number", _number),
    "BOOLEAN": ("true or false", _boolean),
}


def _default(declared: dict[str, Any]) -> Any:
    """Return a default as KFP hands it on; in the YAML every number is a double."""
    value = declared.get("defaultValue")
    return int(value) if declared["parameterType"] == "NUMBER_INTEGER" and isinstance(value, float) else value


def run_arguments(spec: dict[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """Return NAME=VALUE texts as typed values, checked as the first step of a run will check them.

    Raises:
        ConfigError: a name that the pipeline does not have, a value of another type or one given twice, or a setting that is refused.
    """
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    values: dict[str, Any] = {}
    for text in given:
        name, found, value = text.partition("=")
        if not found:
            raise ConfigError(f"expected NAME=VALUE, such as target=0.99; got {text!r}")
        if name not in inputs:
            near = difflib.get_close_matches(name, inputs, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(inputs))}"
            raise ConfigError(f"the pipeline has no argument {name} ({hint})")
        if name in values:
            raise ConfigError(f"argument {name} is given twice; keep one")
        kind = inputs[name].get("parameterType")
        if kind not in TYPES:
            raise ConfigError(f"argument {name}: the YAML gives it the type {kind}; run 'python -m pipelines compile' again")
        words, read = TYPES[kind]
        try:
            values[name] = read(value)
        except (ValueError, KeyError):
            raise ConfigError(f"argument {name}: expected {words}; got {value!r}") from None
    whole = {name: _default(one) for name, one in inputs.items()} | values
    changed(read_config(str(whole["config"])), {setting: None if whole[name] == "" else whole[name] for name, setting in SETTINGS.items()})
    require_title("argument experiment", str(whole["experiment"]))
    return values
