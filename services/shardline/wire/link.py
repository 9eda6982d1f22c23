"""Links: one long-lived ZeroMQ connection per (router, replica), and per (stage replica, next stage replica).

A link carries multipart messages: a header and the frames it announces. libzmq frames, coalesces, reconnects and
keeps heartbeats in a thread of its own, outside the interpreter lock; this module drives the sockets by their file
descriptor (a future per message, as `zmq.asyncio` makes, costs more than the message; measured in ADR 0002).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

from shardline.wire.codec import Buffer

PROTOCOL = 1
"""Version of the link protocol. A peer with another one is refused, never guessed at."""

_COPY_BELOW = 8192
"""Frames below this many bytes are copied out of libzmq's buffer: cheaper than keeping a view alive."""
_DRAIN_AT_MOST = 64
"""Messages taken per turn of the event loop, so that a busy link does not starve the others."""
_KEPT_MESSAGES = 4096
"""Messages kept, per peer, for one that lives but does not read fast enough. What is more is dropped: then the peer has
not read 8192 messages, and the deadlines of its calls end them."""
_AGAIN_S = 0.005

# Plain numbers: pyzmq's are enums, whose arithmetic shows in the profile of small messages.
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_RCVMORE = int(zmq.RCVMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)

Receive = Callable[[bytes, bytes, list[Buffer]], None]
"""Called with (peer's identity, header, frames). On a client link the identity is b""."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Bounds and heartbeats of a link. A peer that is silent for `timeout_ms` counts as lost."""

    heartbeat_ms: int = 250
    timeout_ms: int = 1000
    high_water: int = 4096
    max_message_bytes: int = 512 << 20


class _Socket:
    """A non-blocking socket in the event loop: drains it on every edge of its file descriptor.

    ZeroMQ's descriptor is edge-triggered: it may stay silent although messages wait, so after each
    burst and after each send the socket itself is asked.
    """

    def __init__(self, socket: zmq.Socket[bytes], receive: Receive, routed: bool) -> None:
        self._socket = socket
        self._receive = receive
        self._routed = routed
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self.drain)
        self._closed = False
        self.full = False

    def drain(self) -> None:
        if self._closed:
            return
        socket = self._socket
        for _ in range(_DRAIN_AT_MOST):
            # Asking costs a fifth of the exception that an empty socket raises.
            if not int(socket.getsockopt(_EVENTS)) & _POLLIN:
                return
            self._take(socket.recv(_NOBLOCK))
            if self._closed:
                return
        self._loop.call_soon(self.drain)

    def _take(self, first: bytes) -> None:
        socket = self._socket
        if self._routed:
            frame = socket.recv(_NOBLOCK, copy=False)
            identity, header, more = first, frame.bytes, frame.more
        else:
            identity, header, more = b"", first, bool(socket.getsockopt(_RCVMORE))
        frames: list[Buffer] = []
        while more:
            frame = socket.recv(_NOBLOCK, copy=False)
            more = frame.more
            frames.append(frame.bytes if len(frame) < _COPY_BELOW else frame.buffer)
        self._receive(identity, header, frames)

    def send(self, parts: Sequence[Buffer]) -> bool:
        """Queue one message; False where the peer is lost or its queue is full: `full` says which."""
        try:
            self._send(parts)
        except zmq.Again:
            self.full = True
            return False
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.ENOTSOCK):
                self.full = False
                return False
            raise
        if int(self._socket.getsockopt(_EVENTS)) & _POLLIN:
            self._loop.call_soon(self.drain)
        return True

    def _send(self, parts: Sequence[Buffer]) -> None:
        """As send_multipart, with flags that are plain numbers: enum arithmetic costs as much as a send."""
        socket = self._socket
        last = len(parts) - 1
        for index, part in enumerate(parts):
            flags = _NOBLOCK if index == last else _NOBLOCK_MORE
            socket.send(part, flags, copy=len(part) < _COPY_BELOW)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._fd)
            self._socket.close(linger=0)


def _configure(socket: zmq.Socket[bytes], options: LinkOptions) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, options.high_water)
    socket.setsockopt(zmq.RCVHWM, options.high_water)
    socket.setsockopt(zmq.MAXMSGSIZE, options.max_message_bytes)
    socket.setsockopt(zmq.HEARTBEAT_IVL, options.heartbeat_ms)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, options.timeout_ms)
    socket.setsockopt(zmq.HEARTBEAT_TTL, options.timeout_ms)


