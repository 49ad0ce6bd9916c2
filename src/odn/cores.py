"""Count the processor cores that this process may use: its affinity, and the quota of its control groups."""

import os
from pathlib import Path

ROOT = Path("/")
MOST_CORES = 1 << 16  # a quota above that is a damaged file


def usable_cores(*, root: Path = ROOT) -> int:
    """Return how many cores this process may use, one at least; OMP_NUM_THREADS, where it is set, is the most."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [affinity, *_asked_for(), *(int(quota) for quota in cpu_quotas(root))]
    return max(1, min(limits))


def cpu_quotas(root: Path = ROOT) -> list[float]:
    """Return the quotas, in cores, of the control groups that this process is in; those that have none, or cannot be read, are left out.

    Version 2 says `MAX PERIOD` in cpu.max, version 1 has a file for each; a group is bound by every group above it.
    """
    groups = _groups(_text(root / "proc/self/cgroup"))
    mount = root / "sys/fs/cgroup"
    folders = [mount / base / above for base, group in groups for above in _upwards(group)]
    return [quota for folder in dict.fromkeys(folders) if (quota := _quota(folder)) is not None]


def _asked_for() -> list[int]:
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list gives one for each level of nesting
    return [int(first)] if first.isascii() and first.isdigit() and int(first) > 0 else []


def _groups(text: str) -> list[tuple[str, str]]:
    """Return where the hierarchies that bind the processor are mounted, and this process's group in each, from lines `ID:NAMES:PATH`."""
    found = []
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        group = path.strip("/")
        if not names:
            found += [("", group), ("unified", group)]
        elif "cpu" in names.split(","):
            found += [(names, group), ("cpu", group)]
    return found


def _upwards(group: str) -> list[str]:
    """List a group and all above it, up to where the hierarchy is mounted, which in a container is the container's own group."""
    parts = [part for part in group.split("/") if part not in {"", ".."}]
    return ["/".join(parts[:n]) for n in range(len(parts), -1, -1)]


def _quota(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split() or [_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words):  # `max`, -1: no quota
        return None
    quota, period = (int(word) for word in words)
    return quota / period if 0 < quota <= MOST_CORES * period else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
