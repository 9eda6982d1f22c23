"""The edge: two interchangeable servers for the same methods, grpcio's and pygrpc-native's (ADR 0001).

Both hand a serialised ModelInferRequest to `infer(message, reply, timeout_s)` and everything else to grpc.aio servicers.
The native front takes ModelInfer by pygrpc-native's event API (its documented low-level interface): HTTP/2 runs in Rust
outside the interpreter lock, calls arrive in bursts, and no coroutine is made per call. Other methods go to a grpcio
server on a Unix socket behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc

from shardline.core.errors import ServingError
from shardline.wire import farewell
from shardline.wire.statuses import code_of, trailing

INFER = "/inference.GRPCInferenceService/ModelInfer"
RECEIPT = "shardline-receipt"
"""Trailing metadata that says where the time went."""

_NO_DEADLINE_S = 1e9
_SLACK = 64 << 20
"""grpc-core's own limit lies so far above ours, so that the error that names the setting is the one clients see."""
_BURST = 64


class Reply(Protocol):
    """As router.calls.Reply: answered once."""

    def ok(self, body: bytes, receipt: str) -> None:
        """A serialised ModelInferResponse and its receipt."""

    def fail(self, error: ServingError) -> None:
        """The status that says why not."""


class Inference(Protocol):
    """What a front hands calls to."""

    def submit(self, message: bytes, reply: Reply, timeout_s: float | None) -> Any:
        """Take a call; returns what `cancel` wants, or None where it was answered at once."""

    def cancel(self, request: Any) -> None:
        """The caller of this call went away."""

    def flush(self) -> None:
        """A burst of calls was submitted."""


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """Where and how to listen. Durations in seconds; max_connection_age_s 0: connections may live for ever."""

    address: str
    max_message_bytes: int
    reuse_port: bool = True
    max_connection_age_s: float = 0.0
    max_connection_age_grace_s: float = 30.0
    keepalive_s: float = 30.0
    max_concurrent_streams: int = 1024

    def channel_args(self) -> list[tuple[str, Any]]:
        """As grpcio's server options."""
        args: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", min(self.max_message_bytes + _SLACK, (1 << 31) - 1)),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(self.reuse_port)),
            ("grpc.keepalive_time_ms", int(self.keepalive_s * 1e3)),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_concurrent_streams", self.max_concurrent_streams),
        ]
        if self.max_connection_age_s:
            args += [
                ("grpc.max_connection_age_ms", int(self.max_connection_age_s * 1e3)),
                ("grpc.max_connection_age_grace_ms", int(self.max_connection_age_grace_s * 1e3)),
            ]
        return args


class Gate:
    """Where answers leave a grpcio server. calls: that are open; `held`: answers wait, so that none is written."""

    def __init__(self) -> None:
        self.calls = 0
        self._opened: asyncio.Event | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within, answers wait."""
        opened = self._opened = asyncio.Event()
        try:
            yield
        finally:
            self._opened = None
            opened.set()

    async def passed(self) -> None:
        """Returns when an answer may leave."""
        while self._opened is not None:
            await self._opened.wait()


AddServicers = Callable[[grpc.aio.Server, Gate], None]


def choose(asked: str, options: EdgeOptions) -> tuple[str, str]:
    """(front, why) for `auto`, `grpcio` or `native`. Raises ValueError where `native` cannot do what is asked."""
    missing = "closing connections by age" if options.max_connection_age_s else ""
    if asked == "native" and missing:
        raise ValueError(f"front: native cannot do {missing}; use --front grpcio, or leave the setting out")
    if asked == "auto":
        return ("grpcio", f"native cannot do {missing}") if missing else ("native", "it can do all that is asked")
    return asked, "it was asked for"


class _AwaitedReply:
    """A reply that a coroutine waits for."""

    __slots__ = ("future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[tuple[bytes, str]] = loop.create_future()

    def ok(self, body: bytes, receipt: str) -> None:
        if not self.future.done():
            self.future.set_result((body, receipt))

    def fail(self, error: ServingError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def infer_handler(inference: Inference, gate: Gate) -> grpc.RpcMethodHandler[bytes, bytes]:
    """ModelInfer for a grpcio server: bytes in, bytes out."""

    async def infer(message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        reply = _AwaitedReply(asyncio.get_running_loop())
        left = context.time_remaining()
        gate.calls += 1
        request = inference.submit(message, reply, left if left is not None and left < _NO_DEADLINE_S else None)
        try:
            body, receipt = await reply.future
            await gate.passed()
        except ServingError as error:
            await context.abort(code_of(error.status), error.message, trailing(error))
        except asyncio.CancelledError:
            if request is not None:
                inference.cancel(request)
            raise
        finally:
            gate.calls -= 1
        context.set_trailing_metadata(((RECEIPT, receipt),))
        return body

    return grpc.unary_unary_rpc_method_handler(infer)


class GrpcioFront:
    """grpcio's asyncio server."""

    name = "grpcio"

    def __init__(self, options: EdgeOptions, add_servicers: AddServicers) -> None:
        """add_servicers: adds all methods, ModelInfer by `infer_handler` among them."""
        self._options = options
        self._add_servicers = add_servicers
        self._gate = Gate()
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises OSError where the address is taken."""
        self._server = grpc.aio.server(options=self._options.channel_args())
        self._add_servicers(self._server, self._gate)
        self.port = _bind(self._server, self._options.address)
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Ask clients to take new calls elsewhere, let calls in flight end, close."""
        if self._server is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        await farewell.see_off(self.port, self._gate.held, lambda: self._gate.calls > 0, grace_s)
        await self._server.stop(max(0.0, deadline - loop.time()))


