"""How the machine's cores are shared between the replicas of a local cluster."""

from __future__ import annotations


def threads_per_replica(cores: int, replicas: int) -> int:
    """Threads of each replica's runtime: the cores shared evenly, at least one.

    More threads than cores make every replica slower, since the runtime's threads wait for each other.

    >>> threads_per_replica(8, 3)
    2
    """
    return max(1, cores // max(1, replicas))
