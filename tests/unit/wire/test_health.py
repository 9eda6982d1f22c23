"""grpc.health.v1: what watchers are told, and when their streams end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from shardline.wire.health import NOT_SERVING, SERVING, Health, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Aborted(Exception):
    """What grpc.aio raises in a handler that aborts."""


class Context:
    """As much of a call's context as the servicer uses."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None

    async def abort(self, code: grpc.StatusCode, _details: str) -> None:
        self.code = code
        raise Aborted


def watch(health: Health, name: str = "") -> AsyncIterator[Any]:
    return health.Watch(health_pb2.HealthCheckRequest(service=name), Context())


async def next_of(stream: AsyncIterator[Any]) -> Any:
    async with asyncio.timeout(10):
        return (await anext(stream)).status


async def test_a_watcher_hears_the_state_now_and_every_change() -> None:
    health = Health()
    stream = watch(health, "digits")
    assert await next_of(stream) == Response.SERVICE_UNKNOWN
    health.set("digits", True)
    assert await next_of(stream) == SERVING
    health.set("other", True)
    health.set("digits", False)
    assert await next_of(stream) == NOT_SERVING


async def test_a_watcher_that_leaves_does_not_take_the_others_changes_along() -> None:
    health = Health()
    first, second = watch(health), watch(health)
    assert [await next_of(first), await next_of(second)] == [SERVING, SERVING]
    await first.aclose()  # type: ignore[attr-defined]
    health.set("", False)
    assert await next_of(second) == NOT_SERVING


async def test_a_server_that_drains_serves_nothing_for_good() -> None:
    health = Health()
    health.set("digits", True)
    health.drain()
    health.set("digits", True)
    answer = await health.Check(health_pb2.HealthCheckRequest(service="digits"), Context())
    assert answer.status == NOT_SERVING


async def test_watches_end_when_the_server_does_after_the_last_state() -> None:
    health = Health()
    early = watch(health)
    assert await next_of(early) == SERVING
    health.drain()
    assert await next_of(early) == NOT_SERVING
    health.end()
    late = watch(health)
    assert await next_of(late) == NOT_SERVING
    for stream in (early, late):
        with pytest.raises(Aborted):
            await next_of(stream)


async def test_a_name_that_is_not_known_is_not_found() -> None:
    context = Context()
    with pytest.raises(Aborted):
        await Health().Check(health_pb2.HealthCheckRequest(service="digits"), context)
    assert context.code is grpc.StatusCode.NOT_FOUND
