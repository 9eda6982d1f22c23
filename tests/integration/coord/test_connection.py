"""Ways to Redis: passwords, TLS, sockets, and a Redis that does not answer."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

import pytest

from shardline.coord.connection import Access, Connection, Script
from shardline.coord.errors import RedisAway, RedisRefused
from shardline.core.cluster import LoadReport
from tests.integration.coord.conftest import MINILM, eventually, member
from tests.redis_server import RedisServer, all_redis_servers, make_certificates, missing

if TYPE_CHECKING:
    from pathlib import Path

ECHO = Script("-- KEYS 1 none\nreturn ARGV[1]")


async def test_a_password_is_needed_and_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with RedisServer(tmp_path, password="hush") as server:
        async with Connection(server.url, access=server.access) as right:
            assert await right.ping() > 0
        async with Connection(server.url.replace("//", "//:hush@")) as in_the_url:
            assert await in_the_url.ping() > 0
        for access in (Access(), Access(password="hushhush")):
            async with Connection(server.url, access=access) as wrong:
                with pytest.raises(RedisAway, match="wrong or missing password") as caught:
                    await wrong.ping()
                assert "hush" not in str(caught.value)
    assert "hush" not in caplog.text


async def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    with RedisServer(tmp_path, on_unix_socket=True) as server:
        async with Connection(server.url) as connection:
            assert await connection.run(ECHO, [], [b"x"]) == b"x"
            assert connection.where == str(server.socket)


async def test_tls_trusts_only_the_given_authority(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    with _tls_server(tmp_path, certificates) as server:
        async with Connection(server.url, access=server.access) as trusted:
            assert await trusted.run(ECHO, [], [b"x"]) == b"x"
            async with trusted.subscribe(["news"]) as subscription:
                await trusted.command("PUBLISH", "news", b"hello")
                assert await subscription.next(5) == ("news", b"hello")
        async with Connection(server.url, access=Access(password="hush")) as stranger:
            with pytest.raises(RedisAway, match="its certificate is not trusted"):
                await stranger.ping()


async def test_while_redis_stands_still_callers_wait_once_and_then_not_at_all(
    redis_server: RedisServer, connection: Connection
) -> None:
    await connection.ping()
    redis_server.pause()
    with pytest.raises(RedisAway, match="timed out"):
        await connection.command("GET", "x")
    tries = 50
    refused_at_once = 0
    for _ in range(tries):
        before = time.monotonic()
        with pytest.raises(RedisAway):
            await connection.command("GET", "x")
        refused_at_once += time.monotonic() - before < connection.timeout_s / 2
    assert refused_at_once >= tries - 10
    redis_server.resume()
    await eventually(lambda: _answers(connection))


async def test_after_a_restart_scripts_run_again(redis_server: RedisServer, connection: Connection) -> None:
    assert await connection.run(ECHO, [], [b"1"]) == b"1"
    redis_server.restart_empty()
    await eventually(lambda: _answers(connection))
    assert await connection.run(ECHO, [], [b"2"]) == b"2"
    assert connection.reachable is True


async def test_going_and_coming_are_told_once(redis_server: RedisServer) -> None:
    told: list[tuple[bool, str]] = []
    async with Connection(
        redis_server.url, timeout_s=0.5, on_health=lambda up, line: told.append((up, line))
    ) as connection:
        await connection.ping()
        redis_server.kill()
        for _ in range(3):
            with pytest.raises(RedisAway):
                await connection.ping()
        redis_server.start()
        await eventually(lambda: _answers(connection))
    assert [up for up, _ in told] == [True, False, True]
    assert all(connection.where in line for _, line in told)


async def test_an_error_answer_is_not_an_absence(connection: Connection) -> None:
    await connection.command("SET", "x", "1")
    with pytest.raises(RedisRefused, match=r"refused: .*wrong kind"):
        await connection.command("HGET", "x", "f")
    assert connection.reachable is True


async def test_a_cancelled_member_always_ends(redis_server: RedisServer) -> None:
    draw = random.Random(7)
    for _ in range(40):
        async with Connection(redis_server.url) as connection:
            one = member(connection)
            task = asyncio.create_task(one.run())
            one.report({MINILM: LoadReport(1)})
            one.put_statistics("minilm", 2, b"x")
            assert await one.announced(5)
            for _ in range(draw.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=5)
            assert done, "the cancellation was lost"


def _tls_server(tmp_path: Path, certificates: object) -> RedisServer:
    """The first installed server that was built with TLS."""
    for binary in all_redis_servers():
        server = RedisServer(tmp_path, password="hush", certificates=certificates, binary=binary)  # type: ignore[arg-type]
        try:
            server.start()
        except RuntimeError:
            continue
        server.kill()
        return server
    missing("a Redis server with TLS")
    raise AssertionError


async def _answers(connection: Connection) -> bool:
    try:
        await connection.ping()
    except RedisAway:
        return False
    return True
