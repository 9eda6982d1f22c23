"""Thousands of mutated requests against a running cluster: refused or answered, never harmful.

Structured mutations of a request's fields, and byte flips and cuts of the serialised message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from tests import onnx_models as models
from tests.cluster_process import ClusterProcess
from tests.integration.protocol.calls import ROW, output, raw_request
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 10.0
GROWTH_BYTES = 96 << 20
"""Buffers, arenas and caches that fill up once; a leak of one message each would exceed it."""
OURS_TO_GIVE = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
BOUNDS = settings(
    max_examples=1200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

WORDS = st.sampled_from(
    ["", "x", "y", "a", "b", "add", "pair", "text", "1", "2", "-1", "FP32", "INT64", "BYTES", "\u00e4"]
)
SIZES = st.one_of(st.integers(-2, 9), st.sampled_from([1 << 31, 1 << 62, -(1 << 62), 8192]))
PAYLOADS = st.one_of(st.binary(max_size=40), st.sampled_from([ROW.tobytes(), b"\x01\x00\x00\x00a" * 4, bytes(64)]))


def originals() -> list[pb.ModelInferRequest]:
    """Requests that are right."""
    words = np.empty((1, 4), dtype=object)
    words[0] = [b"a", b"", b"bc", b"d"]
    typed = pb.ModelInferRequest(model_name="add", id="typed")
    typed.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1, 2, 3, 4])
    return [
        raw_request("add", {"x": ROW}, ["y"]),
        raw_request("pair", {"a": ROW, "b": ROW}, id="pair"),
        raw_request("text", {"x": words}),
        typed,
    ]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A serialised request with one to four fields changed."""
    request = pb.ModelInferRequest()
    request.CopyFrom(draw(st.sampled_from(originals())))
    for _ in range(draw(st.integers(1, 4))):
        draw(st.sampled_from(MUTATIONS))(draw, request)
    return request.SerializeToString()


def _name(draw: st.DrawFn, request: pb.ModelInferRequest) -> None:
    setattr(request, draw(st.sampled_from(["model_name", "model_version", "id"])), draw(WORDS))


def _input(draw: st.DrawFn, request: pb.ModelInferRequest) -> None:
    for item in request.inputs[:1]:
        setattr(item, draw(st.sampled_from(["name", "datatype"])), draw(WORDS))


def _shape(draw: st.DrawFn, request: pb.ModelInferRequest) -> None:
    for item in request.inputs[-1:]:
        del item.shape[:]
        item.shape.extend(draw(st.lists(SIZES, max_size=4)))


def _raw(draw: st.DrawFn, request: pb.ModelInferRequest) -> None:
    del request.raw_input_contents[:]
    request.raw_input_contents.extend(draw(st.lists(PAYLOADS, max_size=3)))


def _more_inputs(draw: st.DrawFn, request: pb.ModelInferRequest) -> None:
    request.inputs.add(name=draw(WORDS), datatype=draw(WORDS), shape=draw(st.lists(SIZES, max_size=3)))


def _fewer_inputs(draw: st.DrawFn, request: pb.ModelInferRequest) -> None:
    del request.inputs[:1]


def _outputs(draw: st.DrawFn, request: pb.ModelInferRequest) -> None:
    for name in draw(st.lists(WORDS, max_size=3)):
        request.outputs.add(name=name)


def _typed(draw: st.DrawFn, request: pb.ModelInferRequest) -> None:
    for item in request.inputs[:1]:
        field = draw(st.sampled_from(["fp32_contents", "int_contents", "bool_contents", "int64_contents"]))
        getattr(item.contents, field).extend(draw(st.lists(st.integers(0, 1), max_size=5)))


def _parameter(draw: st.DrawFn, request: pb.ModelInferRequest) -> None:
    parameter = request.parameters[draw(st.sampled_from(["timeout", "priority", "sequence_id", "mine"]))]
    if draw(st.booleans()):
        parameter.int64_param = draw(st.sampled_from([-1, 0, 1, 10**7, 1 << 62]))
    else:
        parameter.string_param = draw(WORDS)


MUTATIONS = (_name, _input, _shape, _raw, _more_inputs, _fewer_inputs, _outputs, _typed, _parameter)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A serialised request with bytes flipped, cut off, or put in."""
    message = bytearray(draw(st.sampled_from(originals())).SerializeToString())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(message) - 1)))
        kind = draw(st.integers(0, 2))
        if kind == 0 and message:
            message[at] ^= draw(st.integers(1, 255))
        elif kind == 1:
            del message[at:]
        else:
            message[at:at] = draw(st.binary(min_size=1, max_size=12))
    return bytes(message)


@pytest.fixture(scope="module", params=["native", "grpcio"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    repository = tmp_path_factory.mktemp("repository")
    models.save(repository, "add", 1, models.add_one(), "max_batch_size: 8")
    models.save(repository, "pair", 1, models.two_inputs(), "max_batch_size: 4")
    models.save(repository, "text", 1, models.string_identity(), "max_batch_size: 4")
    with (
        RedisServer(tmp_path_factory.mktemp("redis")) as redis,
        ClusterProcess(redis.url, repository, request.param, models=("add", "pair", "text")) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def infer(cluster: ClusterProcess) -> Iterator[Any]:
    with grpc.insecure_channel(cluster.url) as channel:
        yield channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")


def status_of(infer: Any, message: bytes) -> tuple[grpc.StatusCode, str]:
    """What becomes of a message."""
    try:
        infer(message, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


def check(infer: Any, message: bytes) -> None:
    """It is answered or refused by us, in time."""
    code, details = status_of(infer, message)
    assert code in OURS_TO_GIVE or details.startswith("model failed"), (code, details)
    assert not details.startswith("Deadline Exceeded"), "the call was left hanging"


@BOUNDS
@given(message=mutated())
def test_requests_with_changed_fields_are_answered_or_refused(infer: Any, message: bytes) -> None:
    check(infer, message)


@BOUNDS
@given(message=damaged())
def test_damaged_messages_are_answered_or_refused(infer: Any, message: bytes) -> None:
    check(infer, message)


def test_after_all_that_memory_has_not_grown_and_good_requests_are_right(cluster: ClusterProcess, infer: Any) -> None:
    @settings(BOUNDS, max_examples=400)
    @given(message=st.one_of(mutated(), damaged()))
    def some_more(message: bytes) -> None:
        check(infer, message)

    some_more()
    before = {member.pid: member.resident_bytes() for member in cluster.members}
    some_more()
    for member in cluster.members:
        assert member.process.poll() is None, cluster.logs()
        assert member.resident_bytes() - before[member.pid] < GROWTH_BYTES
    for request in originals():
        response = pb.ModelInferResponse.FromString(infer(request.SerializeToString(), timeout=TIMEOUT_S))
        assert response.id == request.id
        if request.model_name == "add":
            assert output(response).tolist() == (ROW + 1).tolist()
    assert "Traceback" not in cluster.logs()
