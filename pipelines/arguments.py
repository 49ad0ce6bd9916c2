"""Read NAME=VALUE arguments for a run against what the compiled pipeline takes: Kubeflow itself would drop a wrong name silently."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from odn.errors import ConfigError


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


TYPES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "STRING": ("text", str),
    "NUMBER_INTEGER": ("a whole number", int),
    "NUMBER_DOUBLE": ("a number", float),
    "BOOLEAN": ("true or false", _boolean),
}


def run_arguments(spec: dict[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """Return NAME=VALUE texts as typed values.

    Raises:
        ConfigError: a name that the pipeline does not have, a value of another type, or one given twice.
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
        words, read = TYPES[inputs[name]["parameterType"]]
        try:
            values[name] = read(value)
        except (ValueError, KeyError):
            raise ConfigError(f"argument {name}: expected {words}; got {value!r}") from None
    return values
