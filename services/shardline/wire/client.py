"""A thin asynchronous client of the Open Inference Protocol, for our own commands and examples.

Any other client of the protocol (tritonclient, KServe) does the same; this one is small, typed, and knows
Shardline's receipt. Errors are `CallFailed`, so that callers need no grpc.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
import grpc.aio

from shardline.core.datatypes import BY_NAME
from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from shardline.wire import arrays

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
    from types import TracebackType

    import numpy as np

    from shardline.pb.inference.model_config_pb2 import ModelConfig

    Array = np.ndarray[Any, Any]

Response = TypeVar("Response")

RECEIPT = "shardline-receipt"
"""Trailing metadata that says where the time went, and which replica answered: `key=value;…` per stage, joined by |."""

Receipt = tuple[dict[str, str], ...]


class CallFailed(Exception):
    """A call did not succeed.

    status: the gRPC status by name, such as UNAVAILABLE. message: the server's text, one line.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """One input or output as the server shows it; -1 in the shape is any size, the batch axis is included."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What ModelMetadata answers."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One line of the repository index. state: READY, LOADING, UNAVAILABLE …; reason: why, where not READY."""

    name: str
    version: str
    state: str
    reason: str


class Answer(dict[str, "Array"]):
    """Outputs by name, and what is known about the call.

    version: that answered. latency_s: as this client saw it. receipt: the server's account, a
    dictionary per stage with times in microseconds (queue_us, compute_us …); empty from servers that send none.
    """

    def __init__(self, outputs: Mapping[str, Array], version: str, latency_s: float, receipt: Receipt):
        super().__init__(outputs)
        self.version = version
        self.latency_s = latency_s
        self.receipt = receipt


