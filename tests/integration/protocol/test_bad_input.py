"""Bad input gets a status of the table and a message that names the field and both values; the rest goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from tests.integration.protocol.calls import ROW, TIMEOUT_S, output, raw_request, typed_request

if TYPE_CHECKING:
    from tests.cluster_process import ClusterProcess

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Change = Callable[[pb.ModelInferRequest], None]


def good() -> pb.ModelInferRequest:
    """A request that is right."""
    return raw_request("add", {"x": ROW})


@dataclass(frozen=True)
class Case:
    """name: of the kind of badness. make: the request. words: what the message must hold."""

    name: str
    make: Callable[[], pb.ModelInferRequest]
    words: tuple[str, ...]
    status: grpc.StatusCode = INVALID


def changed(change: Change) -> Callable[[], pb.ModelInferRequest]:
    """The good request after a change."""

    def make() -> pb.ModelInferRequest:
        request = good()
        change(request)
        return request

    return make


def _set(name: str, value: Any) -> Change:
    return lambda request: setattr(request.inputs[0], name, value)


def _shape(*dims: int) -> Change:
    def change(request: pb.ModelInferRequest) -> None:
        del request.inputs[0].shape[:]
        request.inputs[0].shape.extend(dims)

    return change


def _raw(data: bytes) -> Change:
    def change(request: pb.ModelInferRequest) -> None:
        request.raw_input_contents[0] = data

    return change


def _parameter(name: str, **value: Any) -> Change:
    def change(request: pb.ModelInferRequest) -> None:
        for field, content in value.items():
            setattr(request.parameters[name], field, content)

    return change


def _strings(data: bytes) -> Callable[[], pb.ModelInferRequest]:
    def make() -> pb.ModelInferRequest:
        request = pb.ModelInferRequest(model_name="identity_bytes", raw_input_contents=[data])
        request.inputs.add(name="x", datatype="BYTES", shape=[1, 4])
        return request

    return make


def _pair(a: tuple[int, int], b: tuple[int, int]) -> Callable[[], pb.ModelInferRequest]:
    return lambda: raw_request("pair", {"a": np.ones(a, np.float32), "b": np.ones(b, np.float32)})


def _twice(request: pb.ModelInferRequest) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def _mixed(request: pb.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend([1.0] * 4)


def _shared_memory(request: pb.ModelInferRequest) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "mine"


def _output(name: str, times: int = 1) -> Change:
    def change(request: pb.ModelInferRequest) -> None:
        for _ in range(times):
            request.outputs.add(name=name)

    return change


ELEMENT = b"\x01\x00\x00\x00a"
CASES = (
    Case("empty model name", changed(lambda request: setattr(request, "model_name", "")), ("model_name",)),
    Case(
        "unknown model",
        changed(lambda request: setattr(request, "model_name", "addd")),
        ("'addd'", "add"),
        grpc.StatusCode.NOT_FOUND,
    ),
    Case(
        "unknown version",
        changed(lambda request: setattr(request, "model_version", "7")),
        ("'add'", "7", "1"),
        grpc.StatusCode.NOT_FOUND,
    ),
    Case(
        "a version that is no number",
        changed(lambda request: setattr(request, "model_version", "new")),
        ("model_version", "'new'"),
    ),
    Case("wrong input name", changed(_set("name", "z")), ("'z'", "'x'")),
    Case("wrong data type", changed(_set("datatype", "INT32")), ("'x'", "INT32", "FP32")),
    Case("unknown data type", changed(_set("datatype", "FP33")), ("'x'", "FP33", "FP32")),
    Case("wrong fixed dimension", changed(_shape(1, 5)), ("'x'", "[1, 5]", "[-1, 4]")),
    Case("wrong rank", changed(_shape(1, 1, 4)), ("'x'", "[1, 1, 4]", "[-1, 4]")),
    Case("no dimensions", changed(_shape()), ("'x'", "[]", "[-1, 4]")),
    Case("negative dimension", changed(_shape(-1, 4)), ("'x'", "-1", "[-1, 4]")),
    Case("huge dimension", changed(_shape(1 << 62, 4)), ("'x'", str(1 << 62))),
    Case("no rows", changed(_shape(0, 4)), ("'x'", "0 rows", "at least 1")),
    Case("thousands of dimensions", changed(_shape(*([1] * 5000))), ("'x'", "5000", "[-1, 4]")),
    Case("too few bytes", changed(_raw(b"1234")), ("'x'", "4 bytes", "16")),
    Case("too many bytes", changed(_raw(bytes(20))), ("'x'", "20 bytes", "16")),
    Case("missing input", lambda: raw_request("pair", {"a": ROW}), ("'b'", "missing", "'a'")),
    Case("no input", lambda: pb.ModelInferRequest(model_name="add"), ("'x'", "missing")),
    Case("extra input", lambda: raw_request("add", {"x": ROW, "extra": ROW}), ("'extra'", "'x'")),
    Case("duplicate input", changed(_twice), ("'x'", "twice", "once")),
    Case("raw and typed mixed", changed(_mixed), ("'x'", "raw_input_contents")),
    Case(
        "raw contents without their input",
        changed(lambda request: request.raw_input_contents.append(b"")),
        ("raw_input_contents", "2", "1"),
    ),
    Case("no contents", changed(lambda request: request.raw_input_contents.pop()), ("'x'", "0", "4")),
    Case(
        "typed contents of another field",
        lambda: typed_request("add", "x", "FP64", [1, 4], [1.0] * 4),
        ("'x'", "FP64", "FP32"),
    ),
    Case(
        "too few typed elements",
        lambda: typed_request("add", "x", "FP32", [1, 4], [1.0] * 3),
        ("'x'", "fp32_contents", "3", "4"),
    ),
    Case(
        "a typed number outside the data type",
        lambda: typed_request("identity_int8", "x", "INT8", [1, 4], [1, 2, 3, 300]),
        ("'x'", "300", "INT8", "127"),
    ),
    Case("BYTES cut off in a length", _strings(ELEMENT * 3 + b"\x01\x00"), ("'x'", "cut off", "2 bytes")),
    Case("BYTES cut off in an element", _strings(ELEMENT * 3 + b"\x05\x00\x00\x00ab"), ("'x'", "5 bytes", "2")),
    Case("too few BYTES elements", _strings(ELEMENT * 3), ("'x'", "3", "4")),
    Case("too many BYTES elements", _strings(ELEMENT * 9), ("'x'", "more than 4", "expected 4")),
    Case("a BYTES length of 4 GB", _strings(b"\xff\xff\xff\xff"), ("'x'", str(0xFFFFFFFF))),
    Case("symbolic dimensions that disagree", _pair((1, 3), (1, 4)), ("'b'", "'n'", "4", "3", "'a'")),
    Case("rows that disagree", _pair((2, 4), (1, 4)), ("'b'", "1 rows", "'a'", "2")),
    Case("unknown output", changed(_output("z")), ("'z'", "'y'")),
    Case("an output twice", changed(_output("y", 2)), ("'y'", "twice", "once")),
    Case("timeout that is no number", changed(_parameter("timeout", string_param="soon")), ("'timeout'", "soon")),
    Case("negative timeout", changed(_parameter("timeout", int64_param=-5)), ("'timeout'", "-5", ">= 0")),
    Case("priority that is no number", changed(_parameter("priority", string_param="high")), ("'priority'", "high")),
    Case(
        "priority beyond the levels",
        lambda: _with_priority(3),
        ("'priority'", "3", "2"),
    ),
    Case("shared memory", changed(_shared_memory), ("'x'", "shared_memory_region"), grpc.StatusCode.UNIMPLEMENTED),
    Case(
        "a sequence",
        changed(_parameter("sequence_id", int64_param=5)),
        ("sequence_id",),
        grpc.StatusCode.UNIMPLEMENTED,
    ),
    Case(
        "a row that the model cannot take",
        lambda: raw_request("gather", {"index": np.array([99])}),
        ("model failed", "99"),
        grpc.StatusCode.INTERNAL,
    ),
)


def _with_priority(level: int) -> pb.ModelInferRequest:
    request = raw_request("ranked", {"x": ROW})
    request.parameters["priority"].uint64_param = level
    return request


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_with_the_field_and_both_values(stub: Any, case: Case) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(case.make(), timeout=TIMEOUT_S)
    assert caught.value.code() is case.status, caught.value.details()
    for word in case.words:
        assert word in str(caught.value.details())
    assert len(str(caught.value.details())) < 2000
    assert output(stub.ModelInfer(good(), timeout=TIMEOUT_S)).tolist() == (ROW + 1).tolist()


@pytest.mark.parametrize("message", [b"\xff" * 10, b"\x0a\x7f", b"\x0a\x02\xff\xff", b"\x07"], ids=bytes.hex)
def test_bytes_that_are_no_request_are_refused(cluster: ClusterProcess, message: bytes) -> None:
    with grpc.insecure_channel(cluster.url) as channel:
        call: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError, match="ModelInferRequest") as caught:
            call(message, timeout=TIMEOUT_S)
        assert caught.value.code() is INVALID
        found = pb.ModelInferResponse.FromString(call(good().SerializeToString(), timeout=TIMEOUT_S))
        assert output(found).tolist() == (ROW + 1).tolist()
