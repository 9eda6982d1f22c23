"""Splitting requests without parsing tensors agrees with protobuf, and looked-up heads are never another's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardline.core.errors import InvalidRequest
from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.wire.codec import (
    HeadCache,
    decode_bytes,
    encode_bytes,
    id_field,
    parse_head,
    raw_prefix,
    response_head,
    split_request,
)

NAMES = st.text(max_size=6)
# Few names and sizes, so that messages often share a length or a beginning.
FEW = st.sampled_from(["a", "b", "ab"])
TENSORS = st.lists(st.sampled_from([b"", b"\x3a", b"\x3a\x00", b"1234", b"\x3a\x02ab", bytes(130)]), max_size=3)


@st.composite
def requests(draw: st.DrawFn) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=draw(FEW), id=draw(st.sampled_from(["", "", "id"])))
    for name in draw(st.lists(FEW, max_size=2)):
        request.inputs.add(name=name, datatype="FP32", shape=draw(st.lists(st.integers(0, 3), max_size=2)))
    request.raw_input_contents.extend(draw(TENSORS))
    return request


@given(request=requests())
def test_a_split_request_holds_what_protobuf_reads(request: pb.ModelInferRequest) -> None:
    message = request.SerializeToString()
    split = split_request(message)
    assert split.request_id == request.id
    assert [message[start:end] for start, end in split.spans] == list(request.raw_input_contents)
    head = parse_head(split.head)
    head.id = request.id
    head.raw_input_contents.extend(request.raw_input_contents)
    assert head == request


@given(st.lists(requests(), min_size=1, max_size=12))
def test_a_head_that_is_found_has_the_layout_of_the_message(messages: list[pb.ModelInferRequest]) -> None:
    cache: HeadCache[tuple[bytes, tuple[tuple[int, int], ...]]] = HeadCache(capacity=5)
    for request in messages:
        message = request.SerializeToString()
        split = split_request(message)
        found = cache.get(message)
        if found is not None:
            assert found == (split.head, split.spans)
            assert not split.request_id
        cache.put(message, split, (split.head, split.spans))
        again = cache.get(message)
        assert again is None or again == (split.head, split.spans)


def test_heads_that_are_alike_are_told_apart_by_how_many_tensors_follow() -> None:
    cache: HeadCache[int] = HeadCache()
    three, one = (
        pb.ModelInferRequest(model_name="m", raw_input_contents=[b""] * count).SerializeToString() for count in (3, 1)
    )
    for count, message in ((3, three), (1, one)):
        cache.put(message, split_request(message), count)
    assert (cache.get(three), cache.get(one)) == (3, 1)


@given(request=requests(), at=st.integers(0, 400), data=st.binary(max_size=8))
def test_a_damaged_message_is_split_as_protobuf_reads_it_or_refused(
    request: pb.ModelInferRequest, at: int, data: bytes
) -> None:
    whole = request.SerializeToString()
    message = whole[:at] + data + whole[at + len(data) :]
    cache: HeadCache[tuple[tuple[int, int], ...]] = HeadCache()
    cache.put(whole, split_request(whole), split_request(whole).spans)
    try:
        split = split_request(message)
    except InvalidRequest:
        assert cache.get(message) is None
        return
    assert all(0 <= start <= end <= len(message) for start, end in split.spans)
    found = cache.get(message)
    assert found is None or found == split.spans


@given(st.lists(st.binary(max_size=300)))
def test_bytes_elements_come_back(elements: list[bytes]) -> None:
    assert decode_bytes(encode_bytes(elements)) == elements
    assert decode_bytes(memoryview(encode_bytes(elements))) == elements


@given(NAMES, st.integers(1, 1 << 40), NAMES, st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_a_response_put_together_by_hand_is_the_message(
    name: str, version: int, request_id: str, tensors: list[bytes]
) -> None:
    outputs = [(f"{name}{index}", "FP32", (1, index)) for index in range(len(tensors))]
    body = response_head(name, version, outputs)
    for tensor in tensors:
        body += raw_prefix(len(tensor)) + tensor
    response = pb.ModelInferResponse.FromString(body + (id_field(request_id) if request_id else b""))
    assert (response.model_name, response.model_version, response.id) == (name, str(version), request_id)
    assert list(response.raw_output_contents) == tensors
    assert [(item.name, item.datatype, tuple(item.shape)) for item in response.outputs] == outputs
