"""Damage a record in every way that a disk, an editor or another version could: drawn from a seed, so that a failure repeats."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

WRONG: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 1.5, -0.5, 1e300, 10**6, 10**9, 2**63, 10**30, "", "banana", "NaN", "1",
    "\x1b[31m\nodn: forged", "x" * 3000, [], {}, [0], [[]], {"a": 1}, [None, "1"], "../../etc",
)  # fmt: skip
TOKENS = ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "0x10", "01", "9" * 5000, '"\\ud800"', "undefined", "'a'")
MARK = "\x00here\x00"


def mutated(content: bytes, random_: random.Random) -> bytes:
    """Return the record, damaged in one way."""
    kinds: Sequence[Callable[[bytes, random.Random], bytes]] = [_changed] * 8 + [_token] * 2 + [_bytes]
    return random_.choice(kinds)(content, random_)


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """List every place in a JSON value as (container, key)."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        found.append((value, key))
        _places(item, found)
    return found


def _changed(content: bytes, random_: random.Random) -> bytes:
    """Put a wrong value, delete, add, rename or repeat a field, or negate a number."""
    value = json.loads(content)
    places = _places(value, [])
    if not places:
        return json.dumps(random_.choice(WRONG)).encode()
    container, key = random_.choice(places)
    match random_.randrange(7):
        case 0 | 1:
            container[key] = random_.choice(WRONG)
        case 2:
            del container[key]
        case 3 if isinstance(container, dict):
            container[random_.choice(("", "extra", "skipped", "kind", "0", "depth "))] = random_.choice(WRONG)
        case 4 if isinstance(container, dict):
            container[f"{key}x"] = container.pop(key)
        case 5 if isinstance(container[key], int | float):
            container[key] = random_.choice(
                (-container[key], container[key] + 1, container[key] * 1000, float(container[key]), str(container[key]))
            )
        case _:
            value = random_.choice((container[key], [value], random_.choice(WRONG)))
    return json.dumps(value).encode()


def _token(content: bytes, random_: random.Random) -> bytes:
    """Put what is no JSON, or no number, in the place of a value; or let a field stand twice."""
    value = json.loads(content)
    places = _places(value, [])
    if not places:
        return random_.choice(TOKENS).encode()
    container, key = random_.choice(places)
    if isinstance(container, dict) and random_.random() < 0.3:
        first = json.dumps({key: random_.choice(WRONG)})[1:-1]
        return json.dumps(value).replace("{", "{" + first + ", ", 1).encode()
    container[key] = MARK
    return json.dumps(value).replace(json.dumps(MARK), random_.choice(TOKENS)).encode()


def _bytes(content: bytes, random_: random.Random) -> bytes:
    """Damage the bytes: empty, cut short, with a byte order mark, not UTF-8, nested without end, doubled, flipped."""
    at = random_.randrange(len(content) + 1)
    whole = (
        b"", b" ", b"\x00" * 16, content[:at], b"\xef\xbb\xbf" + content, content.decode().encode("utf-16"),
        content[:at] + b"\xff\xfe" + content[at:], b"[" * 100_000, b'{"a":' * 5000,
        content + content, content + b"x", b"[]", b"{}", b"null", b"0", b'""',
        content[:at] + bytes([content[at - 1] ^ 1 << random_.randrange(8)]) + content[at + 1 :],
    )  # fmt: skip
    return random_.choice(whole)
