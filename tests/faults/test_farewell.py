"""What a client's connection is told before its server ends, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from shardline.wire.farewell import GOAWAY, Connection, connections, see_off, stop_listening

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = bytes.fromhex("000012 04 00 00000000") + bytes(18)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def pair(listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """(the server's end, the client's end)."""
    with socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            server.setblocking(False)
            yield server, client


def quiet(connection: Connection) -> bool:
    """Two looks: the second compares with the first."""
    connection.is_quiet()
    return connection.is_quiet()


@pytest.fixture
def connection(listener: socket.socket, pair: tuple[socket.socket, socket.socket]) -> Iterator[Connection]:
    (found,) = connections(listener.getsockname()[1])
    yield found
    found.close()


def read(client: socket.socket, size: int) -> bytes:
    client.settimeout(10)
    data = b""
    while len(data) < size:
        data += client.recv(size - len(data))
    return data


def test_only_the_server_end_of_a_connection_is_found(
    connection: Connection, pair: tuple[socket.socket, socket.socket]
) -> None:
    assert connection.peer == str(pair[1].getsockname())


def test_a_connection_between_frames_is_told(connection: Connection, pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    server.sendall(SETTINGS)
    read(client, len(SETTINGS))
    assert quiet(connection)
    assert connection.tell()
    assert read(client, len(GOAWAY)) == GOAWAY


def test_nothing_goes_before_a_connections_first_frame(connection: Connection) -> None:
    assert not quiet(connection)


def test_a_half_written_frame_is_not_cut(connection: Connection, pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    server.sendall(SETTINGS)
    written = 0
    with contextlib.suppress(BlockingIOError):  # the buffer is full: the rest of the frame would follow
        while True:
            written += server.send(bytes(1 << 16))
    assert not quiet(connection)
    read(client, len(SETTINGS) + written)
    assert quiet(connection)


def test_who_listens_no_more_keeps_its_connections(
    listener: socket.socket, pair: tuple[socket.socket, socket.socket]
) -> None:
    address = listener.getsockname()
    stop_listening(address[1])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    pair[0].sendall(b"still here")
    assert read(pair[1], 10) == b"still here"


async def test_a_client_that_stays_is_told_once_and_not_waited_for(
    listener: socket.socket, pair: tuple[socket.socket, socket.socket]
) -> None:
    server, client = pair
    server.sendall(SETTINGS)
    read(client, len(SETTINGS))
    holds: list[str] = []

    @contextlib.contextmanager
    def held() -> Iterator[None]:
        holds.append("held")
        yield
        holds.append("released")

    async with asyncio.timeout(20):
        await see_off(listener.getsockname()[1], held, lambda: False, 60.0)
    server.sendall(b"end")
    assert read(client, len(GOAWAY) + 3) == GOAWAY + b"end"
    assert holds == ["held", "released"] * (len(holds) // 2)


async def test_open_calls_are_waited_for_until_the_grace_is_over(
    listener: socket.socket, pair: tuple[socket.socket, socket.socket]
) -> None:
    pair[0].sendall(SETTINGS)
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.timeout(20):
        await see_off(listener.getsockname()[1], contextlib.nullcontext, lambda: True, 1.5)
    assert loop.time() - started >= 1.5


async def test_a_port_without_connections_is_left_at_once(listener: socket.socket) -> None:
    async with asyncio.timeout(20):
        await see_off(listener.getsockname()[1], contextlib.nullcontext, lambda: False, 60.0)
