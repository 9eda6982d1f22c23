"""How cores are shared."""

from __future__ import annotations

import pytest

from shardline.local.budget import threads_per_replica


@pytest.mark.parametrize(
    ("cores", "replicas", "threads"), [(8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 4, 1), (1, 1, 1), (4, 0, 4)]
)
def test_replicas_share_the_cores_and_each_has_at_least_one(cores: int, replicas: int, threads: int) -> None:
    assert threads_per_replica(cores, replicas) == threads
