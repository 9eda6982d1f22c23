"""A router that lives and does not read: what it is owed waits for it, and no other router waits with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import zmq

from shardline.wire.link import LinkOptions, LinkServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SMALL = LinkOptions(high_water=4)
FRAME = bytes(1 << 16)
MESSAGES = 200


class Peer:
    """A router that reads when the test says so."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, identity: bytes) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, identity)
        self.socket.setsockopt(zmq.RCVHWM, 4)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(address)
        self.socket.send(b"hello")

    async def read(self, count: int) -> list[int]:
        """The numbers of the next messages."""
        numbers: list[int] = []
        async with asyncio.timeout(20):
            while len(numbers) < count:
                try:
                    numbers.append(int(self.socket.recv_multipart(zmq.NOBLOCK)[0]))
                except zmq.Again:
                    await asyncio.sleep(0.001)
        return numbers


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
async def server() -> AsyncIterator[LinkServer]:
    server = LinkServer("tcp://127.0.0.1:*", SMALL)
    yield server
    server.close()


async def linked(server: LinkServer, *peers: bytes) -> None:
    """Wait until all of them have said hello."""
    seen: set[bytes] = set()
    server.listen(lambda peer, _header, _frames: seen.add(peer))
    async with asyncio.timeout(20):
        while seen != set(peers):  # noqa: ASYNC110  nothing tells it
            await asyncio.sleep(0.005)


async def test_what_a_router_does_not_read_is_kept_in_order_until_it_does(
    server: LinkServer, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    slow, quick = Peer(context, server.address, b"slow"), Peer(context, server.address, b"quick")
    await linked(server, b"slow", b"quick")
    for number in range(MESSAGES):
        assert server.send(b"slow", b"%d" % number, [FRAME])
    assert server.send(b"quick", b"7", [FRAME])
    assert await quick.read(1) == [7]
    assert await slow.read(MESSAGES) == list(range(MESSAGES))
    assert server.send(b"slow", b"%d" % MESSAGES, [])
    assert await slow.read(1) == [MESSAGES]


async def test_what_is_kept_for_a_router_is_bounded(
    server: LinkServer, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardline.wire.link._KEPT_MESSAGES", 10)
    slow = Peer(context, server.address, b"slow")
    await linked(server, b"slow")
    sent = [server.send(b"slow", b"%d" % number, [FRAME]) for number in range(MESSAGES)]
    taken = [number for number, done in enumerate(sent) if done]
    assert len(taken) < MESSAGES
    assert await slow.read(len(taken)) == taken


async def test_what_was_kept_for_a_router_that_is_gone_is_dropped(
    server: LinkServer, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    slow = Peer(context, server.address, b"slow")
    await linked(server, b"slow")
    for number in range(MESSAGES):
        server.send(b"slow", b"%d" % number, [FRAME])
    slow.socket.close(linger=0)
    async with asyncio.timeout(20):
        while server.send(b"slow", b"last", []):  # noqa: ASYNC110  nothing tells it
            await asyncio.sleep(0.01)
