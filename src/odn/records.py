"""Read every record that a stage wrote, JSON or a table, into its type; whatever is not exactly of that type is refused in one line.

A record is a dataclass that derives from `Record`; its annotations say what each field may hold, a `model_validator` what must hold
between fields. Numbers are finite, texts are no numbers, unknown fields and fields that stand twice are refused.
"""

import csv
import io
import json
import reprlib
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from odn.errors import DataError, MissingInputError

T = TypeVar("T")

LARGEST = 2**63 - 1
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Saved = Annotated[float, Field(le=1)]  # a fraction that is below 0 where more is spent
Amount = Annotated[float, Field(ge=0, le=1e15)]
Milliseconds = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Interval = tuple[Fraction, Fraction]


class Record:
    """Be the base of what is read: strict types, no other fields, no NaN or infinity."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Part:
    """Be the base of a record of which a reader needs these fields only."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


def read_record(kind: type[T], path: Path, *, made_by: str) -> T:
    """Read a JSON record.

    `made_by` is the stage that writes it, such as `check@2`; or a whole command, such as `odn route`.

    Raises:
        MissingInputError: it is not there.
        DataError: it is damaged; the message names the field, its value and the way to write it anew.
    """
    content = _bytes(path, made_by=made_by)
    try:
        return parse_record(kind, content)
    except ValueError as error:
        raise damaged(path, str(error), made_by=made_by) from None


def read_if_there(kind: type[T], path: Path, *, made_by: str) -> T | None:
    """Read a JSON record as `read_record` does; None where it is not there yet."""
    return read_record(kind, path, made_by=made_by) if path.exists() else None


def read_known(kind: type[T], path: Path, *, otherwise: str) -> T | None:
    """Read what was found out before, for use again; None where it is not there or damaged, which is said with what is done `otherwise`."""
    try:
        return read_if_there(kind, path, made_by="")
    except DataError as error:
        sys.stderr.write(f"odn: {DataError(str(error).partition('; run ')[0])}; {otherwise}\n")
        return None


def read_table(kind: type[T], path: Path, *, made_by: str) -> list[T]:
    """Read a CSV table whose columns are the fields of `kind`; there may be no row.

    Raises:
        MissingInputError: it is not there.
        DataError: it is damaged; the message names the line, the column, its value and the way to write it anew.
    """
    rows: list[T] = []
    names = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    content = _bytes(path, made_by=made_by)
    try:
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""), restkey="", strict=True)
        if sorted(reader.fieldnames or ()) != sorted(names):
            raise ValueError(f"expected the columns {', '.join(names)}; got {reprlib.repr(','.join(reader.fieldnames or ()))}")
        for row in reader:
            try:
                rows.append(_adapter(kind).validate_strings({name: value for name, value in row.items() if value is not None}))
            except ValidationError as error:
                raise ValueError(f"line {reader.line_num}: {_message(error)}") from None
    except (ValueError, csv.Error) as error:
        raise damaged(path, str(error), made_by=made_by) from None
    return rows


def parse_record(kind: type[T], content: bytes | str) -> T:
    """Return the record that JSON holds.

    Raises:
        ValueError: it is not of this kind; one line names the field and its value.
    """
    try:
        record: T = _adapter(kind).validate_json(content)
    except ValidationError as error:
        raise ValueError(_message(error)) from None
    json.loads(content, object_pairs_hook=_once)
    return record


def damaged(path: Path, why: str, *, made_by: str) -> DataError:
    """Return the error that says what is wrong with a record, and how it is written anew."""
    way_out = f"delete it and run '{made_by}' again" if " " in made_by else f"run 'dvc repro -f {made_by}' to write it anew"
    return DataError(f"{path} is damaged: {why}; {way_out}")


def _bytes(path: Path, *, made_by: str) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        command = made_by if " " in made_by else f"dvc repro {made_by}"
        raise MissingInputError(f"{path} is missing; run '{command}' first") from None
    except IsADirectoryError:
        raise damaged(path, "it is a folder", made_by=made_by) from None


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what validates a kind, made at its first use."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise ValueError(f"{name} stands twice")
        seen[name] = value
    return seen


def _message(error: ValidationError) -> str:
    """Say in one line what the first of pydantic's errors is, and how many more there are; `<tags>` of unions are no part of a place."""
    first, *more = error.errors(include_url=False)
    place = ".".join(str(part) for part in first["loc"] if not str(part).startswith("<"))
    if first["type"] == "json_invalid":
        said = f"not JSON ({first['ctx']['error']})"
    elif first["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
        said = f"{place} is missing"
    elif first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        said = f"unknown field {place}"
    elif first["type"] == "value_error":
        said = f"{place}: {first['ctx']['error']}" if place else str(first["ctx"]["error"])
    else:
        wanted = first["msg"].partition(" should ")[2]
        said = f"{place or 'the content'} {f'must {wanted}' if wanted else first['msg']}; got {reprlib.repr(first['input'])}"
    return said + (f" (and {len(more)} more)" if more else "")
