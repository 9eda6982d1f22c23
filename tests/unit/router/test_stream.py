"""ModelStreamInfer: several requests in flight, each answered on its own, and never more than the client reads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from shardline.core.errors import NotFound
from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.router.servicer import STREAM_IN_FLIGHT, InferenceServicer
from tests.unit.router.messages import infer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shardline.router.calls import Reply

WAIT_S = 20.0


class Requests:
    """A dispatcher that keeps what it is given. at_once: each request is answered before submit returns."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.replies: list[Reply] = []
        self.cancelled: list[int] = []
        self.came = asyncio.Event()

    def submit(self, _message: bytes, reply: Reply, _timeout_s: float | None) -> int | None:
        self.replies.append(reply)
        self.came.set()
        if self.at_once:
            reply.ok(b"", "")
            return None
        return len(self.replies) - 1

    def cancel(self, request: int) -> None:
        self.cancelled.append(request)

    async def until(self, count: int) -> None:
        """Returns when so many requests came."""
        async with asyncio.timeout(WAIT_S):
            while len(self.replies) < count:
                self.came.clear()
                await self.came.wait()


def stream_of(requests: Requests, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    nothing: Any = None
    double: Any = requests
    return InferenceServicer(nothing, double, nothing).stream_infer(messages, nothing)


async def sent(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield infer(float(number), id=str(number))


async def all_of(stream: AsyncIterator[bytes]) -> list[pb.ModelStreamInferResponse]:
    async with asyncio.timeout(WAIT_S):
        return [pb.ModelStreamInferResponse.FromString(message) async for message in stream]


async def test_answers_go_out_as_they_are_ready_and_the_stream_ends_with_the_last() -> None:
    requests = Requests()
    reading = asyncio.ensure_future(all_of(stream_of(requests, sent(3))))
    await requests.until(3)
    for number in (2, 0, 1):
        body = pb.ModelInferResponse(model_name=str(number), raw_output_contents=[bytes(300)])
        requests.replies[number].ok(body.SerializeToString(), "")
    answers = await reading
    assert [answer.infer_response.model_name for answer in answers] == ["2", "0", "1"]
    assert [answer.error_message for answer in answers] == [""] * 3
    assert requests.cancelled == []


async def test_an_error_is_a_message_with_the_requests_id_and_the_stream_goes_on() -> None:
    requests = Requests()
    reading = asyncio.ensure_future(all_of(stream_of(requests, sent(2))))
    await requests.until(2)
    requests.replies[1].fail(NotFound("model 'm' is not known"))
    requests.replies[0].ok(b"", "")
    failed, answered = await reading
    assert (failed.error_message, failed.infer_response.id) == ("NOT_FOUND: model 'm' is not known", "1")
    assert answered.error_message == ""


async def test_a_message_that_is_no_request_fails_without_an_id() -> None:
    async def rubbish() -> AsyncIterator[bytes]:
        yield b"\xff\xff"

    requests = Requests()
    reading = asyncio.ensure_future(all_of(stream_of(requests, rubbish())))
    await requests.until(1)
    requests.replies[0].fail(NotFound("no"))
    (failed,) = await reading
    assert (failed.error_message, failed.infer_response.id) == ("NOT_FOUND: no", "")


async def test_a_stream_without_requests_ends_at_once() -> None:
    assert await all_of(stream_of(Requests(), sent(0))) == []


async def test_a_client_that_leaves_takes_its_requests_along() -> None:
    requests = Requests()
    reading = asyncio.ensure_future(all_of(stream_of(requests, sent(3))))
    await requests.until(3)
    requests.replies[1].ok(b"", "")
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert requests.cancelled == [0, 2]
    requests.replies[0].ok(b"", "")  # a late answer to nobody


async def test_requests_in_flight_on_one_stream_are_bounded() -> None:
    requests = Requests()
    reading = asyncio.ensure_future(all_of(stream_of(requests, sent(2 * STREAM_IN_FLIGHT))))
    await requests.until(STREAM_IN_FLIGHT)
    await _several_turns()
    assert len(requests.replies) == STREAM_IN_FLIGHT
    answered = 0
    while answered < 2 * STREAM_IN_FLIGHT:
        await requests.until(answered + 1)
        requests.replies[answered].ok(b"", "")
        answered += 1
    assert len(await reading) == 2 * STREAM_IN_FLIGHT


async def test_a_client_that_does_not_read_its_answers_is_not_read_on() -> None:
    requests = Requests(at_once=True)
    stream = stream_of(requests, sent(10 * STREAM_IN_FLIGHT))
    async with asyncio.timeout(WAIT_S):
        await anext(stream)
    await _several_turns()
    assert len(requests.replies) <= STREAM_IN_FLIGHT + 1
    assert len(await all_of(stream)) == 10 * STREAM_IN_FLIGHT - 1


async def _several_turns() -> None:
    """Let the event loop do all that it can do by itself."""
    for _ in range(3 * STREAM_IN_FLIGHT):
        await asyncio.sleep(0)
