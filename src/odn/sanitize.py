"""Make any text fit to be shown: no secret, no control character, no endless value.

Secrets are the user, password and query of every address, bearer tokens, `password=…` and its like, and the values of the environment's own
secrets wherever they turn up. A password of fewer than `LEAST` characters is hidden in its address only: elsewhere it may be any word.
"""

import functools
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
LEAST = 6  # characters of a secret that is looked for by its value
LONGEST = 2000  # characters of a line that is shown; of a longer one the middle is left out
HEAD, TAIL = 1400, 500

_NAMES = r"[\w-]*(?:token|secret|password|passwd|pwd|credential|signature|api[_-]?key|access[_-]?key|private[_-]?key)[\w-]*"
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
_PUBLIC_NAME = re.compile(
    r"(_FILE|_PATH|_URI|_URL|_DIR|_PORT|_HOST|^(OLD)?PWD)$"
)  # says where a secret is, or a server of them, or this folder
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>[^\s'\"<>|\\^`{}]+)")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?<![\w-])(?P<name>{_NAMES})(?P<is>=)(?P<value>[^\s,;&'\")]+)", re.IGNORECASE)
_MEANING = re.compile(r"[&<>|`*\[\]\\]")  # of Markdown; what stands for itself in any of its dialects is a character's number
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (they turn text around), surrogates, line and paragraph separators


def sanitized(text: object, *, environment: Mapping[str, str] = os.environ) -> str:
    """Return one line of text without secrets and control characters, cut in its middle where it is very long."""
    return _shortened(escaped(redacted(str(text), environment=environment)))


def redacted(text: str, *, environment: Mapping[str, str] = os.environ) -> str:
    """Return `text` without the secrets of any address in it, and of the environment."""
    for secret in _secrets_of(tuple(environment.items())):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    text = _ADDRESS.sub(_plain_address, text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    return _ASSIGNED.sub(rf"\g<name>\g<is>{HIDDEN}", text)


def escaped(text: str) -> str:
    r"""Return `text` in one line that a terminal takes as it is: `\n`, `\x1b` and their like are written out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(one.encode("unicode_escape").decode() if unicodedata.category(one) in _UNSAFE else one for one in text)


def markdown(text: object) -> str:
    """Return one line that Markdown shows as it is: no table, no link, no HTML."""
    return _MEANING.sub(lambda found: f"&#{ord(found[0])};", sanitized(text))


def _shortened(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[:HEAD]} … ({len(line):,} characters) … {line[-TAIL:]}"


def _plain_address(match: re.Match[str]) -> str:
    """Leave scheme, host and path of an address; what closes a sentence or a bracket behind it is no part of it."""
    rest, ending = match["rest"], ""
    while rest and rest[-1] in ").,;:!":
        rest, ending = rest[:-1], rest[-1] + ending
    rest, fragment, after = rest.partition("#")
    path, asked, _ = rest.partition("?")
    userinfo, found, place = path.rpartition("@")
    # Behind the first slash an @ may belong to a path, unless a colon before it says that the slash is a password's.
    if found and ("/" not in userinfo or ":" in userinfo.partition("/")[0]):
        path = f"{HIDDEN}@{place}"
    return f"{match['scheme']}{path}{'?' + HIDDEN if asked else ''}{fragment}{redacted(after, environment={}) if after else ''}{ending}"


@functools.lru_cache(maxsize=4)  # an environment seldom changes, and each line that is shown asks
def _secrets_of(environment: tuple[tuple[str, str], ...]) -> list[str]:
    """List an environment's secrets, those that hold others first."""
    return sorted(set(_secrets(environment)), key=len, reverse=True)


def _secrets(environment: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """Yield the environment's secrets in every form in which a library may print them."""
    for name, value in environment:
        found = []
        if _SECRET_NAME.search(name) and not _PUBLIC_NAME.search(name):
            found.append(value)
        if "://" in value:
            found.extend(_in_address(value.partition("://")[2]))
        for secret in found:
            forms = (secret, unquote(secret), unquote_plus(secret), quote(secret, safe=""), quote_plus(secret), secret.strip())
            yield from (form for form in forms if len(form) >= LEAST)


def _in_address(rest: str) -> Iterator[str]:
    path, _, query = rest.partition("?")
    userinfo, found, _ = path.rpartition("@")
    if found:
        yield userinfo
        yield userinfo.partition(":")[2]
    if query:
        yield query
        yield from (pair.partition("=")[2] for pair in query.split("&") if _SECRET_NAME.search(pair.partition("=")[0]))
