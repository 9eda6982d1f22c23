"""How many CPUs this process may really use: the least of affinity and the cgroups' quotas."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def available_cpus(cgroups: Path = _CGROUPS, own: Path = _OWN, affinity: int | None = None) -> int:
    """Whole CPUs, at least 1.

    A quota of 1.5 CPUs gives 1: a thread more than the quota is throttled for the rest of each period.
    """
    allowed = len(os.sched_getaffinity(0)) if affinity is None else affinity
    quota = cgroup_quota(cgroups, own)
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def cgroup_quota(cgroups: Path = _CGROUPS, own: Path = _OWN) -> float | None:
    """The tightest CPU quota of this process's cgroup and all above it, in CPUs; None where there is none."""
    found: list[float] = []
    for folder in _folders(cgroups, own):
        for read in (_version_2, _version_1):
            quota = read(folder)
            if quota is not None:
                found.append(quota)
    return min(found, default=None)


def _folders(cgroups: Path, own: Path) -> list[Path]:
    """Folders that may hold a limit: each hierarchy's root, and what /proc/self/cgroup names with its parents."""
    roots = [cgroups, cgroups / "cpu", cgroups / "cpu,cpuacct"]
    try:
        lines = own.read_text(encoding="ascii").splitlines()
    except OSError:
        return roots
    folders = list(roots)
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" or "cpu" in controllers.split(","):
            parts = Path(path.lstrip("/"))
            folders += [root / above for root in roots for above in (parts, *parts.parents)]
    return folders


def _version_2(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    if len(words) != 2 or words[0] == "max":
        return None
    return int(words[0]) / int(words[1])


def _version_1(folder: Path) -> float | None:
    quota = _words(folder / "cpu.cfs_quota_us")
    period = _words(folder / "cpu.cfs_period_us")
    if not quota or not period or int(quota[0]) <= 0:
        return None
    return int(quota[0]) / int(period[0])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
