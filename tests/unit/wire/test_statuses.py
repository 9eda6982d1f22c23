"""Errors become statuses in one place, and nothing of what nobody mapped reaches the caller."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from shardline.core.errors import (
    DeadlineExceeded,
    Exhausted,
    InvalidRequest,
    NotFound,
    ServingError,
    Status,
    Unavailable,
    by_reason,
)
from shardline.wire.statuses import answered, code_of, trailing, unexpected


@pytest.mark.parametrize("status", Status)
def test_every_status_has_grpcs_name(status: Status) -> None:
    assert code_of(status).name == status.name
    assert code_of(status).value[0] == int(status)


@pytest.mark.parametrize(
    ("seconds", "whole", "nanos"),
    [(0.25, 0, 250_000_000), (1.0, 1, 0), (0.001, 0, 1_000_000), (90.5, 90, 500_000_000), (0.0, 0, 0)],
)
def test_a_retry_hint_travels_as_retry_info(seconds: float, whole: int, nanos: int) -> None:
    ((key, value),) = trailing(Exhausted("queue is full", retry_after_s=seconds))
    assert key == "grpc-status-details-bin"
    assert isinstance(value, bytes)
    status = status_pb2.Status.FromString(value)
    assert (status.code, status.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "queue is full")
    (detail,) = status.details
    hint = error_details_pb2.RetryInfo()
    assert detail.Unpack(hint)
    assert (hint.retry_delay.seconds, hint.retry_delay.nanos) == (whole, nanos)


@pytest.mark.parametrize("kind", by_reason().values(), ids=by_reason())
def test_an_error_without_a_hint_has_no_trailing_metadata(kind: type[ServingError]) -> None:
    assert trailing(kind("why")) == ()


def test_no_trailing_key_is_one_that_the_native_front_refuses() -> None:
    assert [key for key, _ in trailing(Unavailable("later", retry_after_s=1.0))] == ["grpc-status-details-bin"]


class Aborted(Exception):
    pass


class Context:
    """As much of a servicer's context as `answered` uses."""

    def __init__(self) -> None:
        self.aborts: list[tuple[grpc.StatusCode, str, object]] = []

    async def abort(self, code: grpc.StatusCode, message: str, metadata: object) -> None:
        self.aborts.append((code, message, metadata))
        raise Aborted


class Servicer:
    def __init__(self, outcome: object) -> None:
        self.outcome = outcome

    @answered
    async def method(self, request: Any, context: Any) -> object:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


async def called(outcome: object) -> tuple[object, Context]:
    context = Context()
    try:
        return await Servicer(outcome).method(None, context), context
    except Aborted:
        return None, context


async def test_an_answer_passes_through() -> None:
    answer, context = await called("answer")
    assert (answer, context.aborts) == ("answer", [])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("input 'x'"), grpc.StatusCode.INVALID_ARGUMENT),
        (NotFound("model 'm'"), grpc.StatusCode.NOT_FOUND),
        (DeadlineExceeded("after 5 ms"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (Unavailable("loading", retry_after_s=2.0), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_an_error_of_ours_is_told_in_its_own_words(error: ServingError, code: grpc.StatusCode) -> None:
    _, context = await called(error)
    assert context.aborts == [(code, error.message, trailing(error))]


async def test_an_error_that_nobody_mapped_is_told_by_a_number_only() -> None:
    _, context = await called(KeyError("secret/path"))
    ((code, message, metadata),) = context.aborts
    assert (code, metadata) == (grpc.StatusCode.INTERNAL, ())
    assert "secret" not in message
    assert "request " in message


async def test_grpcs_own_errors_are_left_to_grpc() -> None:
    with pytest.raises(grpc.aio.AbortError):
        await called(grpc.aio.AbortError("aborted already"))


def test_what_was_unexpected_has_a_number_of_its_own_each_time() -> None:
    one, two = unexpected(ValueError("a")), unexpected(ValueError("a"))
    assert one.status is Status.INTERNAL
    assert one.message != two.message
    assert not one.retryable
