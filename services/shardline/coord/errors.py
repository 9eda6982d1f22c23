"""What can go wrong between this process and Redis.

Unavailable
└── RedisAway          UNAVAILABLE           not reachable in time; serving goes on without it
    └── RedisRefused   UNAVAILABLE           reachable, but it answered with an error
ServingError
└── StaleRevision      FAILED_PRECONDITION   someone else wrote first; read again and decide anew
"""

from __future__ import annotations

from shardline.core.errors import ServingError, Status, Unavailable


class RedisAway(Unavailable):
    """Redis cannot be reached in time. The message names the address and the cause, never the password."""

    retryable = False
    reason = "redis_away"


class RedisRefused(RedisAway):
    """Redis answered with an error (wrong type, read only, out of memory, no permission)."""

    reason = "redis_refused"


class StaleRevision(ServingError):
    """A versioned value was changed by someone else; the message holds both revisions."""

    status = Status.FAILED_PRECONDITION
    reason = "stale_revision"
