"""grpc.health.v1: Check, and Watch whose streams end when the server does.

grpcio-health-checking's own servicer keeps one condition for all watchers of a name and drops it when the first of them
leaves: the others hear of no change any more. And its streams end with their clients only, so that each holds up a
server that ends until its grace is over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Response = health_pb2.HealthCheckResponse
SERVING = Response.SERVING
NOT_SERVING = Response.NOT_SERVING


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # its stubs have no types
    """States by name; "" is the whole server, SERVING until told otherwise."""

    def __init__(self) -> None:
        self._states: dict[str, Any] = {"": SERVING}
        self._changed = asyncio.Event()
        self._draining = False
        self._ended = False

    def set(self, name: str, serving: bool) -> None:
        """Say whether `name` is served; ignored once the server drains."""
        state = SERVING if serving else NOT_SERVING
        if not self._draining and self._states.get(name) != state:
            self._states[name] = state
            self._tell()

    def drain(self) -> None:
        """NOT_SERVING for every name, for good."""
        self._draining = True
        self._states = dict.fromkeys(self._states, NOT_SERVING)
        self._tell()

    def end(self) -> None:
        """End all watches with UNAVAILABLE, now and from now on."""
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(  # noqa: N802  the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """The state of a name; NOT_FOUND where it was never told."""
        state = self._states.get(request.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"service '{request.service[:200]}' is not known")
        return Response(status=state)

    async def Watch(  # noqa: N802  the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The state of a name, and every change of it."""
        told = None
        while True:
            changed = self._changed
            state = self._states.get(request.service, Response.SERVICE_UNKNOWN)
            if state != told:
                yield Response(status=state)
                told = state
            if self._ended:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server ends; watch another one")
            await changed.wait()
