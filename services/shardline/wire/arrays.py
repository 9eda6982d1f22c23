"""numpy arrays as the protocol's raw tensor contents, for clients.

The server's path keeps tensors as views into the received message (wire.codec); a client has whole arrays.
Layout: row-major, little-endian; BYTES elements are a 4-byte little-endian length and the bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shardline.core.datatypes import BF16, BY_NAME, BYTES, DataType
from shardline.core.errors import InvalidRequest
from shardline.wire.codec import decode_bytes, encode_bytes

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
        return encode_bytes(array)
    if datatype is BF16:
        array = array.view(np.uint16)
    return np.ascontiguousarray(array, dtype=datatype.numpy).tobytes()


def decode(raw: bytes, datatype: DataType, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The array in raw contents: a read-only view of `raw`, except for BYTES (an object array of bytes).

    BF16 comes as uint16 bit patterns. Raises ValueError where the size contradicts the shape.
    """
    if datatype is BYTES:
        elements = np.empty(int(np.prod(shape, dtype=np.int64)), dtype=object)
        found = decode_bytes(raw)
        if len(found) != elements.size:
            raise ValueError(f"{len(found)} BYTES elements do not fill shape {list(shape)}")
        elements[:] = found
        return elements.reshape(shape)
    return np.frombuffer(raw, dtype=datatype.numpy).reshape(shape)
