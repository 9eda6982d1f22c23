"""Responses put together from result frames are what protobuf would have made."""

from __future__ import annotations

import pytest

from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.pb.shardline.v1 import replica_pb2 as link_pb
from shardline.router.replies import PartAnswer, ResultHead, decode_result_head, join_parts, receipt_text, respond
from shardline.wire.codec import encode_bytes


def head(*outputs: tuple[str, str, list[int]], version: int = 1) -> ResultHead:
    message = link_pb.ResultHead(model="m", version=version)
    for name, datatype, dims in outputs:
        message.outputs.add(name=name, datatype=datatype, dims=dims)
    return decode_result_head(message.SerializeToString())


def expected(
    outputs: list[tuple[str, str, list[int]]], raw: list[bytes], request_id: str = ""
) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name="m", model_version="1", id=request_id, raw_output_contents=raw)
    for name, datatype, shape in outputs:
        response.outputs.add(name=name, datatype=datatype, shape=shape)
    return response


@pytest.mark.parametrize("request_id", ["", "mine", "ä" * 200])
@pytest.mark.parametrize("rows", [1, 2, 300])
def test_a_response_of_fixed_sizes(rows: int, request_id: str) -> None:
    outputs = head(("y", "FP32", [3]), ("z", "INT64", []))
    raw = [bytes(range(12)) * rows, b"\x01" * 8 * rows]
    for _ in range(2):  # the second is made from what the first left prepared
        body = respond(outputs, rows, raw, request_id)
        found = pb.ModelInferResponse.FromString(body)
        assert found == expected([("y", "FP32", [rows, 3]), ("z", "INT64", [rows])], raw, request_id)


def test_a_response_without_a_batch_axis() -> None:
    body = respond(head(("y", "FP32", [2, 3])), -1, [bytes(24)], "")
    assert pb.ModelInferResponse.FromString(body) == expected([("y", "FP32", [2, 3])], [bytes(24)])


def test_a_response_with_text() -> None:
    raw = [encode_bytes([b"a", b"bcd"]), bytes(16)]
    body = respond(head(("y", "BYTES", [1]), ("z", "FP64", [])), 2, [memoryview(item) for item in raw], "mine")
    found = pb.ModelInferResponse.FromString(body)
    assert found == expected([("y", "BYTES", [2, 1]), ("z", "FP64", [2])], raw, "mine")


def test_a_response_without_outputs() -> None:
    assert pb.ModelInferResponse.FromString(respond(head(), 2, [], "")) == expected([], [])


def test_an_output_without_elements() -> None:
    body = respond(head(("y", "FP32", [0])), 2, [b""], "")
    assert pb.ModelInferResponse.FromString(body) == expected([("y", "FP32", [2, 0])], [b""])


def test_more_row_counts_than_are_kept_are_still_right() -> None:
    outputs = head(("y", "UINT8", [1]))
    for rows in [*range(1, 600), 1, 2, 3]:
        found = pb.ModelInferResponse.FromString(respond(outputs, rows, [bytes(rows)], ""))
        assert list(found.outputs[0].shape) == [rows, 1]
        assert len(found.raw_output_contents[0]) == rows


@pytest.mark.parametrize(
    ("outputs", "row_bytes", "fixed"),
    [
        ([("y", "FP16", [3, 4])], [24], True),
        ([("y", "BOOL", [])], [1], True),
        ([("y", "BYTES", [3])], [0], False),
        ([("y", "BF16", [2]), ("z", "BYTES", [])], [4, 0], False),
    ],
)
def test_a_head_knows_the_bytes_of_a_row(
    outputs: list[tuple[str, str, list[int]]], row_bytes: list[int], fixed: bool
) -> None:
    found = head(*outputs)
    assert ([output.row_bytes for output in found.outputs], found.fixed) == (row_bytes, fixed)


def test_parts_are_joined_output_by_output() -> None:
    outputs = head(("y", "FP32", [1]), ("z", "BYTES", [1]))
    parts = [PartAnswer(outputs, [b"aaaa", b"A"], ""), PartAnswer(outputs, [b"bbbbcccc", memoryview(b"BC")], "")]
    assert [bytes(item) for item in join_parts(parts)] == [b"aaaabbbbcccc", b"ABC"]


@pytest.mark.parametrize(
    "other",
    [
        head(("y", "FP32", [2])),
        head(("y", "FP64", [1])),
        head(("z", "FP32", [1])),
        head(("y", "FP32", [1]), ("z", "FP32", [1])),
        head(("y", "FP32", [1]), version=2),
    ],
)
def test_parts_of_different_shapes_or_versions_are_not_joined(other: ResultHead) -> None:
    first = head(("y", "FP32", [1]))
    with pytest.raises(ValueError, match="parts answered with"):
        join_parts([PartAnswer(first, [b"aaaa"], ""), PartAnswer(other, [b"b"], "")])


def test_a_receipt_has_a_group_for_every_stage() -> None:
    one = link_pb.StageReceipt(replica="a", queue_us=1, batch_rows=2, bucket=4, input_us=3, compute_us=5)
    two = link_pb.StageReceipt(stage=1, replica="b")
    text = receipt_text([one, two])
    assert text.split("|")[0] == "stage=0;replica=a;queue_us=1;batch_rows=2;bucket=4;input_us=3;compute_us=5"
    assert text.split("|")[1].startswith("stage=1;replica=b;queue_us=0")
    assert receipt_text([]) == ""
