"""What was answered is freed at once: requests hold tensors, which must not wait for the cyclic collector."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from shardline.router.calls import Part, Request
from tests.unit.router.messages import infer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.router.doubles import Cluster, Replica


pytestmark = pytest.mark.usefixtures("no_collector")


def answered(_cluster: Cluster, replica: Replica, _submitted: list[Request | None]) -> None:
    replica.answer(*replica.read())


def refused(_cluster: Cluster, replica: Replica, _submitted: list[Request | None]) -> None:
    replica.refuse(*replica.read(), reason="model_failed", message="why")


def cancelled(cluster: Cluster, replica: Replica, submitted: list[Request | None]) -> None:
    replica.read()
    for request in submitted:
        assert request is not None
        cluster.dispatcher.cancel(request)
    cluster.turn()


@pytest.mark.parametrize("end", [answered, refused, cancelled])
def test_no_request_outlives_its_end(
    cluster: Cluster, end: Callable[[Cluster, Replica, list[Request | None]], None]
) -> None:
    replica = cluster.join("a")
    callers = cluster.send(*(infer(float(number)) for number in range(5)))
    submitted = [caller.request for caller in callers]
    assert _alive() >= 10
    end(cluster, replica, submitted)
    submitted.clear()
    cluster.ledger.entries.clear()
    for caller in callers:
        caller.request = None
        caller.error = None  # its traceback names the request
    assert _alive() == 0


def _alive() -> int:
    return sum(isinstance(item, (Request, Part)) for item in gc.get_objects())
