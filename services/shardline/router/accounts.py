"""What a router writes down of each request: metrics and the access line, from the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.core.errors import Cancelled, ServingError, Status
from shardline.ops.metrics import UNKNOWN, Metrics, RequestCounters

if TYPE_CHECKING:
    from shardline.ops.logs import AccessLog
    from shardline.router.calls import Part, Request
    from shardline.router.table import Serving


class Accounts:
    """Counts and logs requests; does nothing where accounting is off."""

    def __init__(self, metrics: Metrics, access: AccessLog, *, enabled: bool) -> None:
        self._metrics = metrics
        self._access = access
        self._enabled = enabled
        self._counters: dict[int, tuple[Serving, RequestCounters]] = {}

    def _of(self, serving: Serving) -> RequestCounters:
        found = self._counters.get(id(serving))
        if found is None:
            if len(self._counters) > 1024:
                self._counters.clear()
            counters = self._metrics.of_requests(serving.pool.model, serving.pool.version)
            found = self._counters[id(serving)] = (serving, counters)
        return found[1]

    def answered(self, request: Request, response_bytes: int, receipt: str, now: float) -> None:
        """A request that went well."""
        if not self._enabled:
            return
        seconds = now - request.arrived
        self._of(request.prepared.serving).observe_request(0, seconds, request.size_bytes, response_bytes)
        if self._access.wanted(True):
            self._write(request, True, "OK", seconds, receipt=receipt)

    def failed(self, request: Request, error: ServingError, now: float) -> None:
        """A request that was admitted and then failed."""
        if not self._enabled:
            return
        seconds = now - request.arrived
        counters = self._of(request.prepared.serving)
        counters.observe_request(int(error.status), seconds, request.size_bytes)
        self._write(request, False, error.status.name, seconds, reason=error.reason, error=error.message)

    def refused(self, error: ServingError, size_bytes: int, seconds: float) -> None:
        """A request that was not admitted."""
        if not self._enabled:
            return
        self._metrics.of_requests(*UNKNOWN).observe_request(int(error.status), seconds, size_bytes)
        self._metrics.counter("shardline_refused_total", "", error.reason).value += 1
        if self._access.wanted(False):
            self._access.write(False, status=error.status.name, reason=error.reason, error=error.message)

    def cancelled(self, request: Request) -> None:
        """A request whose caller went away."""
        if self._enabled:
            self._of(request.prepared.serving).observe_request(int(Status.CANCELLED), 0.0, request.size_bytes)
            self._metrics.counter(
                "shardline_refused_total", request.prepared.serving.pool.model, Cancelled.reason
            ).value += 1

    def retried(self, part: Part, reason: str) -> None:
        """A part that is sent again."""
        model = part.request.prepared.serving.pool.model
        self._metrics.counter("shardline_retries_total", model, reason).value += 1

    def late(self, model: str) -> None:
        """An answer that nobody waits for any more."""
        if self._enabled:
            self._metrics.counter("shardline_late_answers_total", model).value += 1

    def _write(self, request: Request, ok: bool, status: str, seconds: float, **fields: object) -> None:
        pool = request.prepared.serving.pool
        self._access.write(
            ok,
            model=pool.model,
            version=pool.version,
            status=status,
            rows=request.prepared.template.rows,
            ms=round(seconds * 1e3, 3),
            **({"id": request.request_id} if request.request_id else {}),
            **fields,
        )
