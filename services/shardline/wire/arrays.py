"""numpy arrays as the protocol's raw tensor contents, for clients.

The server's path keeps tensors as views into the received message (wire.codec); a client has whole arrays.
Layout: row-major, little-endian; BYTES elements are a 4-byte little-endian length and the bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from shardline.core.datatypes import BF16, BY_NAME, BYTES, DataType
from shardline.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

_LENGTH = struct.Struct("<I")
_BY_NUMPY = {row.numpy: row for row in BY_NAME.values() if row not in (BF16, BYTES)}


def datatype_of(array: np.ndarray[Any, Any]) -> DataType:
    """The protocol's data type of an array: ml_dtypes' bfloat16 is BF16, strings and objects are BYTES.

    Raises InvalidRequest for types that the protocol does not have (complex, datetime …).
    """
    if array.dtype.name == "bfloat16":
        return BF16
    if array.dtype.kind in "OSU":
        return BYTES
    found = _BY_NUMPY.get(array.dtype.newbyteorder("<"))
    if found is None:
        raise InvalidRequest(f"arrays of {array.dtype} have no data type in the protocol")
    return found


def encode(array: np.ndarray[Any, Any]) -> bytes:
    """Raw contents of an array of any shape."""
    datatype = datatype_of(array)
    if datatype is BYTES:
        return b"".join(_encode_elements(array.ravel(order="C").tolist()))
    if datatype is BF16:
        array = array.view(np.uint16)
    return np.ascontiguousarray(array, dtype=datatype.numpy).tobytes()


def decode(raw: bytes, datatype: DataType, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The array in raw contents: a read-only view of `raw`, except for BYTES (an object array of bytes).

    BF16 comes as uint16 bit patterns. Raises ValueError where the size contradicts the shape.
    """
    if datatype is BYTES:
        elements = np.empty(int(np.prod(shape, dtype=np.int64)), dtype=object)
        found = list(_decode_elements(raw))
        if len(found) != elements.size:
            raise ValueError(f"{len(found)} BYTES elements do not fill shape {list(shape)}")
        elements[:] = found
        return elements.reshape(shape)
    return np.frombuffer(raw, dtype=datatype.numpy).reshape(shape)


def _encode_elements(elements: Iterable[object]) -> Iterable[bytes]:
    for element in elements:
        data = element if isinstance(element, bytes) else str(element).encode()
        yield _LENGTH.pack(len(data))
        yield data


def _decode_elements(raw: bytes) -> Iterable[bytes]:
    at = 0
    while at < len(raw):
        if at + _LENGTH.size > len(raw):
            raise ValueError(f"BYTES contents end inside the length at byte {at}")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + length > len(raw):
            raise ValueError(f"a BYTES element of {length} bytes at byte {at} runs past the end ({len(raw)} bytes)")
        yield raw[at : at + length]
        at += length
