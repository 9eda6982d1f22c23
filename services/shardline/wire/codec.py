"""ModelInferRequest and ModelInferResponse without parsing tensor bytes (DESIGN: tensor bytes are not parsed).

A request is split at field 7 (raw_input_contents): protobuf reads the small head, tensors stay views into the
received buffer. A response is a serialised head with field 6 (raw_output_contents) appended. Protobuf allows
fields in any order, so a head may be prepared once and an id or tensors appended to it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from shardline.core.datatypes import BYTES, DataType
from shardline.core.errors import InvalidRequest
from shardline.pb.inference import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Buffer = bytes | bytearray | memoryview
Entry = TypeVar("Entry")

_ID = 3
_RAW_INPUT = 7
_RAW_OUTPUT_TAG = b"\x32"  # field 6, length-delimited
_ID_TAG = b"\x1a"  # field 3, length-delimited
_LENGTH = struct.Struct("<I")
Gaps = tuple[tuple[int, bytes], ...]
"""(where, bytes): what lies between the tensors of a message."""
_NONE: Mapping[int, Any] = {}
_COPY_BELOW = 4096
"""Bytes below which a copy is cheaper than a view."""


def varint(value: int) -> bytes:
    """`value` >= 0 as a protobuf varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    shift = value = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("varint of more than ten bytes")


