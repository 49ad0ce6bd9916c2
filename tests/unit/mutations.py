"""Mutations of a text of settings, from a seed: of its bytes, of its lines, and of the values and names in them."""

import random
from collections.abc import Iterator

VALUES = (
    *(
        "",
        "~",
        "null",
        "yes",
        "no",
        "on",
        "True",
        "FALSE",
        "0",
        "-1",
        "1",
        "1.0",
        "-0.0",
        "1e-3",
        "1e999",
        "-1e308",
        ".inf",
        "-.inf",
        ".nan",
    ),
    *(
        "010",
        "0x10",
        "0o17",
        "0b_",
        "1_000",
        "1:30",
        "2026-13-45",
        "2026-11-27",
        "2026-11-27T25:61:61Z",
        "9" * 200,
        "9" * 5000,
        "1" + "." * 9,
    ),
    *('"01"', '"²"', '"٣"', "'1'", '""', '"a\\0b"', '"\\e[31m"', '"\\ud800"', '"\\U00110000"', '"\\Uffffffff"', '"x\\nodn: forged"', "'"),
    *(
        "[]",
        "{}",
        "[1, 2]",
        "[[1]]",
        "{a: 1}",
        "{after: 0}",
        "[" * 500,
        "{a: " * 500,
        "[" + "x, " * 500 + "]",
        "x" * 5000,
        "*a",
        "&a 1",
        "&a [*a]",
    ),
    *("!!int abc", "!!float x", "!!binary =", "!!timestamp 1", "!!set {a}", "!!omap [a: 1]", "!!python/object/apply:os.system [true]"),
    *(
        "! 1",
        "!<tag:x> 1",
        "| 1",
        "|\n    a\n   b",
        ">-",
        "? 1",
        "- 1",
        "%YAML 1.1",
        "---",
        "...",
        "<<: {a: 1}",
        "\ufeff",
        "\u2028",
        "\x85",
    ),
    *(
        "models:/a/1",
        "models:/\x7f/1",
        "s3://u:secret@b/p",
        "s3://b",
        "folder",
        "/",
        "..",
        "~nobody/x",
        "é",
        "🐈",
        "\u202e",
        "\t",
        "#",
        ": :",
    ),
)
BYTES = (
    b"\0",
    b"\x1b",
    b"\r",
    b"\n",
    b"\t",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b":",
    b"'",
    b'"',
    b"{",
    b"&",
)


def mutated(text: bytes, *, n: int, seed: int) -> Iterator[bytes]:
    """Yield `n` mutations; half of them mutate what is plain once more."""
    draw = random.Random(seed)
    for _ in range(n):
        content = text
        for _ in range(draw.choice((1, 1, 2, 3))):
            content = draw.choice((_value, _value, _value, _key, _line, _bytes))(content, draw)
        yield content


def _lines(text: bytes) -> list[bytes]:
    return text.split(b"\n")


def _settings(lines: list[bytes]) -> list[int]:
    return [number for number, line in enumerate(lines) if b": " in line.partition(b"#")[0]]


def _value(text: bytes, draw: random.Random) -> bytes:
    """Put another value, or another setting's, in a setting's place."""
    lines = _lines(text)
    places = _settings(lines)
    if not places:
        return text
    place = draw.choice(places)
    name = lines[place].partition(b": ")[0]
    other = lines[draw.choice(places)].partition(b": ")[2].partition(b"#")[0].strip()
    lines[place] = name + b": " + draw.choice((draw.choice(VALUES).encode("utf-8", "surrogatepass"), other, str(draw.random()).encode()))
    return b"\n".join(lines)


def _key(text: bytes, draw: random.Random) -> bytes:
    """Rename a setting."""
    lines = _lines(text)
    places = _settings(lines)
    if not places:
        return text
    place = draw.choice(places)
    name, _, value = lines[place].partition(b": ")
    indent = name[: len(name) - len(name.lstrip())]
    renamed = (
        draw.choice(VALUES).encode("utf-8", "surrogatepass"),
        name.strip() + b"x",
        lines[draw.choice(places)].partition(b": ")[0].strip(),
    )
    lines[place] = indent + draw.choice(renamed) + b": " + value
    return b"\n".join(lines)


def _line(text: bytes, draw: random.Random) -> bytes:
    """Drop, repeat, move or indent a line."""
    lines = _lines(text)
    place, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(5)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(other, lines[place])
    elif kind == 2:
        lines[place], lines[other] = lines[other], lines[place]
    elif kind == 3:
        lines[place] = draw.choice((b" ", b"  ", b"\t", b"- ")) + lines[place]
    else:
        lines[place] = lines[place].lstrip()
    return b"\n".join(lines)


def _bytes(text: bytes, draw: random.Random) -> bytes:
    """Flip, drop, insert or cut bytes."""
    place = draw.randrange(len(text) + 1)
    kind = draw.randrange(4)
    if kind == 0:
        return text[:place] + draw.choice(BYTES) + text[place:]
    if kind == 1:
        return text[:place] + bytes([draw.randrange(256)]) + text[place + 1 :]
    if kind == 2:
        return text[:place] + text[place + draw.randrange(1, 40) :]
    return text[:place]
