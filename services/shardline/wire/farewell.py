"""Telling HTTP/2 clients to go elsewhere before the server ends, since neither server does so without loss (ADR 0015).

pygrpc-native ends its connections at once; grpcio's aio server cancels the calls that arrive after `stop` and before its
GOAWAY has reached the client. HTTP/2's word for a loss-free end is a GOAWAY with the highest stream id, while the server
goes on: no new calls on this connection, those on their way still count. grpc clients take new calls to another
connection, and close this one when their last call has its answer. Only then is the server stopped.

We write that frame onto the connections ourselves. The sockets are found among this process's own descriptors, so this
works where /proc does (Linux); elsewhere there is no connection to tell, and the server ends as it would alone.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

_DESCRIPTORS = Path("/proc/self/fd")
# Length 8, type 7, no flags, stream 0; last stream 2**31 - 1, NO_ERROR (RFC 9113, 6.8).
GOAWAY = bytes.fromhex("000008 07 00 00000000 7fffffff 00000000")
_ACKED = struct.Struct("=120xQ")
"""tcpi_bytes_acked in Linux's struct tcp_info."""
_CONTROL_BYTES = 1024
"""More than this in one look is an answer on its way; less is HTTP/2's own small talk."""
_SETTINGS_BYTES = 9
"""A connection's first frame must be SETTINGS, so nothing may go before it."""
_ROUND_S = 0.02
_LOOKS = 6
_BETWEEN_LOOKS_S = 0.003
"""In each round answers are held for so many looks, while connections fall quiet enough to be told."""
_IDLE_S = 1.0
"""A client that was told and has no call open for so long does not close by itself: it is not waited for."""


class Connection:
    """A client's connection to the port: a duplicate of the server's descriptor. Close it soon."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.peer = str(sock.getpeername())
        self._acked = -1

    def is_quiet(self) -> bool:
        """Whether no frame is half written: at this look and at the one before it, nothing was on its way.

        A frame is cut only where the socket's buffer is full, and the rest follows as soon as it has room.
        """
        before, self._acked = self._acked, -1
        if self._unacknowledged():
            return False
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size)
        if len(info) < _ACKED.size:
            return False
        (self._acked,) = _ACKED.unpack(info)
        return before > _SETTINGS_BYTES and self._acked - before <= _CONTROL_BYTES

    def _unacknowledged(self) -> int:
        queued = fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0" * 4)
        return int(struct.unpack("=i", queued)[0])

    def tell(self) -> bool:
        """Ask the client to take new calls elsewhere; False where the frame did not go out."""
        try:
            return self._socket.send(GOAWAY, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(GOAWAY)
        except OSError:
            return False

    def close(self) -> None:
        """Give the duplicate back; the server's own descriptor stays."""
        self._socket.close()


async def see_off(
    port: int, held: Callable[[], AbstractContextManager[None]], busy: Callable[[], bool], grace_s: float
) -> None:
    """Stop listening on `port`, tell every connection to end, and wait until the clients have closed them.

    held(): within, no answer is written. busy(): whether calls are open. Takes at most about grace_s seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace_s
    stop_listening(port)
    told: set[str] = set()
    busy_at = loop.time()
    while loop.time() < deadline:
        left = connections(port)
        try:
            untold = [connection for connection in left if connection.peer not in told]
            if untold:
                with held():
                    await _tell(untold, told)
        finally:
            for connection in left:
                connection.close()
        if busy() or any(connection.peer not in told for connection in left):
            busy_at = loop.time()
        if not left or loop.time() - busy_at > _IDLE_S:
            return
        await asyncio.sleep(_ROUND_S)


async def _tell(untold: Sequence[Connection], told: set[str]) -> None:
    for _ in range(_LOOKS):
        untold = [connection for connection in untold if connection.peer not in told]
        if not untold:
            return
        told.update(connection.peer for connection in untold if connection.is_quiet() and connection.tell())
        await asyncio.sleep(_BETWEEN_LOOKS_S)


def connections(port: int) -> list[Connection]:
    """Connections that clients hold to our `port`."""
    found = []
    for _, sock in _sockets(port):
        try:
            found.append(Connection(sock))
        except OSError:  # it listens, or its client is gone
            sock.close()
    return found


def stop_listening(port: int) -> None:
    """Close what listens on `port`, so that clients connect to others there; connections stay.

    The server keeps a descriptor, with a socket behind it that nobody can reach: shutdown() would make it complain of
    every accept.
    """
    for descriptor, sock in _sockets(port):
        with sock:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                with socket.socket(sock.family, socket.SOCK_STREAM) as nobody:
                    nobody.setblocking(False)
                    os.dup2(nobody.fileno(), descriptor)


def _sockets(port: int) -> Iterator[tuple[int, socket.socket]]:
    """(descriptor, a duplicate of it) of this process's TCP sockets bound to `port`."""
    try:
        names = [entry.name for entry in _DESCRIPTORS.iterdir()]
    except OSError:
        return
    duplicates: set[int] = set()  # they may get the numbers of descriptors that were listed and are closed by now
    for name in names:
        if int(name) in duplicates:
            continue
        try:
            duplicate = os.dup(int(name))
        except OSError:  # closed meanwhile
            continue
        try:
            sock = socket.socket(fileno=duplicate)
        except OSError:  # not a socket
            os.close(duplicate)
            continue
        if _is_ours(sock, port):
            duplicates.add(duplicate)
            yield int(name), sock
        else:
            sock.close()


def _is_ours(sock: socket.socket, port: int) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return False
    try:
        return bool(sock.getsockname()[1] == port)
    except OSError:
        return False
