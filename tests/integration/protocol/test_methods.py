"""Every method but those of the repository, by unmodified clients."""

from __future__ import annotations

import itertools
import queue
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2 as pb

from shardline import __version__
from shardline.core.datatypes import BY_NAME, BYTES
from tests.integration.protocol.calls import (
    ROW,
    TIMEOUT_S,
    keep_busy,
    output,
    raw_request,
    sample,
    statistics,
    tensor,
    typed_request,
)
from tests.integration.protocol.conftest import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from tests.cluster_process import ClusterProcess

TYPED = [name for name, row in BY_NAME.items() if row.contents]


def test_server_and_models_are_live_ready_and_described(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("add")
    assert client.is_model_ready("add", "1")
    assert not client.is_model_ready("add", "2")
    assert not client.is_model_ready("no_such_model")
    server = client.get_server_metadata()
    assert (server.name, server.version) == ("shardline", __version__)
    model = client.get_model_metadata("pair")
    assert [(item.name, item.datatype, list(item.shape)) for item in model.inputs] == [
        ("a", "FP32", [-1, -1]),
        ("b", "FP32", [-1, -1]),
    ]
    assert list(model.versions) == ["1"]
    config = client.get_model_config("add").config
    assert (config.name, config.max_batch_size) == ("add", 8)
    assert list(client.get_model_metadata("fixed").inputs[0].shape) == [2, 3]


@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_data_type_comes_back_equal_in_raw_contents(stub: Any, name: str) -> None:
    array = sample(name)
    response = stub.ModelInfer(raw_request(f"identity_{name.lower()}", {"x": array}), timeout=TIMEOUT_S)
    assert response.outputs[0].datatype == name
    assert list(response.outputs[0].shape) == [2, 4]
    assert response.raw_output_contents[0] == raw_request("", {"x": array}).raw_input_contents[0]


@pytest.mark.parametrize("name", TYPED)
def test_every_data_type_with_typed_contents_comes_back_equal(stub: Any, name: str) -> None:
    array = sample(name)
    request = typed_request(f"identity_{name.lower()}", "x", name, array.shape, array.ravel().tolist())
    found = output(stub.ModelInfer(request, timeout=TIMEOUT_S))
    assert found.tolist() == array.tolist()


@pytest.mark.parametrize("name", [name for name, row in BY_NAME.items() if name != "BF16"])
def test_tritonclient_sends_and_reads_every_data_type(client: triton.InferenceServerClient, name: str) -> None:
    array = sample(name)
    found = client.infer(f"identity_{name.lower()}", [tensor("x", array, name)]).as_numpy("y")
    assert found is not None
    assert found.tolist() == array.tolist()
    assert found.dtype == (np.dtype(object) if BY_NAME[name] is BYTES else array.dtype)


def test_bytes_that_are_not_text_are_refused_by_name(stub: Any) -> None:
    values = [b"a", b"\xff\xfe", b"\x00", b"b"]
    array = np.empty((1, 4), dtype=object)
    array[0] = values
    for request in (
        raw_request("identity_bytes", {"x": array}),
        typed_request("identity_bytes", "x", "BYTES", (1, 4), values),
    ):
        with pytest.raises(grpc.RpcError, match="input 'x': BYTES element 1 is not UTF-8") as caught:
            stub.ModelInfer(request, timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_outputs_come_as_requested_in_that_order(stub: Any) -> None:
    expected = {"sum": [10.0], "double": [[2.0, 4.0, 6.0, 8.0]]}
    for wanted in ([], ["double"], ["sum"], ["double", "sum"], ["sum", "double"]):
        response = stub.ModelInfer(raw_request("two_outputs", {"x": ROW}, wanted), timeout=TIMEOUT_S)
        names = [item.name for item in response.outputs]
        assert names == (wanted or ["sum", "double"])
        for index, name in enumerate(names):
            assert output(response, index).tolist() == expected[name]


def test_callers_that_want_different_outputs_share_a_batch_and_get_their_own(stub: Any) -> None:
    busy = keep_busy(stub)
    wanted: list[list[str]] = [["sum"], [], ["double", "sum"], ["double"]]
    calls = [
        stub.ModelInfer.future(raw_request("two_outputs", {"x": ROW * index}, names), timeout=TIMEOUT_S)
        for index, names in enumerate(wanted, 1)
    ]
    busy.result()
    for index, (names, call) in enumerate(zip(wanted, calls, strict=True), 1):
        response = call.result()
        assert [item.name for item in response.outputs] == (names or ["sum", "double"])
        for at, item in enumerate(response.outputs):
            want = ROW.sum(axis=1) * index if item.name == "sum" else 2 * ROW * index
            assert output(response, at).tolist() == want.tolist()


def test_ids_come_back_and_unknown_parameters_are_ignored(client: triton.InferenceServerClient) -> None:
    for request_id in ("first", "", "zw\u00f6lf \u2713"):
        result = client.infer(
            "add", [tensor("x", ROW)], request_id=request_id, parameters={"mine": "x", "other": 3, "flag": True}
        )
        assert result.get_response().id == request_id
        assert result.as_numpy("y").tolist() == (ROW + 1).tolist()


async def test_the_asyncio_client_runs_many_calls_at_once(cluster: ClusterProcess) -> None:
    import asyncio

    async with triton_aio.InferenceServerClient(cluster.url) as client:
        assert await client.is_server_ready()

        async def one(value: int) -> bool:
            result = await client.infer("add", [tensor("x", ROW + value)], request_id=str(value))
            return bool(np.array_equal(result.as_numpy("y"), ROW + value + 1)) and result.get_response().id == str(
                value
            )

        assert all(await asyncio.gather(*(one(value) for value in range(64))))


def test_a_stream_answers_as_answers_are_ready_and_errors_are_its_messages(client: Any) -> None:
    got: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: got.put((result, error)))
    client.async_stream_infer("add", [tensor("x", ROW)], request_id="before")
    first, error = got.get(timeout=TIMEOUT_S)
    assert error is None
    assert first.get_response().id == "before"
    client.async_stream_infer("slow", [tensor("x", ROW)], request_id="slow")
    client.async_stream_infer("no_such_model", [tensor("x", ROW)], request_id="wrong")
    result, error = got.get(timeout=TIMEOUT_S)
    assert result is None
    assert "no_such_model" in str(error)
    client.async_stream_infer("add", [tensor("x", ROW)], request_id="after")
    answers = [got.get(timeout=TIMEOUT_S)[0].get_response().id for _ in range(2)]
    assert sorted(answers) == ["after", "slow"]
    client.stop_stream()


def test_a_streams_error_says_which_request_failed(stub: Any) -> None:
    good, bad = raw_request("add", {"x": ROW}, id="good"), raw_request("add", {"nope": ROW}, id="bad")
    answers = list(stub.ModelStreamInfer(iter([good, bad, good]), timeout=TIMEOUT_S))
    assert len(answers) == 3
    (failed,) = [item for item in answers if item.error_message]
    assert failed.infer_response.id == "bad"
    assert "'nope'" in failed.error_message
    assert {item.infer_response.id for item in answers if not item.error_message} == {"good"}


def test_a_stream_with_hundreds_in_flight_answers_each_once(stub: Any) -> None:
    requests = [raw_request("add", {"x": ROW + index}, id=str(index)) for index in range(600)]
    found = {
        item.infer_response.id: output(item.infer_response)[0, 0]
        for item in stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT_S)
    }
    assert found == {str(index): ROW[0, 0] + index + 1 for index in range(600)}


