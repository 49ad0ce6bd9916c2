"""Check names, quantities and times before anything is compiled or sent, as Kubernetes, a registry and Kubeflow do once it is too late."""

import re
from collections.abc import Sequence

from odn.errors import ConfigError

LONGEST_NAME, LONGEST_LABEL, LONGEST_TITLE = 253, 63, 255
LEAST_MEMORY = 64 * 2**20  # bytes; less is a forgotten unit
_DNS = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
SUBDOMAIN = re.compile(rf"{_DNS}(?:\.{_DNS})*")  # RFC 1123
LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
CPU = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>m?)")  # what kfp takes of what Kubernetes takes
MEMORY = re.compile(r"(?P<number>[0-9]{1,18})(?P<unit>(?:[EPTGMK]i?)?)")
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
IMAGE = re.compile(
    rf"(?P<name>(?:{_HOST}/)?{_PART}(?:/{_PART})*)(?::(?P<tag>[A-Za-z0-9_][\w.-]{{0,127}}))?(?P<digest>@sha256:[0-9a-f]{{64}})?", re.ASCII
)
CRON = (  # field, least, most, names
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of week", 0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def require_subdomain(flag: str, name: str) -> None:
    """Refuse what cannot be the name of a Kubernetes object.

    Raises:
        ConfigError: see above.
    """
    if not SUBDOMAIN.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"{flag}: expected small letters, digits, - and ., as Kubernetes names its objects, such as odn-env; got {name!r}"
        )


def require_image(flag: str, image: str) -> None:
    """Refuse what is no image's name, or one that does not say which image is meant.

    Raises:
        ConfigError: see above.
    """
    match = IMAGE.fullmatch(image)
    if match is None or len(match["name"]) > LONGEST_TITLE:
        small = f" (did you mean {image.lower()}?)" if IMAGE.fullmatch(image.lower()) else ""
        raise ConfigError(f"{flag}: expected [REGISTRY[:PORT]/]NAME:TAG or NAME@sha256:…, the name in small letters; got {image!r}{small}")
    if not match["digest"] and match["tag"] in {None, "latest"}:
        raise ConfigError(
            f"{flag}: {image} does not say which image is meant, and Kubeflow's cache would not see it change; "
            "name it by digest (NAME@sha256:…) or by a tag of its own (NAME:GIT-SHA)"
        )


def require_cpu(flag: str, text: str) -> None:
    """Refuse what is no number of cores.

    Raises:
        ConfigError: see above.
    """
    match = CPU.fullmatch(text)
    if match is None or float(match["number"]) <= 0 or len(text) > 12:
        raise ConfigError(f"{flag}: expected a number of cores > 0, such as 4, 0.5 or 500m; got {text!r}")


def require_memory(flag: str, text: str) -> None:
    """Refuse what is no amount of memory, or less than any step needs.

    Raises:
        ConfigError: see above.
    """
    match = MEMORY.fullmatch(text)
    if match is None:
        raise ConfigError(f"{flag}: expected a whole number with a unit (Ki, Mi, Gi, Ti), such as 8Gi; got {text!r}")
    base = 1024 if match["unit"].endswith("i") else 1000
    if int(match["number"]) * base ** (" KMGTPE".index(match["unit"][0]) if match["unit"] else 0) < LEAST_MEMORY:
        raise ConfigError(f"{flag}: {text!r} is less than the 64Mi that a step needs at the least; is a unit missing, as in 8Gi?")


def labels(flag: str, given: Sequence[str]) -> dict[str, str]:
    """Return LABEL=VALUE texts as a map.

    Raises:
        ConfigError: one has no such form, or a label stands twice.
    """
    found: dict[str, str] = {}
    for text in given:
        label, is_pair, value = text.partition("=")
        prefix, has_prefix, name = label.rpartition("/")
        fits = LABEL.fullmatch(name) and len(name) <= LONGEST_LABEL
        fits = fits and (not has_prefix or (SUBDOMAIN.fullmatch(prefix) and len(prefix) <= LONGEST_NAME))
        fits = fits and (not value or (LABEL.fullmatch(value) and len(value) <= LONGEST_LABEL))
        if not (is_pair and fits):
            raise ConfigError(
                f"{flag}: expected LABEL=VALUE as Kubernetes writes labels, such as pool=gpu or example.com/pool=a100; got {text!r}"
            )
        if label in found:
            raise ConfigError(f"{flag}: label {label} is given twice, as {found[label]!r} and {value!r}; keep one")
        found[label] = value
    return found


def require_title(flag: str, text: str) -> None:
    """Refuse what cannot be shown as the name of a run.

    Raises:
        ConfigError: see above.
    """
    if not text.strip() or not text.isprintable() or len(text) > LONGEST_TITLE:
        raise ConfigError(f"{flag}: expected a name of 1 to {LONGEST_TITLE} printable characters; got {text!r}")


def require_cron(flag: str, text: str) -> None:
    """Refuse what is no time in six fields.

    Raises:
        ConfigError: see above.
    """
    fields = text.split()
    if len(fields) != len(CRON):
        hint = f"; with the second: '0 {text.strip()}'?" if len(fields) == len(CRON) - 1 else ""
        raise ConfigError(f"{flag}: expected six fields, seconds first, such as '0 0 3 * * *'; got {len(fields)} in {text!r}{hint}")
    for written, (name, least, most, words) in zip(fields, CRON, strict=True):
        if not all(_is_time(one, least=least, most=most, words=words) for one in written.split(",")):
            raise ConfigError(
                f"{flag}: the {name} must be *, or numbers from {least} to {most} with , - and /; got {written!r} in {text!r}"
            )


def _is_time(text: str, *, least: int, most: int, words: Sequence[str]) -> bool:
    span, has_step, step = text.partition("/")
    if has_step and not (step.isascii() and step.isdigit() and len(step) < 4 and int(step) > 0):
        return False
    if span in {"*", "?"}:
        return True
    ends = [str(least + words.index(one)) if one in words else one for one in span.lower().split("-")]
    if not all(one.isascii() and one.isdigit() and len(one) < 4 and least <= int(one) <= most for one in ends):
        return False
    return len(ends) == 1 or (len(ends) == 2 and int(ends[0]) <= int(ends[1]))
