"""One of two routers on the port is told to end, while callers go on."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.cluster_process import STOP_S
from tests.faults.conftest import FRONTS
from tests.faults.load import Load, wholly_one_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster_process import ClusterProcess

CHANNELS = 24
"""So many that each of two routers gets some: the kernel deals connections out by their addresses."""


@pytest.mark.parametrize("front", FRONTS)
def test_a_router_that_ends_loses_no_call(start: Callable[..., ClusterProcess], front: str) -> None:
    cluster = start(front=front, routers=2, replicas=2)
    leaving = cluster.role("router")[0]
    with Load(cluster.url, "versioned", wholly_one_version, rows=(1, 2), channels=CHANNELS, pause_s=0.0) as load:
        load.more_answers(200)
        assert leaving.value("shardline_requests_total") > 0
        leaving.process.send_signal(signal.SIGTERM)
        assert leaving.process.wait(STOP_S) == 0
        load.more_answers(100)
        load.at_least()
    print(load.seen)
    assert (load.seen.errors, load.seen.wrong) == ({}, [])
