"""Read YAML and JSON text as plain values: sections, lists, text, numbers, true, false and null; whatever is more is refused by its place.

YAML is read as DVC reads it, after YAML 1.2: `1e-3` is a number. What readers of YAML take differently, or for a date or a number of
another base, such as `yes`, `1:30` or `0x10`, is refused where it stands without quotes.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from odn.errors import ConfigError

LARGEST = 1 << 18  # bytes of a file of settings
DEEPEST = 16  # sections within sections
MOST_DIGITS = 300  # of a number
CONSTANTS = {"": None, "~": None} | {
    form: value for word, value in (("null", None), ("true", True), ("false", False)) for form in (word, word.upper(), word.capitalize())
}
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
OTHER_BASE = re.compile(r"[-+]?0o?[0-9]+")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
HALF = re.compile("[\ud800-\udfff]")
NOT_FINITE = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)


def read_yaml(path: Path) -> Any:
    """Read a file of settings.

    Raises:
        ConfigError: it cannot be read, is no YAML, or holds more than plain values; with its line and column.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; run odn in the project's folder, or name the file with --params") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # a zero byte in its name
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if len(content) > LARGEST:
        raise ConfigError(f"{path} is no file of settings: it is larger than {LARGEST:,} bytes")
    try:
        return _Document(path, yaml.parse(content.decode(), Loader=yaml.SafeLoader)).read()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: it is not UTF-8 text, from byte {error.start:,} on") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None, "the parser says where it stops"
        why = ", ".join(said for said in (error.context, error.problem) if said)
        raise ConfigError(f"{path} is not valid YAML: line {mark.line + 1}, column {mark.column + 1}: {why}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a control character, or an escape of no character
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def read_json(text: str, *, what: str) -> Any:
    """Read JSON text; `what` names it in a refusal.

    Raises:
        ConfigError: it is no JSON, a key stands twice, or it is nested without end.
    """

    def section(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ConfigError(f"{what}: {key} stands twice in a section; keep one")
            found[key] = value
        return found

    try:
        value = json.loads(text, object_pairs_hook=section)
        json.dumps(value, ensure_ascii=False).encode()  # half of a character is a ValueError as well
        return value
    except ValueError as error:
        raise ConfigError(f"{what} is not valid JSON: {error}") from None
    except RecursionError:
        raise ConfigError(f"{what} is not valid JSON: sections within sections without end") from None


@dataclass(frozen=True)
class _Document:
    """Build the value of the one document that a parser's events tell of."""

    path: Path
    events: Iterator[Any]  # of PyYAML, whose types lack what they hold
    anchors: dict[str, Any] = field(default_factory=dict)  # of plain values

    def read(self) -> Any:
        """Return the value; `None` for an empty file."""
        value = None
        for number, start in enumerate(event for event in self.events if isinstance(event, yaml.DocumentStartEvent)):
            if number:
                raise self.refusal(start, "a second document begins; keep one")
            if start.version or start.tags:  # %YAML 1.1 would make `yes` a boolean for DVC
                raise self.refusal(start, "lines such as %YAML are not taken; remove them")
            value = self.value(next(self.events), depth=0)
        return value

    def value(self, event: Any, *, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise self.refusal(event, f"*{event.anchor} stands for no plain value; write out what is meant")
            return self.anchors[event.anchor]
        if event.tag is not None:
            shown = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise self.refusal(event, f"the tag {shown} is not taken; write the plain value")
        if depth > DEEPEST:
            raise self.refusal(event, f"sections are nested more than {DEEPEST} deep")
        if isinstance(event, yaml.MappingStartEvent):
            return self.section(event, depth=depth + 1)
        if isinstance(event, yaml.SequenceStartEvent):
            return [self.value(one, depth=depth + 1) for one in self.until(yaml.SequenceEndEvent)]
        if HALF.search(event.value):
            raise self.refusal(event, "the text holds half of a character, as \\ud800 is")
        value = event.value if event.style is not None else _unquoted(event.value)
        if event.style is None and isinstance(value, str) and _is_ambiguous(value):
            raise self.refusal(event, f"{value[:80]} is more than text to YAML; put it in quotes, or write a number, true, false or null")
        if event.anchor is not None:
            self.anchors[event.anchor] = value
        return value

    def section(self, start: Any, *, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for event in self.until(yaml.MappingEndEvent):
            key = self.value(event, depth=depth)
            if isinstance(key, (dict, list)):
                raise self.refusal(event, "the name of a setting is text, not a section or a list")
            if key in found:
                line = start.start_mark.line + 1
                raise self.refusal(event, f"setting {key} stands twice in the section that begins in line {line}; keep one")
            found[key] = self.value(next(self.events), depth=depth)
        return found

    def until(self, end: type[yaml.Event]) -> Iterator[Any]:
        """Yield the events that begin a value, up to the end of the section or list."""
        while not isinstance(event := next(self.events), end):
            yield event

    def refusal(self, event: Any, why: str) -> ConfigError:
        return ConfigError(f"{self.path}, line {event.start_mark.line + 1}, column {event.start_mark.column + 1}: {why}")


def _unquoted(text: str) -> Any:
    if text in CONSTANTS:
        return CONSTANTS[text]
    if len(text) > MOST_DIGITS:
        return text
    if WHOLE.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text):
        return float(text)
    return float(text.replace(".", "")) if NOT_FINITE.fullmatch(text) else text


def _is_ambiguous(text: str) -> bool:
    """Tell whether a reader of YAML 1.1 or 1.2 would make anything but text of it."""
    kinds = yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], ())
    return any(pattern.match(text) for _, pattern in kinds) or OTHER_BASE.fullmatch(text) is not None
