"""Activations on their way to the next stages: links that are opened when first needed, messages gathered per turn."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardline.core.errors import Exhausted, NextStageGone
from shardline.ops import logs
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.wire.link import PROTOCOL, LinkClient, LinkContext

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardline.core.errors import ServingError
    from shardline.wire.codec import Buffer

log = logs.get(__name__)

CONNECT_S = 2.0
"""How long rows wait for a link that was never up; after that they are refused and the router tries another replica."""
_HELD_MESSAGES = 256
"""Messages that wait for a link to come up; the rows of more are refused."""
_SENT_MESSAGES = 512
"""Messages whose calls are remembered, to tell routers when the link breaks."""


@dataclass(slots=True)
class _Next:
    """The link to one replica of a later stage. held: messages until the link is up; sent: calls of the last ones."""

    address: str
    link: LinkClient | None = None
    message: pb.ToReplica = field(default_factory=lambda: pb.ToReplica(protocol=PROTOCOL))
    frames: list[Buffer] = field(default_factory=list)
    calls: list[tuple[bytes, list[int]]] = field(default_factory=list)
    held: deque[tuple[bytes, list[Buffer], list[tuple[bytes, list[int]]]]] = field(default_factory=deque)
    sent: deque[list[tuple[bytes, list[int]]]] = field(default_factory=lambda: deque(maxlen=_SENT_MESSAGES))
    timer: asyncio.TimerHandle | None = None


class Forwarder:
    """Sends row groups to replicas of later stages. refuse(router, calls, error): the rows did not get there."""

    def __init__(self, identity: bytes, refuse: Callable[[bytes, Sequence[int], ServingError], None]) -> None:
        self._context = LinkContext(identity)
        self._refuse = refuse
        self._next: dict[str, _Next] = {}
        self._dirty: dict[str, _Next] = {}

    def group(self, address: str, router: bytes, calls: list[int], frames: Sequence[Buffer]) -> pb.RowGroup:
        """A group of `router`'s calls, with their frames, for the replica at `address`; the rest is to be filled in."""
        nxt = self._next.get(address)
        if nxt is None:
            nxt = self._next[address] = _Next(address)
            nxt.link = LinkClient(self._context, address, _ignore, lambda: self._up(nxt), lambda: self._lost(nxt))
        self._dirty[address] = nxt
        nxt.frames += frames
        nxt.calls.append((router, calls))
        return nxt.message.groups.add(calls=calls)

    def flush(self) -> None:
        """Send what was gathered in this turn."""
        dirty, self._dirty = self._dirty, {}
        for nxt in dirty.values():
            message, frames, calls = nxt.message.SerializeToString(), nxt.frames, nxt.calls
            nxt.message, nxt.frames, nxt.calls = pb.ToReplica(protocol=PROTOCOL), [], []
            if nxt.link is not None and nxt.link.up and not nxt.held:
                self._send(nxt, message, frames, calls)
            elif len(nxt.held) < _HELD_MESSAGES:
                nxt.held.append((message, frames, calls))
                if nxt.timer is None:
                    nxt.timer = asyncio.get_running_loop().call_later(CONNECT_S, self._give_up, nxt)
            else:
                self._refuse_all(calls, Exhausted("too many rows wait for the next stage", retry_after_s=0.1))

    def _send(self, nxt: _Next, message: bytes, frames: list[Buffer], calls: list[tuple[bytes, list[int]]]) -> None:
        if nxt.link is None or not nxt.link.send(message, frames):
            self._refuse_all(calls, NextStageGone("the next stage does not take rows", retry_after_s=0.1))
        else:
            nxt.sent.append(calls)

    def _up(self, nxt: _Next) -> None:
        if nxt.timer is not None:
            nxt.timer.cancel()
            nxt.timer = None
        while nxt.held:
            self._send(nxt, *nxt.held.popleft())

    def _lost(self, nxt: _Next) -> None:
        """The replica is gone, or only the way to it: then nobody but us can tell routers that rows were lost on it.

        They know which calls still matter, and what comes back twice is answered once.
        """
        log.warning("stage_link.lost", link=nxt.address)
        for calls in (*nxt.sent, nxt.calls):
            self._refuse_all(calls, NextStageGone("the link to the next stage broke", retry_after_s=0.1))
        self._drop(nxt)

    def _give_up(self, nxt: _Next) -> None:
        nxt.timer = None
        while nxt.held:
            _, _, calls = nxt.held.popleft()
            self._refuse_all(calls, NextStageGone("the next stage cannot be reached", retry_after_s=0.5))
        self._drop(nxt)

    def _drop(self, nxt: _Next) -> None:
        self._next.pop(nxt.address, None)
        self._dirty.pop(nxt.address, None)
        if nxt.timer is not None:
            nxt.timer.cancel()
        if nxt.link is not None:
            # Not within its own callback: the monitor that called us belongs to it.
            asyncio.get_running_loop().call_soon(nxt.link.close)

    def _refuse_all(self, calls: Sequence[tuple[bytes, list[int]]], error: ServingError) -> None:
        for router, ids in calls:
            self._refuse(router, ids, error)

    def close(self) -> None:
        """Close all links."""
        for nxt in list(self._next.values()):
            if nxt.link is not None:
                nxt.link.close()
        self._next.clear()
        self._context.close()


def _ignore(_peer: bytes, _header: bytes, _frames: list[Buffer]) -> None:
    """Later stages answer the router, never the stage before."""
