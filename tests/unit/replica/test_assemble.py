"""Chunks become the arrays of a batch: joined, padded to the bucket, padded along sequences, or prefetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from shardline.core.cluster import PoolKey
from shardline.core.datatypes import BY_NAME
from shardline.core.models import Batching, Padding
from shardline.replica.assemble import Prefetch, join, padded_length, shape_key
from shardline.replica.chunk import Chunk, Head, InputHead
from tests.unit.replica.doubles import HEAD, LARGE, OTHER_SHAPE, chunk, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN = Batching(max_rows=8, buckets=(1, 2, 4, 8))
PADDED = Batching(max_rows=8, buckets=(1, 2, 4, 8), pad_inputs={"x": Padding(axis=0, value=7.0, multiple=4)})


def sequence(length: int, width: int = 2) -> Head:
    return Head(PoolKey("m", 1), (InputHead("x", BY_NAME["FP32"], (length, width), 4 * length * width),), (), None)


def padded(length: int, value: float, width: int = 2) -> Chunk:
    array = np.full((1, length, width), value, np.float32)
    return Chunk(sequence(length, width), b"e", [0], [1], 1, (array,), None, float("inf"), 0.0)


@pytest.mark.parametrize(("length", "bound"), [(1, 4), (4, 4), (5, 8), (8, 8), (9, 16), (17, 32)])
def test_lengths_meet_up_to_the_next_power_of_two(length: int, bound: int) -> None:
    assert shape_key(sequence(length), PADDED) == (("x", (bound, 2)),)


def test_only_the_padded_axis_is_rounded() -> None:
    assert shape_key(sequence(5, 3), PADDED) == (("x", (8, 3)),)
    assert shape_key(sequence(5, 3), PLAIN) == (("x", (5, 3)),)


@pytest.mark.parametrize(("length", "multiple", "result"), [(1, 8, 8), (8, 8, 8), (9, 8, 16), (7, 1, 7)])
def test_lengths_are_rounded_up_to_a_multiple(length: int, multiple: int, result: int) -> None:
    assert padded_length(length, multiple) == result


def test_rows_are_joined_in_order_and_padded_to_the_bucket_with_the_last() -> None:
    whole = join([chunk([1.0], [2.0]), chunk([3.0])], 4, PLAIN)["x"]
    assert whole[:, 0].tolist() == [1.0, 2.0, 3.0, 3.0]
    assert whole.shape == (4, 2)


def test_one_chunk_that_fills_the_bucket_is_not_copied() -> None:
    only = chunk([1.0], [2.0])
    assert join([only], 2, PLAIN)["x"] is only.arrays[0]


def test_joining_leaves_the_chunks_as_they_were() -> None:
    parts = [chunk([1.0]), chunk([2.0])]
    feeds = join(parts, 4, PLAIN)["x"]
    feeds[:] = 9.0
    assert values_of(parts) == [1.0, 2.0]


def test_shorter_rows_are_filled_up_to_the_longest() -> None:
    whole = join([padded(3, 1.0), padded(5, 2.0)], 4, PADDED)["x"]
    assert whole.shape == (4, 8, 2)
    assert whole[0, :, 0].tolist() == [1.0] * 3 + [7.0] * 5
    assert whole[1, :, 0].tolist() == [2.0] * 5 + [7.0] * 3
    assert (whole[2:] == whole[1]).all()


def test_a_row_of_full_length_is_not_padded() -> None:
    only = padded(4, 1.0)
    assert join([only], 1, PADDED)["x"] is only.arrays[0]


@pytest.mark.parametrize("datatype", ["FP16", "INT64", "UINT8", "BOOL", "BYTES"])
def test_padding_keeps_the_data_type(datatype: str) -> None:
    kind = BY_NAME[datatype]
    head = Head(PoolKey("m", 1), (InputHead("x", kind, (2,), 2 * kind.item_bytes),), (), None)
    array = np.array([["a", "b"]], object) if datatype == "BYTES" else np.ones((1, 2), kind.numpy)
    made = Chunk(head, b"e", [0], [1], 1, (array,), None, float("inf"), 0.0)
    whole = join([made], 4, PLAIN)["x"]
    assert whole.dtype == array.dtype
    assert (whole == array).all()
    assert len(whole) == 4


def staged(prefetch: Prefetch, *chunks: Chunk) -> list[Chunk]:
    for made in chunks:
        prefetch.stage(shape_key(made.head, PLAIN), made)
    return list(chunks)


def large(*values: float, first: int = 0) -> Chunk:
    return chunk(*([value] for value in values), head=LARGE, first=first)


def column(feeds: dict[str, np.ndarray] | None) -> list[float] | None:
    return None if feeds is None else feeds["x"][:, 0].tolist()


def test_staged_rows_are_ready_in_order_and_padded() -> None:
    prefetch = Prefetch(8)
    chunks = staged(prefetch, large(1.0, 2.0), large(3.0))
    assert values_of(chunks) == [1.0, 2.0, 3.0]
    assert column(prefetch.take(chunks, 4)) == [1.0, 2.0, 3.0, 3.0]


def test_taking_begins_a_new_buffer() -> None:
    prefetch = Prefetch(8)
    first = prefetch.take(staged(prefetch, large(1.0)), 1)
    second = prefetch.take(staged(prefetch, large(2.0)), 1)
    assert (column(first), column(second)) == ([1.0], [2.0])


def test_rows_that_still_wait_are_not_overwritten_by_padding() -> None:
    prefetch = Prefetch(8)
    chunks = staged(prefetch, large(1.0), large(2.0), large(3.0), large(4.0))
    assert prefetch.take(chunks[:3], 4) is None
    assert values_of(chunks) == [1.0, 2.0, 3.0, 4.0]


def test_a_batch_that_fills_its_bucket_may_leave_rows_waiting_behind_it() -> None:
    prefetch = Prefetch(8)
    chunks = staged(prefetch, large(1.0), large(2.0), large(3.0))
    assert column(prefetch.take(chunks[:2], 2)) == [1.0, 2.0]
    assert values_of(chunks[2:]) == [3.0]
    more = staged(prefetch, large(4.0))
    assert prefetch.take([chunks[2], *more], 2) is None
    assert values_of([chunks[2], *more]) == [3.0, 4.0]


def without_first(chunks: list[Chunk]) -> list[Chunk]:
    return chunks[1:]


def with_a_gap(chunks: list[Chunk]) -> list[Chunk]:
    return [chunks[0], chunks[2]]


def with_a_stranger(chunks: list[Chunk]) -> list[Chunk]:
    return [*chunks, large(9.0)]


def turned_round(chunks: list[Chunk]) -> list[Chunk]:
    return chunks[::-1]


def torn(chunks: list[Chunk]) -> list[Chunk]:
    return [chunks[0].part(1, 2), *chunks[1:]]


@pytest.mark.parametrize("choice", [without_first, with_a_gap, with_a_stranger, turned_round, torn])
def test_rows_that_are_not_what_was_staged_are_joined_instead(choice: object) -> None:
    prefetch = Prefetch(8)
    chunks = staged(prefetch, large(1.0, 2.0), large(3.0), large(4.0))
    chosen: Sequence[Chunk] = choice(list(chunks))  # type: ignore[operator]
    before = values_of(chosen)
    assert prefetch.take(chosen, 8) is None
    assert join(chosen, 8, PLAIN)["x"][: len(before), 0].tolist() == before


def test_a_part_of_a_staged_chunk_from_its_start_is_ready_too() -> None:
    prefetch = Prefetch(8)
    (whole,) = staged(prefetch, large(1.0, 2.0, 3.0))
    assert column(prefetch.take([whole.part(0, 2)], 2)) == [1.0, 2.0]


def test_another_shape_or_a_full_buffer_begins_anew() -> None:
    prefetch = Prefetch(2, row_bytes_at_least=1)
    first = staged(prefetch, chunk([1.0], [2.0]))
    second = staged(prefetch, chunk([3.0]))
    third = staged(prefetch, chunk([4.0], head=OTHER_SHAPE))
    assert prefetch.take(first, 2) is None
    assert prefetch.take(second, 1) is None
    assert column(prefetch.take(third, 1)) == [4.0]
    assert values_of([*first, *second]) == [1.0, 2.0, 3.0]


def test_small_rows_and_text_are_not_staged() -> None:
    prefetch = Prefetch(8)
    small = chunk([1.0])
    prefetch.stage(shape_key(HEAD, PLAIN), small)
    assert small.staged is None
    kind = BY_NAME["BYTES"]
    both = Head(PoolKey("m", 1), (LARGE.inputs[0], InputHead("t", kind, (1,), 0)), (), None)
    arrays = (np.zeros((1, 4096), np.float32), np.array([["a"]], object))
    text = Chunk(both, b"e", [0], [1], 1, arrays, None, float("inf"), 0.0)
    prefetch.stage(shape_key(both, PLAIN), text)
    assert text.staged is None


def test_more_rows_than_a_batch_holds_are_not_staged() -> None:
    prefetch = Prefetch(2)
    big = large(1.0, 2.0, 3.0)
    prefetch.stage(shape_key(LARGE, PLAIN), big)
    assert big.staged is None
    assert values_of([big]) == [1.0, 2.0, 3.0]
