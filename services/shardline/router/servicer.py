"""The client side's methods but ModelInfer, which the front takes as bytes: inference.GRPCInferenceService."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import grpc

from shardline import __version__
from shardline.core.errors import InvalidRequest, NotFound, ServingError, Unavailable, Unsupported
from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.pb.inference import grpc_service_pb2_grpc, model_config_pb2
from shardline.router.validation import asked_version
from shardline.wire.codec import split_request, varint
from shardline.wire.statuses import answered, code_of, trailing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shardline.router.dispatch import Dispatcher
    from shardline.router.repository import RepositoryControl
    from shardline.router.table import Table

Context = Any
STREAM_IN_FLIGHT = 256
"""Requests of one stream in flight, or answered and not yet sent, at most; the stream is read on as answers leave."""

EXTENSIONS = ("model_configuration", "model_repository", "schedule_policy", "statistics", "shardline_receipt")
_NO_SHARED_MEMORY = "shared memory is not offered by this server; send tensor bytes in the request"


class InferenceServicer(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    """Metadata, statistics, repository, streaming. Every error becomes a status in one place (wire.statuses)."""

    def __init__(self, table: Table, dispatcher: Dispatcher, repository: RepositoryControl) -> None:
        self._table = table
        self._dispatcher = dispatcher
        self._repository = repository
        self._streams: set[_Stream] = set()
        self.draining = False

    def end_idle_streams(self, idle_s: float) -> None:
        """End streams on which nothing has been asked or answered for so long: the router ends, and they hold it up."""
        for stream in tuple(self._streams):
            if stream.idle_for() >= idle_s:
                stream.refuse(Unavailable("the router ends; open a new stream", retry_after_s=0.1))

    @answered
    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    @answered
    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=not self.draining and self._repository.settled)

    @answered
    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        try:
            self._table.resolve(request.name, asked_version(request.version))
        except (NotFound, Unavailable):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    @answered
    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="shardline", version=__version__, extensions=EXTENSIONS)

    @answered
    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        serving = self._table.resolve(request.name, asked_version(request.version))
        spec = serving.spec
        response = pb.ModelMetadataResponse(
            name=spec.name,
            versions=[str(version) for version in sorted(self._table.models[spec.name].versions)],
            platform=spec.platform,
        )
        lead = (-1,) if spec.batched else ()
        for tensors, field in ((spec.inputs, response.inputs), (spec.outputs, response.outputs)):
            for tensor in tensors:
                field.add(name=tensor.name, datatype=tensor.datatype.name, shape=(*lead, *tensor.wire_dims))
        return response

    @answered
    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        serving = self._table.resolve(request.name, asked_version(request.version))
        return pb.ModelConfigResponse(config=model_config_pb2.ModelConfig.FromString(serving.spec.config))

    @answered
    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        version = asked_version(request.version)
        if request.name:
            self._table.resolve(request.name, version)
        elif version:
            raise InvalidRequest("version: a version without a name was asked for, expected both or only the name")
        return pb.ModelStatisticsResponse(model_stats=await self._repository.statistics(request.name, version))

    @answered
    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> pb.RepositoryIndexResponse:
        _one_repository(request.repository_name)
        models = await self._repository.index()
        return pb.RepositoryIndexResponse(
            models=[model for model in models if not request.ready or model.state == "READY"]
        )

    @answered
    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        _one_repository(request.repository_name)
        config = ""
        for name, value in request.parameters.items():
            if name == "config":
                config = value.string_param
            elif name.startswith("file:"):
                raise Unsupported(
                    f"parameter '{name}': files are not taken from requests; put them into the repository"
                )
            else:
                raise InvalidRequest(f"parameter '{name}': unknown, expected 'config'")
        await self._repository.load(request.model_name, config)
        return pb.RepositoryModelLoadResponse()

    @answered
    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        _one_repository(request.repository_name)
        await self._repository.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    @answered
    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        # The front takes this method as bytes (wire.front.infer_handler), registered over this one.
        raise Unsupported("ModelInfer is taken by the front as bytes")

    def ModelStreamInfer(self, request_iterator: Any, context: Context) -> AsyncIterator[pb.ModelStreamInferResponse]:
        # As ModelInfer: stream_handler is registered over this one.
        raise Unsupported("ModelStreamInfer is taken as bytes")

    async def stream_infer(self, request_iterator: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Several requests in flight; answers go out as they are ready, errors as messages of the stream."""
        stream = _Stream(self._dispatcher)
        reading = asyncio.ensure_future(stream.read(request_iterator))
        self._streams.add(stream)
        try:
            while (message := await stream.answers.get()) is not None:
                if isinstance(message, ServingError):
                    raise message
                yield message
                stream.sent()
        finally:
            self._streams.discard(stream)
            reading.cancel()
            stream.cancel()

    @answered
    async def SystemSharedMemoryStatus(self, request: Any, context: Context) -> pb.SystemSharedMemoryStatusResponse:
        raise Unsupported(_NO_SHARED_MEMORY)

    @answered
    async def SystemSharedMemoryRegister(self, request: Any, context: Context) -> pb.SystemSharedMemoryRegisterResponse:
        raise Unsupported(_NO_SHARED_MEMORY)

    @answered
    async def SystemSharedMemoryUnregister(
        self, request: Any, context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        raise Unsupported(_NO_SHARED_MEMORY)

    @answered
    async def CudaSharedMemoryStatus(self, request: Any, context: Context) -> pb.CudaSharedMemoryStatusResponse:
        raise Unsupported(_NO_SHARED_MEMORY)

    @answered
    async def CudaSharedMemoryRegister(self, request: Any, context: Context) -> pb.CudaSharedMemoryRegisterResponse:
        raise Unsupported(_NO_SHARED_MEMORY)

    @answered
    async def CudaSharedMemoryUnregister(self, request: Any, context: Context) -> pb.CudaSharedMemoryUnregisterResponse:
        raise Unsupported(_NO_SHARED_MEMORY)

    @answered
    async def TraceSetting(self, request: pb.TraceSettingRequest, context: Context) -> pb.TraceSettingResponse:
        if request.settings:
            raise Unsupported("trace settings cannot be changed at run time; traces follow the client's context")
        return pb.TraceSettingResponse()

    @answered
    async def LogSettings(self, request: pb.LogSettingsRequest, context: Context) -> pb.LogSettingsResponse:
        if request.settings:
            raise Unsupported("log settings cannot be changed at run time; set SHARDLINE_LOG_LEVEL")
        return pb.LogSettingsResponse()


class _Stream:
    """One ModelStreamInfer call."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.answers: asyncio.Queue[bytes | ServingError | None] = asyncio.Queue()
        self._slots = asyncio.Semaphore(STREAM_IN_FLIGHT)
        self._requests: dict[_StreamReply, Any] = {}
        self._ended = False
        self._used_at = time.monotonic()

    def idle_for(self) -> float:
        """Seconds since the last request or answer; 0 while an answer is owed."""
        return 0.0 if self._requests else time.monotonic() - self._used_at

    def refuse(self, error: ServingError) -> None:
        """End the stream with a status."""
        self.answers.put_nowait(error)

    async def read(self, messages: AsyncIterator[bytes]) -> None:
        async for message in messages:
            await self._slots.acquire()
            self._used_at = time.monotonic()
            reply = _StreamReply(self, message)
            self._requests[reply] = None
            request = self._dispatcher.submit(message, reply, None)
            if request is not None and reply in self._requests:
                self._requests[reply] = request
        self._ended = True
        self._end_if_done()

    def answer(self, reply: _StreamReply, message: bytes) -> None:
        if self._requests.pop(reply, self) is not self:
            self._used_at = time.monotonic()
            self.answers.put_nowait(message)
            self._end_if_done()

    def sent(self) -> None:
        """An answer left. Only now the next request is read: what a client does not fetch must not pile up here."""
        self._slots.release()

    def _end_if_done(self) -> None:
        if self._ended and not self._requests:
            self.answers.put_nowait(None)

    def cancel(self) -> None:
        for request in list(self._requests.values()):
            if request is not None:
                self._dispatcher.cancel(request)
        self._requests.clear()


class _StreamReply:
    __slots__ = ("_message", "_stream")

    def __init__(self, stream: _Stream, message: bytes) -> None:
        self._stream = stream
        self._message = message

    def ok(self, body: bytes, receipt: str) -> None:
        # ModelStreamInferResponse.infer_response is field 2: the answer goes in as it is.
        self._stream.answer(self, b"\x12" + varint(len(body)) + body)

    def fail(self, error: ServingError) -> None:
        response = pb.ModelStreamInferResponse(error_message=f"{error.status.name}: {error.message}")
        # As Triton does: the id tells the client which of its requests failed.
        with contextlib.suppress(InvalidRequest):
            response.infer_response.id = split_request(self._message).request_id
        self._stream.answer(self, response.SerializeToString())


def stream_handler(servicer: InferenceServicer) -> grpc.RpcMethodHandler[bytes, bytes]:
    """ModelStreamInfer with bytes in and out."""

    async def infer(messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        try:
            async for message in servicer.stream_infer(messages, context):
                yield message
        except ServingError as error:
            await context.abort(code_of(error.status), error.message, trailing(error))

    return grpc.stream_stream_rpc_method_handler(infer)


def _one_repository(name: str) -> None:
    if name:
        raise InvalidRequest(f"repository_name: '{name[:100]}' is unknown, this server has one repository without name")