def _fields(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(field number, start of the tag, start of the value, end of the value) of each top-level field."""
    at, end = 0, len(data)
    while at < end:
        start = at
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == 2:
            size, at = _read_varint(data, at)
        elif kind == 0:
            size = _read_varint(data, at)[1] - at
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise IndexError(f"wire type {kind}")
        if at + size > end:
            raise IndexError("a field ends beyond the message")
        yield tag >> 3, start, at, at + size
        at += size


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """A request with its head apart from its tensors.

    head: fields 1-6 but the id, serialised. spans: where each raw tensor lies in the message, in order.
    head_size: bytes before the first raw tensor's payload, 0 where head and tensors interleave or there is an id.
    """

    head: bytes
    request_id: str
    spans: tuple[tuple[int, int], ...]
    head_size: int


def split_request(message: bytes) -> SplitRequest:
    """Split a serialised ModelInferRequest. Raises InvalidRequest where it is not one."""
    pieces: list[bytes] = []
    spans: list[tuple[int, int]] = []
    identifier = b""
    kept_from = 0
    try:
        for number, start, value, end in _fields(message):
            if number in (_RAW_INPUT, _ID):
                pieces.append(message[kept_from:start])
                kept_from = end
                if number == _ID:
                    identifier = message[value:end]
                else:
                    spans.append((value, end))
    except IndexError:
        raise _not_a_request(message) from None
    pieces.append(message[kept_from:])
    plain = spans and not identifier and not any(pieces[1:])
    try:
        request_id = identifier.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("id: expected UTF-8 text") from None
    return SplitRequest(b"".join(pieces), request_id, tuple(spans), spans[0][0] if plain else 0)


def _not_a_request(message: bytes) -> InvalidRequest:
    """Protobuf's own word on a message that could not be split."""
    try:
        pb.ModelInferRequest.FromString(message)
    except DecodeError as error:
        return InvalidRequest(f"request: not a ModelInferRequest ({error})")
    return InvalidRequest("request: not a ModelInferRequest")


def parse_head(head: bytes) -> pb.ModelInferRequest:
    """The head as a message. Raises InvalidRequest."""
    try:
        return pb.ModelInferRequest.FromString(head)
    except DecodeError as error:
        raise InvalidRequest(f"request: not a ModelInferRequest ({error})") from None


def cut(message: bytes, start: int, end: int) -> Buffer:
    """message[start:end], as a view where that is cheaper than a copy."""
    return message[start:end] if end - start < _COPY_BELOW else memoryview(message)[start:end]


@dataclass(slots=True)
class HeadCache(Generic[Entry]):
    """What was learned about a request's head, by its bytes.

    Clients send the same head again and again (same model, names and shapes), so a head that was parsed and
    validated once is looked up after that. Bounded: it is emptied when `capacity` heads are reached.
    A message matches an entry when its length, its bytes before the first tensor, and the tags and lengths
    between tensors are the same; so equal spans are certain, whatever the tensors hold.
    """

    capacity: int = 1024
    _layouts: dict[int, dict[int, dict[bytes, tuple[Entry, Gaps]]]] = field(default_factory=dict)
    """By length of the message, size of its head, and head: a short list of sizes is looked through."""
    _count: int = 0

    def get(self, message: bytes) -> Entry | None:
        """The entry of the message's head, None where it was not seen before."""
        for size, entries in self._layouts.get(len(message), _NONE).items():
            found = entries.get(message[:size])
            if found is not None:
                for at, gap in found[1]:
                    if not message.startswith(gap, at):
                        return None
                return found[0]
        return None

    def put(self, message: bytes, split: SplitRequest, entry: Entry) -> None:
        """Remember `entry` for messages like this one; does nothing where their layout can vary."""
        size = split.head_size
        if not size or size > 2048 or split.spans[-1][1] != len(message):
            return
        if self._count >= self.capacity:
            self.clear()
        gaps = tuple(
            (before[1], message[before[1] : after[0]])
            for before, after in zip(split.spans, split.spans[1:], strict=False)
        )
        self._layouts.setdefault(len(message), {}).setdefault(size, {})[message[:size]] = (entry, gaps)
        self._count += 1

    def clear(self) -> None:
        """Forget everything: the models changed."""
        self._layouts.clear()
        self._count = 0


def response_head(
    model: str, version: int, outputs: Sequence[tuple[str, str, Sequence[int]]], request_id: str = ""
) -> bytes:
    """A serialised ModelInferResponse without tensors. outputs: (name, data type, shape) in order."""
    message = pb.ModelInferResponse(model_name=model, model_version=str(version), id=request_id)
    for name, datatype, shape in outputs:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
    return message.SerializeToString()


def id_field(request_id: str) -> bytes:
    """Field 3 of a response, to append to a prepared head."""
    encoded = request_id.encode()
    return _ID_TAG + varint(len(encoded)) + encoded


def raw_prefix(size_bytes: int) -> bytes:
    """Tag and length that go before a tensor of `size_bytes` in a response."""
    return _RAW_OUTPUT_TAG + varint(size_bytes)


def encode_bytes(elements: Iterable[object]) -> bytes:
    """BYTES elements on the wire, those of an array in row-major order: each a 4-byte little-endian length and its bytes.

    What is not bytes goes as text.
    """
    parts: list[bytes] = []
    for item in elements.flat if isinstance(elements, np.ndarray) else elements:
        element = item if isinstance(item, bytes) else str(item).encode()
        parts.append(_LENGTH.pack(len(element)))
        parts.append(element)
    return b"".join(parts)


def decode_bytes(data: Buffer) -> list[bytes]:
    """Inverse of encode_bytes. Raises ValueError where the data ends inside an element."""
    return [bytes(data[at:end]) for at, end in bytes_elements(data)]


def bytes_elements(data: Buffer) -> Iterator[tuple[int, int]]:
    """(start, end) of each element. Raises ValueError where the data ends inside one."""
    at, size = 0, len(data)
    while at < size:
        if at + 4 > size:
            raise ValueError(f"{size - at} bytes are left where a BYTES element's 4-byte length is expected")
        length = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if at + length > size:
            raise ValueError(f"a BYTES element of {length} bytes, {size - at} are left")
        yield at, at + length
        at += length


def from_wire(data: Buffer, datatype: DataType, shape: Sequence[int]) -> np.ndarray:
    """An array of `shape` over the wire's bytes, without a copy (read-only).

    BYTES become an object array of str: ONNX Runtime takes strings by str(), which would spell bytes out as b'...'.
    Raises ValueError where the data does not fill the shape or an element is not UTF-8.
    """
    if datatype is not BYTES:
        return np.frombuffer(data, dtype=datatype.numpy).reshape(tuple(shape))
    items = [element.decode() for element in decode_bytes(data)]
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out.reshape(tuple(shape))
