"""The Redis of a local cluster: how a private one is started, and when one answers."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from shardline.coord.connection import Connection
from shardline.coord.errors import RedisAway
from shardline.coord.server import find_redis_server, server_argv, server_settings
from shardline.local.child import ChildSpec
from shardline.local.failure import ClusterFailed

if TYPE_CHECKING:
    from pathlib import Path

REDIS = "redis"
"""Name and role of the child."""
MEMORY_BYTES = 256 << 20
"""Bound of what Redis may hold: it keeps small facts only, so reaching it would be a defect, and an error is right."""

_POLL_S = 0.02


def private_redis(folder: Path) -> tuple[ChildSpec, str]:
    """A Redis on a Unix socket in `folder`, open to this user only: how to start it, and its URL.

    Raises ClusterFailed where no server program is found.
    """
    socket = folder / "redis.sock"
    try:
        program = find_redis_server()
    except FileNotFoundError as error:
        raise ClusterFailed(str(error)) from error
    settings = server_settings(folder, unix_socket=socket, max_memory_bytes=MEMORY_BYTES)
    spec = ChildSpec(REDIS, REDIS, tuple(server_argv(program)), dict(os.environ), settings.encode())
    return spec, f"unix://{socket}"


async def until_answers(url: str, timeout_s: float) -> None:
    """Wait until Redis answers a PING. Raises ClusterFailed with the last reason after `timeout_s` seconds."""
    last = "it was not asked"
    try:
        async with asyncio.timeout(timeout_s), Connection(url) as connection:
            while True:
                try:
                    await connection.ping()
                except RedisAway as error:
                    last = error.message
                else:
                    return
                await asyncio.sleep(_POLL_S)
    except ValueError as error:
        raise ClusterFailed(f"--redis: {error}") from error
    except TimeoutError as error:
        raise ClusterFailed(last) from error