def _bind(server: grpc.aio.Server, address: str) -> int:
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from None


class _Outlet:
    """Where answers leave the native front. `held`: they wait, so that nothing is written to any connection."""

    def __init__(self, front: Any) -> None:
        self._front = front
        self.respond: Callable[..., object] = front.respond
        self.fail: Callable[..., object] = front.fail

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within, answers wait."""
        waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.respond = lambda *answer: waiting.append((self._front.respond, answer))
        self.fail = lambda *answer: waiting.append((self._front.fail, answer))
        try:
            yield
        finally:
            self.respond, self.fail = self._front.respond, self._front.fail
            for send, answer in waiting:
                send(*answer)


class _NativeReply:
    """A reply that goes straight to the native front."""

    __slots__ = ("_call", "_open", "_outlet")

    def __init__(self, outlet: _Outlet, call: int, open_calls: dict[int, Any]) -> None:
        self._outlet = outlet
        self._call = call
        self._open = open_calls

    def ok(self, body: bytes, receipt: str) -> None:
        self._open.pop(self._call, None)
        self._outlet.respond(self._call, body, None, [(RECEIPT, receipt)])

    def fail(self, error: ServingError) -> None:
        self._open.pop(self._call, None)
        self._outlet.fail(self._call, int(error.status), error.message, list(trailing(error)))


class NativeFront:
    """pygrpc-native's HTTP/2 in Rust for ModelInfer, and a grpcio server behind it for the rest."""

    name = "native"

    def __init__(self, options: EdgeOptions, add_servicers: AddServicers, inference: Inference) -> None:
        self._options = options
        self._add_servicers = add_servicers
        self._inference = inference
        self._open: dict[int, Any] = {}
        self._front: Any = None
        self._outlet: _Outlet | None = None
        self._behind: grpc.aio.Server | None = None
        self._folder = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises OSError where the address is taken."""
        from pygrpc_native import NativeGrpcFront

        self._loop = asyncio.get_running_loop()
        self._folder = tempfile.mkdtemp(prefix="shardline-edge-")
        behind = f"{self._folder}/edge.sock"
        self._behind = grpc.aio.server(options=self._options.channel_args())
        self._add_servicers(self._behind, Gate())
        self._behind.add_insecure_port(f"unix:{behind}")
        await self._behind.start()
        try:
            self._front = NativeGrpcFront(
                self._options.address,
                [(INFER, False)],
                call_details=True,
                keepalive_time_ms=int(self._options.keepalive_s * 1e3),
                max_concurrent_streams=self._options.max_concurrent_streams,
                reuse_port=self._options.reuse_port,
            )
        except OSError as error:
            await self._behind.stop(None)
            raise OSError(f"cannot listen on {self._options.address}: {error}") from None
        self._front.set_fallback(behind)
        self._outlet = _Outlet(self._front)
        self.port = self._front.bound_port
        self._front.start()
        self._thread = threading.Thread(target=self._take, name="edge", daemon=True)
        self._thread.start()

    def _take(self) -> None:
        """Bring bursts of events to the event loop, from a thread that waits outside the interpreter lock."""
        assert self._loop is not None
        while (events := self._front.recv_batch_details(_BURST)) is not None:
            try:
                self._loop.call_soon_threadsafe(self._burst, events)
            except RuntimeError:  # the loop is closed: the process ends
                return

    def _burst(self, events: Sequence[tuple[Any, ...]]) -> None:
        inference, calls, outlet = self._inference, self._open, self._outlet
        assert outlet is not None
        for _kind, call, _method, payload, _key, details in events:
            if payload is None:
                request = calls.pop(call, None)
                if request is not None:
                    inference.cancel(request)
                continue
            request = inference.submit(payload, _NativeReply(outlet, call, calls), details[2])
            if request is not None:
                calls[call] = request
        inference.flush()

    async def stop(self, grace_s: float) -> None:
        """Ask clients to take new calls elsewhere, let calls in flight end, close."""
        if self._front is None or self._behind is None or self._outlet is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        await farewell.see_off(self.port, self._outlet.held, lambda: bool(self._open), grace_s)
        await self._behind.stop(max(0.0, deadline - loop.time()))
        await loop.run_in_executor(None, self._front.close)
        with contextlib.suppress(OSError):
            shutil.rmtree(Path(self._folder))


Front = GrpcioFront | NativeFront
