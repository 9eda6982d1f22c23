"""Rows that arrived together: decoded, cut where calls part ways, never within a call."""

from __future__ import annotations

import numpy as np
import pytest

from shardline.core.cluster import PoolKey
from shardline.core.datatypes import BY_NAME
from shardline.core.errors import InvalidRequest
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.replica.chunk import NO_DEADLINE, Chunk, arrays_of, decode_head
from shardline.wire.codec import encode_bytes
from tests.unit.replica.doubles import chunk, values_of


def head(*inputs: tuple[str, str, list[int]], **fields: object) -> bytes:
    message = pb.RowHead(model="m", version=3, **fields)  # type: ignore[arg-type]
    for name, datatype, dims in inputs:
        message.inputs.add(name=name, datatype=datatype, dims=dims)
    return message.SerializeToString()


def test_a_head_says_pool_inputs_and_wanted_outputs() -> None:
    found = decode_head(head(("x", "FP16", [3, 4]), ("t", "BYTES", [2]), stage=1, outputs=["b", "a"]))
    assert (found.pool, found.outputs, found.itinerary) == (PoolKey("m", 3, 1), ("b", "a"), None)
    assert [(item.name, item.datatype, item.dims, item.row_bytes) for item in found.inputs] == [
        ("x", BY_NAME["FP16"], (3, 4), 24),
        ("t", BY_NAME["BYTES"], (2,), 0),
    ]


def test_a_head_keeps_its_itinerary() -> None:
    way = pb.Itinerary(plan="p", hops=[pb.Hop(stage=1, replica="r", link="l")], reply_to=b"e")
    assert decode_head(head(itinerary=way)).itinerary == way


@pytest.mark.parametrize("data", [b"\xff", head(("x", "FP32", [1]))[:-1]])
def test_what_is_not_a_head_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a RowHead"):
        decode_head(data)


def test_an_unknown_data_type_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="input 'x': unknown data type 'FP8'"):
        decode_head(head(("x", "FP8", [1])))


def test_frames_become_arrays_without_a_copy() -> None:
    frame = np.arange(6, dtype=np.float32).tobytes()
    (array,) = arrays_of(decode_head(head(("x", "FP32", [3]))), [frame], 2, batched=True)
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.shares_memory(array, np.frombuffer(frame, np.uint8))


def test_a_model_without_a_batch_axis_has_arrays_without_one() -> None:
    (array,) = arrays_of(decode_head(head(("x", "INT8", [2, 2]))), [b"\1\2\3\4"], 1, batched=False)
    assert array.tolist() == [[1, 2], [3, 4]]


def test_text_becomes_an_array_of_text() -> None:
    raw = encode_bytes(["a", "ä", "", "d"])
    (array,) = arrays_of(decode_head(head(("t", "BYTES", [2]))), [raw], 2, batched=True)
    assert array.tolist() == [["a", "ä"], ["", "d"]]


@pytest.mark.parametrize(
    ("tensor", "frame", "says"),
    [
        (("x", "FP32", [2]), bytes(20), "'x': 20 bytes arrived, expected 24 for 3 rows"),
        (("x", "FP32", [2]), b"", "'x': 0 bytes arrived, expected 24"),
        (("t", "BYTES", [1]), encode_bytes([b"a", b"b"]), "'t': cannot reshape"),
        (("t", "BYTES", [1]), b"\x09\0\0\0a", "'t': a BYTES element of 9 bytes"),
        (("t", "BYTES", [1]), encode_bytes([b"\xff", b"a", b"b"]), "'t': .*decode"),
    ],
)
def test_frames_that_do_not_fill_their_rows_are_refused(
    tensor: tuple[str, str, list[int]], frame: bytes, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        arrays_of(decode_head(head(tensor)), [frame], 3, batched=True)


CALLS = ([1.0], [2.0, 2.0], [3.0, 3.0, 3.0], [4.0])


@pytest.mark.parametrize(
    ("rows", "front", "rest"),
    [
        (0, None, 4),
        (1, 1, 3),
        (2, 1, 3),
        (3, 2, 2),
        (5, 2, 2),
        (6, 3, 1),
        (7, 4, None),
        (99, 4, None),
    ],
)
def test_a_chunk_is_split_between_calls(rows: int, front: int | None, rest: int | None) -> None:
    head_part, tail = chunk(*CALLS).split_at(rows)
    assert (head_part and len(head_part.calls), tail and len(tail.calls)) == (front, rest)
    together = [value for part in (head_part, tail) if part is not None for value in values_of([part])]
    assert together == values_of([chunk(*CALLS)])


def test_a_call_that_is_too_large_is_not_torn() -> None:
    front, rest = chunk([1.0, 1.0, 1.0], [2.0]).split_at(2)
    assert front is None
    assert rest is not None
    assert rest.total == 4


@pytest.mark.parametrize(("start", "end"), [(0, 1), (1, 3), (3, 4), (0, 4)])
def test_a_part_keeps_all_that_is_its_own(start: int, end: int) -> None:
    whole = chunk(*CALLS, deadlines=[9.0, 3.0, 7.0, 5.0], arrived=2.0, priority=4, first=10)
    whole.dropped = {11, 13}
    buffers = (np.zeros((8, 2), np.float32),)
    whole.staged = (buffers, 1)
    part = whole.part(start, end)
    before = sum(len(call) for call in CALLS[:start])
    assert list(part.calls) == list(range(10 + start, 10 + end))
    assert list(part.rows) == [len(call) for call in CALLS[start:end]]
    assert part.total == sum(part.rows)
    assert values_of([part]) == [value for call in CALLS[start:end] for value in call]
    assert list(part.deadlines or ()) == [9.0, 3.0, 7.0, 5.0][start:end]
    assert part.earliest == min([9.0, 3.0, 7.0, 5.0][start:end])
    assert (part.arrived, part.priority) == (2.0, 4)
    assert part.dropped == {11, 13} & set(part.calls)
    assert part.staged == (buffers, 1 + before)


def alive(whole: Chunk, now: float) -> tuple[list[list[int]], list[int]]:
    parts, late = whole.living(now)
    return [list(part.calls) for part in parts], late


@pytest.mark.parametrize(
    ("deadlines", "dropped", "expected"),
    [
        (None, set(), ([[0, 1, 2, 3]], [])),
        ([5.0, 5.0, 5.0, 5.0], set(), ([[0, 1, 2, 3]], [])),
        ([5.0, 1.0, 5.0, 5.0], set(), ([[0], [2, 3]], [1])),
        ([1.0, 1.0, 1.0, 1.0], set(), ([], [0, 1, 2, 3])),
        ([2.0, 5.0, 5.0, 2.0], set(), ([[1, 2]], [0, 3])),
        (None, {1, 2}, ([[0], [3]], [])),
        (None, {0, 1, 2, 3}, ([], [])),
        ([1.0, 5.0, 5.0, 1.0], {0, 1}, ([[2]], [3])),
        ([NO_DEADLINE] * 4, {3}, ([[0, 1, 2]], [])),
    ],
)
def test_only_calls_that_are_wanted_and_in_time_live_on(
    deadlines: list[float] | None, dropped: set[int], expected: tuple[list[list[int]], list[int]]
) -> None:
    whole = chunk(*CALLS, deadlines=deadlines)
    whole.dropped = dropped
    assert alive(whole, now=2.0) == expected
