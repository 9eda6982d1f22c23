"""While clients are told to go elsewhere answers wait, and then leave in order."""

from __future__ import annotations

import asyncio

from shardline.core.errors import Unavailable
from shardline.wire.front import RECEIPT, Gate, _NativeReply, _Outlet


class Server:
    """A native front that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def respond(self, *answer: object) -> None:
        self.told.append(("respond", *answer))

    def fail(self, *answer: object) -> None:
        self.told.append(("fail", *answer))


def test_native_answers_that_are_held_leave_in_order_when_released() -> None:
    server = Server()
    outlet = _Outlet(server)
    calls: dict[int, object] = {1: None, 2: None, 3: None}
    _NativeReply(outlet, 1, calls).ok(b"one", "r")
    with outlet.held():
        _NativeReply(outlet, 2, calls).ok(b"two", "r")
        _NativeReply(outlet, 3, calls).fail(Unavailable("three"))
        assert len(server.told) == 1
    assert server.told == [
        ("respond", 1, b"one", None, [(RECEIPT, "r")]),
        ("respond", 2, b"two", None, [(RECEIPT, "r")]),
        ("fail", 3, 14, "three", []),
    ]
    assert calls == {}


async def test_grpcio_answers_pass_an_open_gate_at_once_and_a_held_one_when_it_opens() -> None:
    gate = Gate()
    await asyncio.wait_for(gate.passed(), 10)
    with gate.held():
        waiting = asyncio.ensure_future(gate.passed())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 10)
