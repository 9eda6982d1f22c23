"""`shardline serve` replaces a replica that died, while callers go on."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import psutil

from tests.cluster_process import eventually
from tests.faults.load import Load, wholly_one_version
from tests.integration.local.local_cluster import LocalCluster

if TYPE_CHECKING:
    from pathlib import Path

REPLACED_S = 60.0


def replicas(cluster: LocalCluster) -> set[int]:
    """Process ids of the replicas that live."""
    return {process.pid for process in cluster.role("shardline.replica")}


def ready_replicas(cluster: LocalCluster) -> set[int]:
    """Process ids of the replicas that are ready, as `shardline status` tells them."""
    answer = cluster.command("status", "--json")
    assert answer.returncode == 0, answer.stderr
    view: dict[str, Any] = json.loads(answer.stdout)
    return {replica["pid"] for replica in view["replicas"] if replica["state"] == "ready"}


def test_serve_replaces_a_dead_replica_and_no_client_sees_an_error(repository: Path, tmp_path: Path) -> None:
    with LocalCluster(repository, tmp_path / "cluster", "--replicas", "2") as cluster:
        cluster.start_ready()
        before = ready_replicas(cluster)
        victim = min(before)
        with Load(cluster.url, "versioned", wholly_one_version, rows=(1, 2, 20)) as load:
            psutil.Process(victim).send_signal(signal.SIGKILL)
            eventually(lambda: len(ready_replicas(cluster) - {victim}) == len(before), lambda: cluster.err, REPLACED_S)
            load.more_answers(100)
            load.at_least()
        print(load.seen)
        assert (load.seen.errors, load.seen.wrong) == ({}, [])
