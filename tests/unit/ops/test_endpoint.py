"""What /metrics and /healthz answer; the socket is a loopback one on a free port."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from shardline.ops.exposition import Endpoint
from shardline.ops.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT_S = 10.0


@asynccontextmanager
async def listening(wrong: list[str]) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(Metrics("router", "0.1.0"), lambda: wrong[0] if wrong else None)
    await endpoint.start("127.0.0.1", 0)
    try:
        yield endpoint
    finally:
        await endpoint.stop()


async def ask(endpoint: Endpoint, request: bytes) -> bytes:
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        writer.write(request)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/metrics", b"200 OK", b'shardline_info{process="router",release="0.1.0",device=""} 1\n'),
        ("/metrics?x=1", b"200 OK", b"# TYPE shardline_info gauge\n"),
        ("/healthz", b"200 OK", b"\r\n\r\nok\n"),
        ("/elsewhere", b"404 Not Found", b"try /metrics or /healthz\n"),
    ],
)
async def test_each_path_has_its_answer(target: str, status: bytes, body: bytes) -> None:
    async with listening([]) as endpoint:
        answer = await ask(endpoint, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert f"Content-Length: {len(rest)}".encode() in head
    assert body in answer


async def test_a_process_that_is_not_well_says_why() -> None:
    wrong: list[str] = []
    async with listening(wrong) as endpoint:
        wrong.append("draining")
        answer = await ask(endpoint, b"GET /healthz HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"draining\n")


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\n\r\n",
        b"\xff" * 100_000,
        b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 100,
    ],
    ids=["empty", "post", "endless line", "too many headers"],
)
async def test_rubbish_is_hung_up_on_and_the_next_caller_is_served(rubbish: bytes) -> None:
    async with listening([]) as endpoint:
        try:
            answer = await ask(endpoint, rubbish)
        except ConnectionError:
            answer = b""
        assert answer == b""
        assert b"200 OK" in await ask(endpoint, b"GET /healthz HTTP/1.1\r\n\r\n")


async def test_no_port_means_no_listener() -> None:
    endpoint = Endpoint(Metrics("router", "0.1.0"), lambda: None)
    await endpoint.start("127.0.0.1", -1)
    assert endpoint.port == 0
    await endpoint.stop()
