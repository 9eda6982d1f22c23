"""Every way a request can fail, and the status each one becomes.

    ServingError
    ├── InvalidRequest         INVALID_ARGUMENT     the request contradicts the model's signature
    │   └── ShapeMismatch      INVALID_ARGUMENT     ... in a shape; says which two
    ├── NotFound               NOT_FOUND            unknown model or version
    ├── Unavailable            UNAVAILABLE          loading, draining or gone: another replica may answer
    │   ├── VersionGone        UNAVAILABLE          the version was unloaded after it was chosen
    │   └── NextStageGone      UNAVAILABLE          the replica of a later stage cannot be reached
    ├── Exhausted              RESOURCE_EXHAUSTED   a bound was reached; come back later
    │   └── MessageTooLarge    RESOURCE_EXHAUSTED   a message limit; names the setting; never retried
    ├── PlanMismatch           FAILED_PRECONDITION  stages of different plans met
    ├── ModelRejected          FAILED_PRECONDITION  a model or its config cannot be served, and why
    ├── DeadlineExceeded       DEADLINE_EXCEEDED    says where the time went
    ├── Cancelled              CANCELLED            the caller went away
    ├── Unsupported            UNIMPLEMENTED        a method or option this server does not offer
    └── ModelFailed            INTERNAL             the runtime raised; the request id leads to the log

One interceptor in `wire` turns these into statuses; nothing else aborts a call.
What nobody mapped becomes INTERNAL with the request id only.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Status(IntEnum):
    """gRPC status codes, by their wire numbers (core knows no grpc)."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class ServingError(Exception):
    """Base of all errors that a caller may see.

    message: one line that names the field and what was expected.
    retry_after_s: seconds after which a retry may succeed, None where a retry cannot help.
    """

    status: ClassVar[Status] = Status.INTERNAL
    retryable: ClassVar[bool] = False
    """Whether the router may send the same rows to another replica."""
    reason: ClassVar[str] = "internal"
    """Short label for metrics and logs; one of a bounded set."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class InvalidRequest(ServingError):
    """The request contradicts the model's signature or the protocol."""

    status = Status.INVALID_ARGUMENT
    reason = "invalid"


class ShapeMismatch(InvalidRequest):
    """A shape differs from what was expected; the message holds both."""

    reason = "shape"


class NotFound(ServingError):
    """Unknown model or version."""

    status = Status.NOT_FOUND
    reason = "not_found"


class Unavailable(ServingError):
    """Loading, draining or gone: the rows were not executed, another replica may take them."""

    status = Status.UNAVAILABLE
    retryable = True
    reason = "unavailable"


class VersionGone(Unavailable):
    """The version was unloaded between choice and arrival; choose a version anew."""

    reason = "version_gone"


class NextStageGone(Unavailable):
    """The replica of a later stage cannot be reached; another itinerary may be whole."""

    reason = "next_stage"


class Exhausted(ServingError):
    """A bound was reached (queue, rows or bytes in flight)."""

    status = Status.RESOURCE_EXHAUSTED
    retryable = True
    reason = "exhausted"


class MessageTooLarge(Exhausted):
    """A message is above a limit; the message names the setting that raises it."""

    retryable = False
    reason = "message_too_large"


class PlanMismatch(ServingError):
    """Stages of different plans met in one itinerary; the message holds both versions."""

    status = Status.FAILED_PRECONDITION
    reason = "plan_mismatch"


class ModelRejected(ServingError):
    """A model, its files or its config cannot be served; the message says why and what to do."""

    status = Status.FAILED_PRECONDITION
    reason = "model_rejected"


class DeadlineExceeded(ServingError):
    """The deadline passed; the message says where the time went."""

    status = Status.DEADLINE_EXCEEDED
    reason = "deadline"


class Cancelled(ServingError):
    """The caller went away."""

    status = Status.CANCELLED
    reason = "cancelled"


class Unsupported(ServingError):
    """A method or option that this server does not offer."""

    status = Status.UNIMPLEMENTED
    reason = "unsupported"


class ModelFailed(ServingError):
    """The runtime raised while it executed the batch."""

    status = Status.INTERNAL
    reason = "model_failed"


def by_reason() -> dict[str, type[ServingError]]:
    """All error classes by their reason, for errors that cross a link."""
    found: dict[str, type[ServingError]] = {}
    pending: list[type[ServingError]] = [ServingError]
    while pending:
        cls = pending.pop()
        found[cls.reason] = cls
        pending.extend(cls.__subclasses__())
    return found
