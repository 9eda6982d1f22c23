"""Steady callers beside a test: unmodified requests by grpc.aio, every answer checked, nothing retried.

The callers live in an event loop of their own thread, so that a test stays a plain list of steps: kill, wait, look.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from tests.cluster_process import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Array = np.ndarray[Any, Any]

CALLERS = 32
CHANNELS = 8
AT_LEAST_S = 10.0
CALL_S = 20.0
"""Deadline of a call: one that hangs is an error."""
PAUSE_S = 0.004
"""Between an answer and the next question, so that two cores hold client and cluster."""


@dataclass
class Seen:
    """What the callers saw. errors: by status and text; wrong: what was wrong with answers; slowest_s: of all answers."""

    answers: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    by_version: Counter[int] = field(default_factory=Counter)
    last_version: int = 0
    cancelled: int = 0
    slowest_s: float = 0.0

    @property
    def calls(self) -> int:
        """All calls that ended."""
        return self.answers + sum(self.errors.values()) + self.cancelled

    def __str__(self) -> str:
        failed = sum(self.errors.values())
        return (
            f"{failed} errors and {len(self.wrong)} wrong answers of {self.calls} calls, {self.cancelled} cancelled, "
            f"slowest {self.slowest_s * 1e3:.0f} ms; {dict(self.errors.most_common(5))} {self.wrong[:3]}"
        )


def times(factor: float) -> Callable[[Array, pb.ModelInferResponse], str]:
    """A check that y = x · factor; returns what is wrong, "" where nothing is."""

    def check(x: Array, response: pb.ModelInferResponse) -> str:
        y = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(tuple(response.outputs[0].shape))
        return "" if np.array_equal(y, x * np.float32(factor)) else f"{x.tolist()} gave {y.tolist()}"

    return check


def wholly_one_version(x: Array, response: pb.ModelInferResponse) -> str:
    """What is wrong with an answer of onnx_models.versioned: every row must be of the version that the answer names."""
    raw = dict(zip((item.name for item in response.outputs), response.raw_output_contents, strict=True))
    y = np.frombuffer(raw["y"], np.float32).reshape(-1, 4)
    tags = np.frombuffer(raw["version"], np.int64)
    version = int(response.model_version)
    if len(tags) != len(x) or set(tags.tolist()) != {version}:
        return f"version {version} answered {len(x)} rows with tags {tags.tolist()}"
    return "" if np.array_equal(y, x * np.float32(version)) else f"version {version}: {x.tolist()} gave {y.tolist()}"


class Load:
    """Callers of one model that takes x [rows, 4] FP32. A context manager: left, the callers have ended.

    rows: each call has as many as one of these. check: says what is wrong with an answer. cancel_share: of the
    calls that their caller gives up after a random time of at most cancel_within_s.
    """

    def __init__(
        self,
        url: str,
        model: str,
        check: Callable[[Array, pb.ModelInferResponse], str],
        *,
        rows: Sequence[int] = (1,),
        callers: int = CALLERS,
        cancel_share: float = 0.0,
        cancel_within_s: float = 0.02,
        pause_s: float = PAUSE_S,
        channels: int = CHANNELS,
    ) -> None:
        self.seen = Seen()
        self._url = url
        self._model = model
        self._check = check
        self._rows = rows
        self._callers = callers
        self._cancel_share = cancel_share
        self._cancel_within_s = cancel_within_s
        self._pause_s = pause_s
        self._channels = channels
        self._stopping = threading.Event()
        self._started = 0.0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._thread.start()
        self.more_answers(self._callers)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def more_answers(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until `count` more calls were answered."""
        wanted = self.seen.answers + count
        eventually(
            lambda: self.seen.answers >= wanted or not self._thread.is_alive(), lambda: str(self.seen), timeout_s
        )

    def at_least(self, seconds: float = AT_LEAST_S) -> None:
        """Go on until the load has lasted so long."""
        left = self._started + seconds - time.monotonic()
        if left > 0:
            self._stopping.wait(left)

    def stop(self) -> Seen:
        """Let every call end, and say what was seen."""
        self._stopping.set()
        self._thread.join(CALL_S + 10)
        assert not self._thread.is_alive(), f"calls hang: {self.seen}"
        if self._failure is not None:
            raise self._failure
        return self.seen

    def _run(self) -> None:
        try:
            asyncio.run(self._call_all())
        except BaseException as failure:
            self._failure = failure

    async def _call_all(self) -> None:
        # Channels of their own: connections are spread over the routers of a port.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with contextlib.AsyncExitStack() as stack:
            stubs = []
            for _ in range(self._channels):
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(self._url, options=options))
                stubs.append(service_pb2_grpc.GRPCInferenceServiceStub(channel))
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._callers):
                    tasks.create_task(self._call_on(stubs[number % len(stubs)], random.Random(number)))

    async def _call_on(self, stub: service_pb2_grpc.GRPCInferenceServiceStub, chance: random.Random) -> None:
        while not self._stopping.is_set():
            x = np.array(
                [[chance.randrange(1, 1 << 20) for _ in range(4)] for _ in range(chance.choice(self._rows))], np.float32
            )
            await self._call(stub, x, chance)
            await asyncio.sleep(self._pause_s)

    async def _call(self, stub: service_pb2_grpc.GRPCInferenceServiceStub, x: Array, chance: random.Random) -> None:
        request = pb.ModelInferRequest(model_name=self._model)
        request.inputs.add(name="x", datatype="FP32", shape=x.shape)
        request.raw_input_contents.append(x.tobytes())
        started = time.monotonic()
        call = stub.ModelInfer(request, timeout=CALL_S)
        if chance.random() < self._cancel_share:
            asyncio.get_running_loop().call_later(chance.random() * self._cancel_within_s, call.cancel)
        seen = self.seen
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            seen.statuses[error.code().name] += 1
            seen.errors[f"{error.code().name}: {(error.details() or '')[:200]}"] += 1
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
            seen.cancelled += 1
        else:
            seen.answers += 1
            seen.last_version = int(response.model_version)
            seen.by_version[seen.last_version] += 1
            seen.slowest_s = max(seen.slowest_s, time.monotonic() - started)
            wrong = self._check(x, response)
            if wrong:
                seen.wrong.append(wrong)
