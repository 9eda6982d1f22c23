"""An unloaded version leaves nothing behind: neither a queue, a gauge nor a waiting thread keeps its session."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from shardline.core.cluster import PoolKey
from shardline.ops import allocator
from shardline.ops.metrics import Metrics
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.replica import host as hosts
from shardline.replica import scheduler as schedulers
from shardline.replica.devices import DeviceOptions
from shardline.replica.host import Host
from shardline.replica.intake import Intake
from shardline.replica.scheduler import Scheduler
from shardline.wire.link import PROTOCOL
from tests.onnx_models import matmul, save

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

POOL = PoolKey("m", 1)


class Caller:
    """A router's end: answers and refusals as they come."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()

    def results(self, _batch: object, _outcome: object) -> None:
        self.answered.set()

    def refuse(self, _chunk: object, _calls: object, error: Exception) -> None:
        raise error

    def refuse_peer(self, _peer: bytes, _calls: object, error: Exception) -> None:
        raise error

    def flush(self) -> None:
        return


def rows() -> bytes:
    head = pb.RowHead(model="m", version=1)
    head.inputs.add(name="x", datatype="FP32", dims=[4])
    group = pb.RowGroup(
        head=head.SerializeToString(), calls=[1], rows=[1], columns=[np.zeros((1, 4), np.float32).tobytes()]
    )
    return pb.ToReplica(protocol=PROTOCOL, groups=[group]).SerializeToString()


async def test_the_session_is_freed_although_a_thread_ran_its_last_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedulers, "INLINE_BELOW_S", 0.0)
    monkeypatch.setattr(hosts, "RETIRE_GRACE_S", 0.0)
    save(tmp_path, "m", 1, matmul())
    host = Host(tmp_path, (), DeviceOptions(), lambda: None, Metrics("replica", "0"))
    caller: Any = Caller()
    scheduler = Scheduler(caller)
    try:
        await host.load_all()
        Intake(host.find, scheduler, caller).receive(b"e-1", rows(), [])
        async with asyncio.timeout(10):
            await caller.answered.wait()
        served = host.find(POOL)
        assert served is not None
        session = weakref.ref(served.session._session)
        del served
        await host.unload("m")
        async with asyncio.timeout(10):
            while session() is not None:
                gc.collect()
                await asyncio.sleep(0)
    finally:
        scheduler.close()


def test_giving_back_what_is_free_harms_nobody() -> None:
    kept = bytearray(b"x" * (1 << 20))
    assert allocator.give_back_free_memory() in (True, False)
    assert kept == b"x" * (1 << 20)