class InferenceClient:
    """Calls one server (or all routers behind one address). Use it as an async context manager.

    target: `host:port`, `grpc://host:port`, or `grpcs://host:port` for TLS by the system's authorities.
    timeout_s: deadline of a call that names none. message_bytes: limit in both directions, -1 for none.
    """

    def __init__(self, target: str, *, timeout_s: float = 60.0, message_bytes: int = -1) -> None:
        scheme, _, rest = target.rpartition("://")
        options = [
            ("grpc.max_send_message_length", message_bytes),
            ("grpc.max_receive_message_length", message_bytes),
            # A channel of its own per client: two clients never share one connection by accident.
            ("grpc.use_local_subchannel_pool", 1),
            # A server that just started is found quickly; the default backs off to 120 s.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        if scheme == "grpcs":
            self._channel = grpc.aio.secure_channel(rest, grpc.ssl_channel_credentials(), options=options)
        else:
            self._channel = grpc.aio.insecure_channel(rest, options=options)
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        await self._channel.close()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Answer:
        """Run a model. Data types follow the arrays (wire.arrays). outputs: names wanted, all if empty.

        Raises CallFailed.
        """
        request = infer_request(model, inputs, version=version, outputs=outputs, request_id=request_id)
        started = time.perf_counter()
        call = self._stub.ModelInfer(request, timeout=self._limit(timeout_s))
        response = await _answered(call)
        latency_s = time.perf_counter() - started
        return Answer(
            read_outputs(response), response.model_version, latency_s, _receipt(await call.trailing_metadata())
        )

    async def infer_stream(
        self, requests: AsyncIterator[pb.ModelInferRequest], *, timeout_s: float | None = None
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """ModelStreamInfer: answers in the order in which they are ready; `id` says whose. Raises CallFailed."""
        try:
            async for response in self._stub.ModelStreamInfer(requests, timeout=timeout_s):
                yield response
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from error

    async def server_live(self, timeout_s: float | None = None) -> bool:
        """Whether the server answers at all. Raises CallFailed."""
        response = await _answered(self._stub.ServerLive(pb.ServerLiveRequest(), timeout=self._limit(timeout_s)))
        return response.live

    async def server_ready(self, timeout_s: float | None = None) -> bool:
        """Whether the server can answer for its models. Raises CallFailed."""
        response = await _answered(self._stub.ServerReady(pb.ServerReadyRequest(), timeout=self._limit(timeout_s)))
        return response.ready

    async def model_ready(self, model: str, version: str = "", timeout_s: float | None = None) -> bool:
        """Whether a model (any version if empty) is ready. Raises CallFailed."""
        request = pb.ModelReadyRequest(name=model, version=version)
        return (await _answered(self._stub.ModelReady(request, timeout=self._limit(timeout_s)))).ready

    async def server_metadata(self) -> pb.ServerMetadataResponse:
        """Name, version and extensions. Raises CallFailed."""
        return await _answered(self._stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=self._timeout_s))

    async def model_metadata(self, model: str, version: str = "") -> ModelMetadata:
        """Signature and versions of a model. Raises CallFailed."""
        request = pb.ModelMetadataRequest(name=model, version=version)
        found = await _answered(self._stub.ModelMetadata(request, timeout=self._timeout_s))
        return ModelMetadata(
            found.name, tuple(found.versions), found.platform, _tensors(found.inputs), _tensors(found.outputs)
        )

    async def model_config(self, model: str, version: str = "") -> ModelConfig:
        """The model's config as it is served. Raises CallFailed."""
        request = pb.ModelConfigRequest(name=model, version=version)
        return (await _answered(self._stub.ModelConfig(request, timeout=self._timeout_s))).config

    async def statistics(self, model: str = "", version: str = "") -> tuple[pb.ModelStatistics, ...]:
        """Counts and durations per model version; all models if none is named. Raises CallFailed."""
        request = pb.ModelStatisticsRequest(name=model, version=version)
        return tuple((await _answered(self._stub.ModelStatistics(request, timeout=self._timeout_s))).model_stats)

    async def repository_index(self, *, ready: bool = False) -> tuple[ModelEntry, ...]:
        """What the repository holds (only what is ready, if asked so). Raises CallFailed."""
        request = pb.RepositoryIndexRequest(ready=ready)
        found = await _answered(self._stub.RepositoryIndex(request, timeout=self._timeout_s))
        return tuple(ModelEntry(entry.name, entry.version, entry.state, entry.reason) for entry in found.models)

    async def load(self, model: str, timeout_s: float | None = None) -> None:
        """Load a model, or load it anew from changed files. Raises CallFailed."""
        request = pb.RepositoryModelLoadRequest(model_name=model)
        await _answered(self._stub.RepositoryModelLoad(request, timeout=self._limit(timeout_s)))

    async def unload(self, model: str, timeout_s: float | None = None) -> None:
        """Unload all versions of a model. Raises CallFailed."""
        request = pb.RepositoryModelUnloadRequest(model_name=model)
        await _answered(self._stub.RepositoryModelUnload(request, timeout=self._limit(timeout_s)))

    def _limit(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else timeout_s


def infer_request(
    model: str, inputs: Mapping[str, Array], *, version: str = "", outputs: Sequence[str] = (), request_id: str = ""
) -> pb.ModelInferRequest:
    """A request with raw contents."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=arrays.datatype_of(array).name, shape=array.shape)
        request.raw_input_contents.append(arrays.encode(array))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def read_outputs(response: pb.ModelInferResponse) -> dict[str, Array]:
    """Outputs by name from a response with raw contents (what Shardline always sends)."""
    return {
        output.name: arrays.decode(raw, BY_NAME[output.datatype], tuple(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


async def _answered(call: Awaitable[Response]) -> Response:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _failed(error) from error


def _failed(error: grpc.aio.AioRpcError) -> CallFailed:
    return CallFailed(error.code().name, " ".join((error.details() or "no details").split()))


def read_receipt(text: str) -> Receipt:
    """The stages of a receipt; what is not a `key=value` is passed over.

    >>> read_receipt("stage=0;queue_us=12|stage=1;queue_us=3")
    ({'stage': '0', 'queue_us': '12'}, {'stage': '1', 'queue_us': '3'})
    """
    stages = (dict(pair.split("=", 1) for pair in stage.split(";") if "=" in pair) for stage in text.split("|"))
    return tuple(stage for stage in stages if stage)


def _receipt(metadata: Any) -> Receipt:
    return next((read_receipt(value) for key, value in metadata or () if key == RECEIPT), ())


def _tensors(tensors: Any) -> tuple[TensorMetadata, ...]:
    return tuple(TensorMetadata(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)