def test_compressed_requests_are_understood(client: triton.InferenceServerClient) -> None:
    array = np.ones((4, 4), np.float32)
    result = client.infer("add", [tensor("x", array)], compression_algorithm="gzip")
    assert result.as_numpy("y").tolist() == (array + 1).tolist()


def test_a_message_above_the_limit_is_refused_with_the_settings_name(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(raw_request("pad", {"x": np.zeros((1, MAX_MESSAGE_BYTES // 4), np.float32)}), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "SHARDLINE_MAX_MESSAGE_BYTES" in str(caught.value.details())
    assert str(MAX_MESSAGE_BYTES) in str(caught.value.details())


METHODS_OF_SHARED_MEMORY = [
    f"{kind}SharedMemory{what}"
    for kind, what in itertools.product(("System", "Cuda"), ("Status", "Register", "Unregister"))
]


@pytest.mark.parametrize("method", METHODS_OF_SHARED_MEMORY)
def test_shared_memory_is_unimplemented_in_words(stub: Any, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(getattr(pb, f"{method}Request")(), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "shared memory" in str(caught.value.details())


def test_the_receipt_says_where_the_time_went(stub: Any) -> None:
    _, call = stub.ModelInfer.with_call(raw_request("add", {"x": ROW}), timeout=TIMEOUT_S)
    receipt = dict(call.trailing_metadata())["shardline-receipt"]
    fields = dict(item.split("=") for item in receipt.split(";"))
    assert fields["batch_rows"] == "1"
    assert fields["bucket"] == "1"
    assert fields["replica"].startswith("r-")
    assert int(fields["compute_us"]) >= 0


def test_statistics_are_what_was_sent(stub: Any) -> None:
    before = statistics(stub, "gather")
    for rows in (1, 3, 3):
        stub.ModelInfer(raw_request("gather", {"index": np.zeros(rows, np.int64)}), timeout=TIMEOUT_S)
    after = statistics(stub, "gather")
    assert after.inference_count - before.inference_count == 7
    assert after.execution_count - before.execution_count == 3
    assert after.inference_stats.success.count - before.inference_stats.success.count == 3
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    counts = {item.batch_size: item.compute_infer.count for item in after.batch_stats}
    for item in before.batch_stats:
        counts[item.batch_size] -= item.compute_infer.count
    assert {size: count for size, count in counts.items() if count} == {1: 1, 3: 2}
    assert after.last_inference >= before.last_inference > 0 or before.last_inference == 0
    failing = statistics(stub, "gather").inference_stats.fail.count
    with pytest.raises(grpc.RpcError, match="model failed"):
        stub.ModelInfer(raw_request("gather", {"index": np.full(1, 99, np.int64)}), timeout=TIMEOUT_S)
    assert statistics(stub, "gather").inference_stats.fail.count == failing + 1


def test_settings_of_traces_and_logs_are_read_and_not_changed(stub: Any) -> None:
    stub.TraceSetting(pb.TraceSettingRequest(), timeout=TIMEOUT_S)
    stub.LogSettings(pb.LogSettingsRequest(), timeout=TIMEOUT_S)
    request = pb.LogSettingsRequest()
    request.settings["log_verbose_level"].uint32_param = 1
    with pytest.raises(grpc.RpcError, match="SHARDLINE_LOG_LEVEL"):
        stub.LogSettings(request, timeout=TIMEOUT_S)
