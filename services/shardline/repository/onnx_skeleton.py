"""An ONNX file without its weights, read in bounded memory and time.

A model file may hold gigabytes of weights, of which a signature needs none. The file is walked on the wire level
(protobuf's encoding, https://protobuf.dev/programming-guides/encoding) by the field numbers of onnx.proto: payloads of
tensors are stepped over, all else is copied, with the lengths of the enclosing messages written anew.
Read with seeks, not through a memory map: a file cut short while it is mapped kills the process with SIGBUS.
"""

from __future__ import annotations

from enum import Enum
from typing import BinaryIO


class _Act(Enum):
    COPY = "copy"
    DROP = "drop"


_Fields = dict[int, "_Fields | _Act"]
"""What to do with a field, by number: walk into its message by that table, or drop it; absent: copy."""

# Numbers from onnx.proto: TensorProto, SparseTensorProto, AttributeProto, NodeProto, GraphProto, ModelProto.
_TENSOR: _Fields = dict.fromkeys((4, 5, 6, 7, 9, 10, 11), _Act.DROP)
_SPARSE: _Fields = {1: _TENSOR, 2: _TENSOR}
_GRAPH: _Fields = {5: _TENSOR, 15: _SPARSE}
_ATTRIBUTE: _Fields = dict.fromkeys((4, 7, 8, 9), _Act.DROP)
_ATTRIBUTE.update({5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE})
_NODE: _Fields = {5: _ATTRIBUTE}
_GRAPH[1] = _NODE
_MODEL: _Fields = {7: _GRAPH, 20: {1: _GRAPH, 2: _GRAPH}, 25: {7: _NODE, 11: _ATTRIBUTE}}

_MAX_DEPTH = 64
"""Messages within messages; protobuf's own parser stops at 100."""
_MAX_FIELDS = 2_000_000
_COPY_WHOLE_BYTES = 1024
"""Messages up to this size are copied unread: nothing in them is worth dropping."""


class Malformed(Exception):
    """The bytes are not what they should be, or too many; the text says what and where."""


def read_skeleton(file: BinaryIO, size_bytes: int, max_bytes: int) -> bytes:
    """The serialised ModelProto in `file` without tensor payloads, at most max_bytes of it.

    size_bytes: of the whole file. Raises Malformed (cut short, not protobuf, too deep, too large), OSError.
    """
    return bytes(_Walk(file, max_bytes).message(size_bytes, _MODEL, 0))


def text(value: str | bytes) -> str:
    """A string field's value. Raises Malformed when it is not UTF-8 (protobuf then hands out bytes)."""
    if isinstance(value, bytes):
        raise Malformed("a name is not valid UTF-8")
    return value


class _Walk:
    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file = file
        self._at = 0
        self._fields = 0
        self._max_bytes = max_bytes
        self._copied_bytes = 0

    def message(self, end: int, fields: _Fields, depth: int) -> bytearray:
        """The message that starts here and ends at byte `end`, without what `fields` drops."""
        if depth > _MAX_DEPTH:
            raise Malformed(f"messages are nested more than {_MAX_DEPTH} deep at byte {self._at}")
        out = bytearray()
        while self._at < end:
            tag = self._varint(end)
            if tag >> 3 == 0:
                raise Malformed(f"field number 0 before byte {self._at}")
            payload = self._payload(tag & 7, end, fields.get(tag >> 3, _Act.COPY), depth)
            if payload is not None:
                out += _encode(tag)
                out += payload
        return out

    def _payload(self, wire_type: int, end: int, rule: _Fields | _Act, depth: int) -> bytes | None:
        self._fields += 1
        if self._fields > _MAX_FIELDS:
            raise Malformed(f"more than {_MAX_FIELDS} fields")
        if wire_type == 0:
            value = _encode(self._varint(end))
            return None if rule is _Act.DROP else value
        if wire_type in (1, 5):
            return self._take(8 if wire_type == 1 else 4, end, rule)
        if wire_type != 2:
            raise Malformed(f"wire type {wire_type} before byte {self._at}")
        length = self._varint(end)
        if isinstance(rule, _Act) or length <= _COPY_WHOLE_BYTES:
            body = self._take(length, end, rule)
            return None if body is None else _encode(length) + body
        self._check(length, end)
        inner = self.message(self._at + length, rule, depth + 1)
        return _encode(len(inner)) + bytes(inner)

    def _take(self, length: int, end: int, rule: _Fields | _Act) -> bytes | None:
        self._check(length, end)
        self._at += length
        if rule is _Act.DROP:
            self._file.seek(length, 1)
            return None
        self._copied_bytes += length
        if self._copied_bytes > self._max_bytes:
            raise Malformed(f"the graph without its weights is larger than {self._max_bytes} bytes")
        taken = self._file.read(length)
        if len(taken) != length:
            raise Malformed(f"the file ends at byte {self._at - length + len(taken)}, in the middle of a field")
        return taken

    def _check(self, length: int, end: int) -> None:
        if length > end - self._at:
            raise Malformed(f"a field of {length} bytes at byte {self._at} reaches past its end at byte {end}")

    def _varint(self, end: int) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1)
            if not byte or self._at >= end:
                raise Malformed(f"the file ends at byte {self._at}, in the middle of a number")
            self._at += 1
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise Malformed(f"a number longer than 10 bytes at byte {self._at}")


def _encode(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
