"""A real Redis for every test, and members with short beats so that leases end within a test."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from shardline.coord.codec import REPLICA
from shardline.coord.connection import Connection
from shardline.coord.members import Membership
from shardline.coord.watch import MembersWatch
from shardline.core.cluster import PoolKey, ReplicaInfo, ReplicaState
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

    from shardline.coord.view import Event

BEAT_S, LEASE_S, POLL_S = 0.1, 0.6, 0.15
WAIT_S = 10.0
"""How long a test waits for what must happen; on a busy machine that may be late."""

DIGITS, MINILM = PoolKey("digits", 1), PoolKey("minilm", 2)


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def connection(redis_server: RedisServer) -> AsyncIterator[Connection]:
    async with Connection(redis_server.url, "test", timeout_s=0.5) as connection:
        yield connection


def replica(name: str = "r1", pools: tuple[PoolKey, ...] = (DIGITS,), **changes: Any) -> ReplicaInfo:
    values: dict[str, Any] = {"state": ReplicaState.READY, "host": "h", "pid": 1, "started_at": 0.0} | changes
    return ReplicaInfo(name, f"{name}:1", f"{name}:2", pools=pools, device="cpu", **values)


def member(connection: Connection, name: str = "r1", **options: Any) -> Membership:
    info = options.pop("info", None) or replica(name)
    return Membership(connection, info, **{"beat_s": BEAT_S, "lease_s": LEASE_S} | options)


class Spectator:
    """A watch of replicas that remembers what it was told."""

    def __init__(self, connection: Connection, **options: Any) -> None:
        self.events: list[Event[ReplicaInfo]] = []
        self.watch = MembersWatch(
            connection, REPLICA, on_event=self.events.append, **{"poll_s": POLL_S, "grace_s": 2 * LEASE_S} | options
        )

    def names(self) -> set[str]:
        return set(self.watch.members)

    def kinds(self) -> list[str]:
        return [f"{type(event).__name__} {event.info.id}" for event in self.events]


@contextlib.asynccontextmanager
async def running(*mains: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run mains beside the block; they are cancelled and awaited at its end, and their failures are raised."""
    tasks = [asyncio.create_task(main) for main in mains]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, Exception):
            raise outcome


async def eventually(holds: Callable[[], bool | Awaitable[bool]], what: str | Callable[[], object] = "") -> None:
    """Wait until it holds; fail after WAIT_S."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        answer = holds()
        if answer if isinstance(answer, bool) else await answer:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"did not happen in {WAIT_S} s: {what() if callable(what) else what or holds}")
