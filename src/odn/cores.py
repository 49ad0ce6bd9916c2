"""Count the processor cores, and the bytes of memory, that this process may use: by its affinity and its control groups."""

import os
from pathlib import Path

ROOT = Path("/")
MOST_CORES = 1 << 16  # a quota above that is a damaged file
MOST_BYTES = 1 << 60  # a limit above that is none: version 1 has its largest number for that


def usable_cores(*, root: Path = ROOT) -> int:
    """Return how many cores this process may use, one at least; OMP_NUM_THREADS, where it is set, is the most."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [affinity, *_asked_for(), *(int(quota) for quota in cpu_quotas(root))]
    return max(1, min(limits))


def cpu_quotas(root: Path = ROOT) -> list[float]:
    """Return the quotas, in cores, of the control groups that this process is in; those that have none, or cannot be read, are left out.

    Version 2 says `MAX PERIOD` in cpu.max, version 1 has a file for each; a group is bound by every group above it.
    """
    return [quota for folder in _folders(root, controller="cpu") if (quota := _quota(folder)) is not None]


def usable_memory(*, root: Path = ROOT) -> int | None:
    """Return how many bytes this process may hold: what the system has left, and no more than its control groups allow; None: unknown."""
    left = [line.split() for line in _text(root / "proc/meminfo").splitlines() if line.startswith("MemAvailable:")]
    limits = [int(words[1]) * 1024 for words in left if len(words) == 3 and words[1].isascii() and words[1].isdigit()]
    for folder in _folders(root, controller="memory"):
        limit = (_text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes")).strip()
        if limit.isascii() and limit.isdigit() and int(limit) < MOST_BYTES:
            limits.append(int(limit))
    return min(limits, default=None)


def _folders(root: Path, *, controller: str) -> list[Path]:
    """List where the system keeps what binds this process: of every group that it is in, and of every group above."""
    mount = root / "sys/fs/cgroup"
    groups = _groups(_text(root / "proc/self/cgroup"), controller=controller)
    return list(dict.fromkeys(mount / base / above for base, group in groups for above in _upwards(group)))


def _asked_for() -> list[int]:
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list gives one for each level of nesting
    return [int(first)] if first.isascii() and first.isdigit() and int(first) > 0 else []


def _groups(text: str, *, controller: str) -> list[tuple[str, str]]:
    """Return where the hierarchies of a controller are mounted, and this process's group in each, from lines `ID:NAMES:PATH`."""
    found = []
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        group = path.strip("/")
        if not names:
            found += [("", group), ("unified", group)]
        elif controller in names.split(","):
            found += [(names, group), (controller, group)]
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
