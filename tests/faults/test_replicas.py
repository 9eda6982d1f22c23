"""Replicas that die, stop answering, or are told to end, while callers go on."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.cluster_process import STOP_S, eventually
from tests.faults.load import Load, wholly_one_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster_process import ClusterProcess

LINKS_UP = 'shardline_links{state="up"}'


def test_a_dead_replica_costs_no_client_an_error(start: Callable[..., ClusterProcess]) -> None:
    cluster = start(front="native", replicas=2)
    router, victim = cluster.role("router")[0], cluster.role("replica")[0]
    with Load(cluster.url, "versioned", wholly_one_version, rows=(1, 2, 20)) as load:
        os.kill(victim.pid, signal.SIGKILL)
        eventually(lambda: router.value(LINKS_UP) == 1, "the router noticed")
        load.more_answers(100)
        load.at_least()
    print(load.seen)
    assert (load.seen.errors, load.seen.wrong) == ({}, [])
    assert router.value("shardline_retries_total") > 0  # rows were there when it died, and ran elsewhere


def test_rows_of_a_stopped_replica_run_elsewhere_and_its_late_answers_are_discarded(
    start: Callable[..., ClusterProcess],
) -> None:
    cluster = start(front="grpcio", replicas=2)
    router, victim = cluster.role("router")[0], cluster.role("replica")[0]
    with Load(cluster.url, "versioned", wholly_one_version, rows=(1, 2, 20)) as load:
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            eventually(lambda: router.value(LINKS_UP) == 1, "the router noticed")
            load.more_answers(100)
        finally:
            os.kill(victim.pid, signal.SIGCONT)
        eventually(lambda: router.value(LINKS_UP) == 2, "the router is linked to it again")
        before = victim.value("shardline_batch_rows_count")
        load.at_least()
        load.more_answers(100)
        after = victim.value("shardline_batch_rows_count")
    print(load.seen)
    assert (load.seen.errors, load.seen.wrong) == ({}, [])
    assert router.value("shardline_retries_total") > 0
    assert after > before


def test_a_replica_that_is_told_to_end_costs_no_client_an_error(
    start: Callable[..., ClusterProcess],
) -> None:
    cluster = start(front="native", replicas=2)
    router, leaving = cluster.role("router")[0], cluster.role("replica")[0]
    with Load(cluster.url, "versioned", wholly_one_version, rows=(1, 2, 20)) as load:
        leaving.process.send_signal(signal.SIGTERM)
        assert leaving.process.wait(STOP_S) == 0
        eventually(lambda: router.value(LINKS_UP) == 1, "the router noticed")
        load.more_answers(100)
        load.at_least()
    print(load.seen)
    assert (load.seen.errors, load.seen.wrong) == ({}, [])
