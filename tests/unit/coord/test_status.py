"""Pools as sums over their members."""

from __future__ import annotations

from shardline.coord.status import PoolView, pools_of
from shardline.coord.watch import Sighting
from shardline.core.cluster import LoadReport, PoolKey, ReplicaInfo, ReplicaState

ONE, TWO = PoolKey("digits", 1), PoolKey("minilm", 1)


def sighting(state: ReplicaState, **rows: int) -> Sighting[ReplicaInfo]:
    info = ReplicaInfo("r", "c", "l", state, (ONE, TWO), "cpu", "h", 1, 0.0)
    return Sighting(info, 1.0, {ONE: LoadReport(queue_rows=rows.get("queued", 0), running_rows=rows.get("running", 0))})


def test_a_pool_sums_up_its_members() -> None:
    members = [
        sighting(ReplicaState.READY, queued=3, running=2),
        sighting(ReplicaState.READY, queued=4),
        sighting(ReplicaState.DRAINING),
        sighting(ReplicaState.STARTING),
    ]
    assert pools_of(members) == (PoolView(ONE, 2, 1, 1, 7, 2), PoolView(TWO, 2, 1, 1, 0, 0))


def test_a_pool_without_a_ready_member_does_not_serve() -> None:
    (one, _) = pools_of([sighting(ReplicaState.STARTING)])
    assert not one.serving
