"""How many cores a process may use: its affinity, a container's quota, and what its user asks for."""

import os
from pathlib import Path

import pytest

from odn.cores import cpu_quotas, usable_cores, usable_memory

V1 = "5:memory:/docker/f00\n4:cpu,cpuacct:/docker/f00\n3:cpuset:/docker/f00\n"


def groups(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """Lay out the files of control groups below `root`, and say in which groups this process is."""
    for name, text in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "quotas"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, [2.0]),  # a container's own group, version 2
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, [1.5]),  # bound by the group above
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "150000 100000\n"}, [4.0, 1.5]),
        ("0::/../..\n", {"cpu.max": "300000 100000\n"}, [3.0]),  # seen from within a namespace
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, [0.5]),
        (V1, {"cpu/docker/f00/cpu.cfs_quota_us": "800000\n", "cpu/docker/f00/cpu.cfs_period_us": "100000\n"}, [8.0]),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, []),  # none
        (V1 + "0::/x\n", {"unified/x/cpu.max": "100000 50000\n"}, [2.0]),  # both versions at once
    ],
)
def test_a_quota_is_found_where_the_system_keeps_it(tmp_path: Path, cgroup: str, files: dict[str, str], quotas: list[float]) -> None:
    """Version 1 and 2 of control groups, seen from the host and from a container."""
    assert cpu_quotas(groups(tmp_path, cgroup, files)) == quotas


@pytest.mark.parametrize(
    "text", ["", "\n", "max", "100000", "-1 100000", "0 100000", "100000 0", "1e5 100000", "a b c", "٣ ٤", "9" * 40 + " 1"]
)
def test_a_quota_that_is_not_one_is_none(tmp_path: Path, text: str) -> None:
    """Nothing that a kernel, or a made-up one, writes there stops a training."""
    assert cpu_quotas(groups(tmp_path, "0::/\nnonsense\n::::\n", {"cpu.max": text})) == []
    assert usable_cores(root=tmp_path) >= 1


def test_without_control_groups_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has none of these files gives every core that the process may run on."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert usable_cores(root=tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("quota", ["50000 100000", "100000 100000", "190000 100000"])
def test_a_part_of_a_core_is_not_counted(tmp_path: Path, quota: str) -> None:
    """A thread more than the quota would be stopped for most of the time; one thread there always is."""
    assert usable_cores(root=groups(tmp_path, "0::/\n", {"cpu.max": quota})) == 1


@pytest.mark.parametrize(("asked", "most"), [("1", 1), ("1,4", 1), ("all", None), ("0", None), ("-3", None), ("", None), ("4096", None)])
def test_what_the_user_asks_for_is_the_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, most: int | None) -> None:
    """OMP_NUM_THREADS lowers the number and never raises it; what is no number is not looked at."""
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert usable_cores(root=tmp_path) == (most or len(os.sched_getaffinity(0)))


MEMINFO = {"../../../proc/meminfo": "MemTotal: 64 kB\nMemAvailable:   48 kB\n"}


@pytest.mark.parametrize(
    ("cgroup", "files", "n_bytes"),
    [
        ("0::/\n", MEMINFO, 48 * 1024),
        ("0::/a/b\n", MEMINFO | {"a/b/memory.max": "max\n", "a/memory.max": "4096\n"}, 4096),
        (
            V1,
            MEMINFO | {"memory/docker/f00/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.limit_in_bytes": "8192\n"},
            8192,
        ),
        (V1, MEMINFO | {"memory/memory.limit_in_bytes": "1048576\n"}, 48 * 1024),
        ("0::/\n", {"../../../proc/meminfo": "MemAvailable: lots kB\n", "memory.max": "١\n"}, None),
        ("", {}, None),
    ],
)
def test_memory_is_what_the_system_has_left_and_the_groups_allow(
    tmp_path: Path, cgroup: str, files: dict[str, str], n_bytes: int | None
) -> None:
    """The least of all; None where nothing can be read."""
    assert usable_memory(root=groups(tmp_path, cgroup, files)) == n_bytes
