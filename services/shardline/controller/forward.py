"""A local port that leads to a pod's port through the API server, as `kubectl port-forward` makes one.

The framing (v4.channel.k8s.io): the first byte of a message is the channel, 0 for data and 1 for an error, and the first message
of each channel is the port's number.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiohttp

from shardline.controller.api import Api, ApiError
from shardline.ops import logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = logs.get(__name__)

DATA, ERROR = 0, 1
_READ_BYTES = 1 << 16


@asynccontextmanager
async def forwarded(api: Api, pod: str, port: int) -> AsyncIterator[int]:
    """The local port while the block runs. A connection that cannot be made or breaks is closed, as a server's would be."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            stream = await api.port_forward(pod, port)
        except ApiError as error:
            log.warning("forward.refused", pod=pod, port=port, reason=str(error))
            writer.close()
            return
        async with stream:
            up = asyncio.ensure_future(_up(reader, stream))
            try:
                await _down(stream, writer)
            finally:
                up.cancel()
                writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def _up(reader: asyncio.StreamReader, stream: aiohttp.ClientWebSocketResponse) -> None:
    with suppress(ConnectionError, aiohttp.ClientError):  # the other direction ends with it
        while data := await reader.read(_READ_BYTES):
            await stream.send_bytes(bytes((DATA,)) + data)
    await stream.close()


async def _down(stream: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    announced: set[int] = set()
    async for message in stream:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel not in announced:
            announced.add(channel)
            continue
        if channel == ERROR:
            log.warning("forward.broken", reason=data.decode(errors="replace"))
            return
        writer.write(data)
        try:
            await writer.drain()
        except ConnectionError:
            return
