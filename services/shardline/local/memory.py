"""How much memory one replica on this machine may take."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil

_CGROUP_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
MAPPED_OVERHEAD_BYTES = 320 << 20
"""What a replica without a model holds as the kernel counts it for RLIMIT_DATA: writable memory that is mapped, whether used
or not. Measured: 279 MB, of which half are the stacks of 18 threads; 131 MB are resident."""


def mapped_limit_bytes(given: int = 0) -> int:
    """The bound on mapped memory of one process: the setting (0: none), RLIMIT_DATA and RLIMIT_AS; 0 where there is none."""
    limits = [given] if given else []
    for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    return min(limits, default=0)


def machine_bytes(files: tuple[str, ...] = _CGROUP_FILES) -> int:
    """Memory of this machine, or what the cgroup allows of it."""
    found = [int(psutil.virtual_memory().total)]
    for name in files:
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            found.append(int(text))
    return min(found)