class LinkServer:
    """A replica's end of all its links. Binds at once, takes messages from `listen` on. Needs a running event loop."""

    def __init__(self, address: str, options: LinkOptions | None = None) -> None:
        self._options = options or LinkOptions()
        self._context = zmq.Context(io_threads=1)
        raw = self._context.socket(zmq.ROUTER)
        _configure(raw, self._options)
        raw.setsockopt(zmq.ROUTER_MANDATORY, 1)
        raw.setsockopt(zmq.ROUTER_HANDOVER, 1)
        raw.bind(address)
        self.address: str = raw.getsockopt_string(zmq.LAST_ENDPOINT)
        self._raw = raw
        self._socket: _Socket | None = None
        self._kept: dict[bytes, deque[list[Buffer]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def listen(self, receive: Receive) -> None:
        """Take messages from now on."""
        self._socket = _Socket(self._raw, receive, routed=True)
        self._socket.drain()

    def send(self, peer: bytes, header: bytes, frames: Sequence[Buffer]) -> bool:
        """Queue a message for `peer`; False where it is gone, or has not read for very long.

        A peer whose queue is full lives and may read again: what it shall get is kept, in order, and sent when there is room.
        """
        if self._socket is None:
            return False
        parts = [peer, header, *frames]
        kept = self._kept.get(peer)
        if kept is None:
            if self._socket.send(parts):
                return True
            if not self._socket.full:
                return False
            kept = self._kept[peer] = deque()
            self._send_later()
        if len(kept) >= _KEPT_MESSAGES:
            return False
        kept.append(parts)
        return True

    def _send_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_AGAIN_S, self._send_kept)

    def _send_kept(self) -> None:
        self._timer = None
        assert self._socket is not None
        for peer, kept in list(self._kept.items()):
            while kept and self._socket.send(kept[0]):
                kept.popleft()
            if not kept or not self._socket.full:  # all is sent, or the peer is gone
                del self._kept[peer]
        if self._kept:
            self._send_later()

    def close(self) -> None:
        """Drop what is queued and release the address."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.close()
        self._raw.close(linger=0)
        self._context.term()


class LinkClient:
    """The sending end of one link: connects, reconnects, and says when the peer is lost.

    on_up / on_lost are called from the event loop. `up` is False until the first handshake and after a loss.
    """

    def __init__(
        self,
        context: LinkContext,
        address: str,
        receive: Receive,
        on_up: Callable[[], None],
        on_lost: Callable[[], None],
        options: LinkOptions | None = None,
    ) -> None:
        self.address = address
        self.up = False
        self._on_up = on_up
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        raw = context.context.socket(zmq.DEALER)
        _configure(raw, options or LinkOptions())
        raw.setsockopt(zmq.IDENTITY, context.identity)
        raw.setsockopt(zmq.IMMEDIATE, 1)
        raw.setsockopt(zmq.RECONNECT_IVL, 50)
        raw.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._monitor = raw.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._monitor_fd = int(self._monitor.getsockopt(zmq.FD))
        self._loop.add_reader(self._monitor_fd, self._watch)
        self._raw = raw
        self._socket = _Socket(raw, receive, routed=False)
        self._closed = False
        raw.connect(address)
        # The descriptor is silent about what came before it was watched.
        self._loop.call_soon(self._watch)

    def _watch(self) -> None:
        while not self._closed:
            try:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.up = True
                self._on_up()
            elif self.up:
                self.up = False
                self._on_lost()

    def send(self, header: bytes, frames: Sequence[Buffer]) -> bool:
        """Queue a message; False where the peer is lost or does not read."""
        return self._socket.send([header, *frames])

    def close(self) -> None:
        """Close without another callback."""
        if self._closed:
            return
        self._closed = True
        self.up = False
        self._loop.remove_reader(self._monitor_fd)
        self._raw.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()


class LinkContext:
    """What the client links of one process share: libzmq's thread, and the identity that answers come back to."""

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)

    def close(self) -> None:
        """Release libzmq's thread; every link must be closed before."""
        self.context.term()
