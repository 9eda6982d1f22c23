"""Errors as gRPC statuses, in one place: nothing else aborts a call.

The retry hint travels as google.rpc.RetryInfo in `grpc-status-details-bin` (the key `grpc-retry-pushback-ms` is reserved
in the native front and would leave the call hanging).
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from shardline.core.errors import ServingError, Status
from shardline.ops import logs

log = logs.get(__name__)

Metadata = tuple[tuple[str, str | bytes], ...]
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_DETAILS = "grpc-status-details-bin"

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])


def code_of(status: Status) -> grpc.StatusCode:
    """grpcio's name of a status."""
    return _CODES[int(status)]


def trailing(error: ServingError) -> Metadata:
    """Trailing metadata of an error: empty, or the retry hint."""
    if error.retry_after_s is None:
        return ()
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(int(error.retry_after_s * 1e9))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=int(error.status), message=error.message, details=[detail])
    return ((_DETAILS, status.SerializeToString()),)


def unexpected(error: BaseException) -> ServingError:
    """What nobody mapped: the caller gets an id, the log gets the traceback."""
    request = uuid.uuid4().hex[:12]
    log.error("request.unexpected", request=request, exc_info=error)
    return ServingError(f"internal error (request {request}; see the server's log)")


def answered(handler: Handler) -> Handler:
    """A unary servicer method whose errors become statuses."""

    @functools.wraps(handler)
    async def guarded(self: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await handler(self, request, context)
        except ServingError as error:
            failure = error
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the caller must get a status
            failure = unexpected(error)
        await context.abort(code_of(failure.status), failure.message, trailing(failure))
        return None

    return guarded  # type: ignore[return-value]
