"""Say of a setting what it may be, and of one that is refused what is wrong with it and which name was probably meant."""

import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

from odn.renamed import REMOVED, REMOVED_VALUES, SETTINGS

REFUSED = "refused"  # the type of an error that says all by itself
MOST = 20  # settings that are refused one by one; of more, how many there are is said
NUMBER_AS_TEXT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")  # in quotes


def _fields(location: tuple[str | int, ...], root: type[BaseModel]) -> list[str]:
    """Return the names that are known in the section at `location`."""
    section: Any = root
    for part in location:
        field = section.model_fields.get(str(part))
        section = field.annotation if field is not None else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
    return list(section.model_fields)


def _every_name(root: type[BaseModel]) -> list[str]:
    return [name for section in _fields((), root) for name in (section, *(f"{section}.{key}" for key in _fields((section,), root)))]


def shown(value: Any) -> str:
    """Return a value as Python writes it, shortened where it is long or deep."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 200
    short.maxlong, short.maxlist, short.maxtuple, short.maxdict, short.maxlevel = 40, 20, 20, 8, 3
    return short.repr(value)


def missing_in(settings: Mapping[str, Any], root: type[BaseModel]) -> list[tuple[str, ...]]:
    """Return where settings of the form `root` are missing: whole sections, and settings of those that are there."""
    found: list[tuple[str, ...]] = []
    for section in _fields((), root):
        if section not in settings:
            found.append((section,))
        elif isinstance(settings[section], dict):
            found += [(section, key) for key in _fields((section,), root) if key not in settings[section]]
    return found


def refusals(errors: Sequence[Any], root: type[BaseModel], *, missing: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Say a line on each of the settings of the form `root` that pydantic refuses, or that are missing."""
    old = {SETTINGS.get(_name_of(item)) for item in errors if item["type"] == "extra_forbidden"}
    items = [*errors, *({"type": "missing", "loc": place} for place in missing if ".".join(place) not in old)]
    yield from dict.fromkeys(refusal(item, root) for item in items[:MOST])  # a value of none of several kinds is refused by each kind
    if len(items) > MOST:
        yield f"{len(items) - MOST:,} more settings are refused"


def _name_of(item: Any) -> str:
    return ".".join(map(str, item["loc"]))


def refusal(item: Any, root: type[BaseModel]) -> str:
    """Say of one of pydantic's errors on settings of the form `root` which setting it is, what is allowed, and what was found."""
    location: tuple[str | int, ...] = item["loc"]
    if item["type"] == REFUSED:
        return str(item["msg"])
    if item["type"] == "string_unicode":  # half of a character, as "\ud800" in quotes; of a name pydantic does not say where
        return f"{'.'.join(map(str, location)) or 'the config'}: must be text in Unicode; got {shown(item['input'])}"
    if item["type"] not in {"invalid_key", "extra_forbidden"}:
        location = location[:2]  # without the entry of a list, or the one of several kinds that a value may be of
    name = ".".join(str(part) for part in location)
    if item["type"] == "extra_forbidden":
        return f"unknown setting {name}{_way_out(location, root)}"
    if item["type"] == "missing":
        return f"missing setting {name} ({allowed_in(root, name)})"
    if item["type"] == "invalid_key":
        return f"unknown setting {name}: a setting's name is text"
    value, hint = item["input"], ""
    if isinstance(value, tuple):
        value = list(value)  # as it was written
    if isinstance(value, str):
        schema = _schema_of(root, name)
        near = difflib.get_close_matches(value, schema.get("enum", schema.get("examples", [])), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        if (name, value) in REMOVED_VALUES:
            hint = f" (it was removed: {REMOVED_VALUES[name, value]})"
        if NUMBER_AS_TEXT.fullmatch(value):
            hint = f" (this is text: write {float(value)}, without quotes)"
    return f"{name}: must be {allowed_in(root, name)}; got {shown(value)}{hint}"


def _way_out(location: tuple[str | int, ...], root: type[BaseModel]) -> str:
    """Say what to do about a setting that is not known: its name of now, what to use instead, or the nearest right name."""
    name, last = ".".join(str(part) for part in location), str(location[-1])
    if name in SETTINGS:
        return f": renamed to {SETTINGS[name]}"
    if name in REMOVED:
        return f": it was removed; {REMOVED[name]}"
    known = _fields(location[:-1], root)
    near = [".".join((*map(str, location[:-1]), match)) for match in difflib.get_close_matches(last, known, n=1)]
    near = near or [other for other in _every_name(root) if other.split(".")[-1] == last]
    return f" (did you mean {near[0]}?)" if near else f" (known here: {', '.join(known)})"


def allowed_in(root: type[BaseModel], name: str) -> str:
    """Say in words which values the setting `name` takes: `a number > 0 and < 1`.

    Raises:
        ValueError: there is no such setting.
    """
    choices = _schema_of(root, name).get("anyOf") or [_schema_of(root, name)]
    return " or ".join(_words(choice) for choice in choices)


def _schema_of(root: type[BaseModel], name: str) -> dict[str, Any]:
    schema = _whole_schema(root)
    definitions = schema["$defs"]
    for part in name.split("."):
        if part not in schema.get("properties", {}):
            raise ValueError(f"no setting {name}")
        schema = schema["properties"][part]
        if "$ref" in schema:
            schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


@cache
def _whole_schema(root: type[BaseModel]) -> dict[str, Any]:
    return root.model_json_schema()


def _words(schema: dict[str, Any]) -> str:
    if "enum" in schema or "examples" in schema:
        return "one of " + ", ".join(schema.get("enum", schema.get("examples", [])))
    if "const" in schema:
        return str(schema["const"])
    if schema["type"] == "array" and schema["items"]["type"] == "number":
        return "a list of numbers " + _words(schema["items"]).removeprefix("a number ")
    if schema["type"] == "array" and "enum" in schema["items"]:
        return f"a list of {', '.join(schema['items']['enum'])}, each at most once"
    kinds = {"number": "a number", "integer": "a whole number", "boolean": "true or false", "string": "text", "null": "null"}
    kinds |= {"object": "a section of settings", "array": "a map or a list of depths"}
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤", "pattern": "that matches"}
    bounds = [f"{sign} {schema[key]}".removesuffix(".0") for key, sign in signs.items() if key in schema]
    return " ".join((kinds[schema["type"]], " and ".join(bounds))).strip()
