"""Arrays as raw contents."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from shardline.core.datatypes import BF16, BY_NAME, BYTES
from shardline.core.errors import InvalidRequest
from shardline.wire.arrays import datatype_of, decode, encode

FIXED = sorted(name for name, row in BY_NAME.items() if row not in (BF16, BYTES))


@pytest.mark.parametrize("name", FIXED)
def test_an_array_of_every_fixed_type_comes_back_equal(name: str) -> None:
    datatype = BY_NAME[name]
    array = np.arange(6).reshape(2, 3).astype(datatype.numpy)
    assert datatype_of(array) is datatype
    assert np.array_equal(decode(encode(array), datatype, (2, 3)), array)


def test_big_endian_and_strided_arrays_are_sent_as_the_protocol_wants_them() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert np.array_equal(decode(encode(array), BY_NAME["INT32"], (3, 2)), array)


def test_bfloat16_travels_as_its_bit_pattern() -> None:
    array = np.array([0.5, -2.0], dtype=ml_dtypes.bfloat16)
    assert datatype_of(array) is BF16
    assert decode(encode(array), BF16, (2,)).view(ml_dtypes.bfloat16).tolist() == [0.5, -2.0]


@pytest.mark.parametrize(
    "array",
    [
        np.array([["a", ""], ["häß", "x" * 300]], dtype=object),
        np.array([[b"\x00", b""], [b"\xff\xfe", b"z"]], dtype=object),
        np.array([["a", "bc"]]),
    ],
)
def test_text_and_bytes_come_back_as_bytes(array: np.ndarray[Any, Any]) -> None:
    expected = [item if isinstance(item, bytes) else item.encode() for item in array.ravel().tolist()]
    assert decode(encode(array), BYTES, array.shape).ravel().tolist() == expected


@pytest.mark.parametrize("raw", [b"\x01\x00", b"\x05\x00\x00\x00ab", b""])
def test_truncated_bytes_contents_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="BYTES"):
        decode(raw, BYTES, (1,))


def test_a_type_that_the_protocol_lacks_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="complex128"):
        datatype_of(np.zeros(1, dtype=complex))
