"""Our client against a server of the protocol that is as small as can be."""

# ruff: noqa: N802  the protocol names its methods

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.pb.inference.grpc_service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from shardline.wire.client import CallFailed, InferenceClient, ModelEntry, TensorMetadata, infer_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Echo(GRPCInferenceServiceServicer):
    """Answers a request with its own inputs; the model's name asks for the failures."""

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        if request.model_name == "late":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no replica of late:1;\n try again")
        context.set_trailing_metadata((("other", "x"), ("shardline-receipt", "stage=0;queue_us=5|stage=1;queue_us=6")))
        response = pb.ModelInferResponse(model_name=request.model_name, model_version="7", id=request.id)
        for tensor in request.inputs:
            response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.extend(request.raw_input_contents)
        return response

    async def ModelStreamInfer(self, requests: Any, context: Any) -> Any:
        async for request in requests:
            if request.model_name == "late":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            yield pb.ModelStreamInferResponse(infer_response=await self.ModelInfer(request, context))

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return pb.ServerReadyResponse(ready=True)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        return pb.ModelReadyResponse(ready=request.name == "echo" and request.version in ("", "7"))

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        response = pb.ModelMetadataResponse(name=request.name, versions=["7"], platform="onnxruntime_onnx")
        response.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
        return response

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        response = pb.RepositoryIndexResponse()
        response.models.add(name="echo", version="7", state="READY")
        if not request.ready:
            response.models.add(name="bad", version="1", state="UNAVAILABLE", reason="corrupt")
        return response


@pytest.fixture
async def client() -> AsyncIterator[InferenceClient]:
    server = grpc.aio.server()
    add_GRPCInferenceServiceServicer_to_server(Echo(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with InferenceClient(f"grpc://127.0.0.1:{port}", timeout_s=20) as client:
        yield client
    await server.stop(None)


async def test_an_answer_is_its_outputs_with_version_latency_and_receipt(client: InferenceClient) -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    answer = await client.infer("echo", {"x": x, "t": np.array(["a", "ä"], dtype=object)})
    assert np.array_equal(answer["x"], x)
    assert answer["t"].tolist() == [b"a", "ä".encode()]
    assert (answer.version, answer.receipt) == ("7", ({"stage": "0", "queue_us": "5"}, {"stage": "1", "queue_us": "6"}))
    assert answer.latency_s > 0


async def test_a_failed_call_carries_status_and_one_line(client: InferenceClient) -> None:
    with pytest.raises(CallFailed) as raised:
        await client.infer("late", {"x": np.zeros((1, 2), np.float32)})
    assert (raised.value.status, raised.value.message) == ("UNAVAILABLE", "no replica of late:1; try again")


async def test_a_method_that_the_server_lacks_fails_by_name(client: InferenceClient) -> None:
    for call in (client.load("echo"), client.unload("echo"), client.statistics(), client.server_metadata()):
        with pytest.raises(CallFailed) as raised:
            await call
        assert raised.value.status == "UNIMPLEMENTED"


async def test_streamed_answers_come_back_with_their_ids(client: InferenceClient) -> None:
    async def requests() -> AsyncIterator[Any]:
        for number in range(3):
            yield infer_request("echo", {"x": np.full((1, 2), number, np.float32)}, request_id=str(number))

    ids = [response.infer_response.id async for response in client.infer_stream(requests(), timeout_s=20)]
    assert ids == ["0", "1", "2"]


async def test_a_stream_that_the_server_ends_is_a_failed_call(client: InferenceClient) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield infer_request("late", {})

    with pytest.raises(CallFailed, match="gone"):
        await anext(client.infer_stream(requests(), timeout_s=20))


async def test_readiness_metadata_and_index_are_values(client: InferenceClient) -> None:
    assert await client.server_ready()
    assert await client.model_ready("echo")
    assert not await client.model_ready("echo", "8")
    metadata = await client.model_metadata("echo")
    assert (metadata.versions, metadata.inputs) == (("7",), (TensorMetadata("x", "FP32", (-1, 2)),))
    echo, bad = ModelEntry("echo", "7", "READY", ""), ModelEntry("bad", "1", "UNAVAILABLE", "corrupt")
    assert await client.repository_index() == (echo, bad)
    assert await client.repository_index(ready=True) == (echo,)


async def test_a_server_that_is_not_there_is_unavailable_and_not_waited_for() -> None:
    async with InferenceClient("127.0.0.1:1", timeout_s=20) as client:
        with pytest.raises(CallFailed) as raised:
            await client.server_live()
    assert raised.value.status == "UNAVAILABLE"
