"""The model file without its weights.

`onnx.load` parses inline weights into memory; a planner must not need a model's size in memory. So the file is memory-mapped,
its fields are walked on the wire, and every large `raw_data` is replaced by a reference to its place in the very same file, in
ONNX's own words for external data. After that all large weights are (file, offset, length), wherever they came from.
Source of field numbers: onnx.proto3. Decision: docs/adr/0010.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from shardline.core.errors import ModelRejected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INLINE_BYTES = 1024
"""Tensors up to this size stay in the skeleton: shape inference reads the small ones (targets of Reshape, axes, sizes)."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_RAW_DATA = 9
# Which fields of which message may hold tensors: message -> field number -> message.
_DESCENT = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a weight's bytes lie. path: the file; offset, length: in bytes."""

    path: Path
    offset: int
    length: int


def read_skeleton(path: Path) -> onnx.ModelProto:
    """The model at `path`, its large tensors as references (`location` is the model's own file name for inline ones).

    Raises ModelRejected where the file is missing, empty or no ONNX model.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            data = b"".join(_strip(view, 0, len(view), "model", path.name))
    except (OSError, ValueError) as error:
        raise ModelRejected(f"cannot read the model {path}: {error}") from error
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelRejected(f"{path} is not an ONNX model: {error}") from error
    if not model.graph.node and not model.graph.output:
        raise ModelRejected(f"{path} is not an ONNX model: it holds no graph")
    _pull_in_small_externals(model, path)
    return model


def _strip(view: mmap.mmap, start: int, end: int, kind: str, name: str) -> Iterator[bytes]:
    """Wire bytes of one message with large raw data replaced, recursively."""
    if kind == "tensor":
        yield from _strip_tensor(view, start, end, name)
        return
    inner = _DESCENT[kind]
    for number, wire, field, body, stop in _fields(view, start, end):
        if wire == _BYTES and number in inner and stop - body > INLINE_BYTES:
            message = b"".join(_strip(view, body, stop, inner[number], name))
            yield _tag(number, _BYTES) + _varint(len(message)) + message
        else:
            yield view[field:stop]


def _strip_tensor(view: mmap.mmap, start: int, end: int, name: str) -> Iterator[bytes]:
    for number, _, field, body, stop in _fields(view, start, end):
        if number != _RAW_DATA or stop - body <= INLINE_BYTES:
            yield view[field:stop]
            continue
        reference = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
        point_to(reference, name, body, stop - body)
        yield reference.SerializeToString()


def _fields(view: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, start of the field, start of its body, end) for each field of one message."""
    at = start
    while at < end:
        field = at
        tag, at = _read_varint(view, at)
        number, wire = tag >> 3, tag & 7
        body = at
        if wire == _VARINT:
            _, at = _read_varint(view, at)
        elif wire == _FIXED64:
            at += 8
        elif wire == _FIXED32:
            at += 4
        elif wire == _BYTES:
            length, body = _read_varint(view, at)
            at = body + length
        else:
            raise ValueError(f"byte {field} is not a protobuf field")
        if at > end:
            raise ValueError(f"the file ends inside a field that starts at byte {field}: it is cut short or corrupted")
        yield number, wire, field, body, at


def _read_varint(view: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(view) or shift > 63:
            raise ValueError(f"byte {at} is not a protobuf number: the file is cut short or corrupted")
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def point_to(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Make `tensor` a reference to bytes in a file next to the model."""
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def source_of(tensor: onnx.TensorProto, model_path: Path) -> Source | None:
    """Where the bytes of an external tensor lie, None for one that holds its own.

    Raises ModelRejected where the file is missing or short, or its name leads out of the model's folder.
    """
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return None
    words = {entry.key: entry.value for entry in tensor.external_data}
    location = words.get("location", "")
    folder = model_path.parent
    target = folder / location
    if not location or not target.resolve().is_relative_to(folder.resolve()):
        raise ModelRejected(f"weight {tensor.name!r} of {model_path} lies outside the model's folder: {location!r}")
    if not target.is_file():
        raise ModelRejected(f"weight {tensor.name!r} of {model_path} lies in {target}, which is missing: put it there")
    offset = int(words.get("offset") or 0)
    size = target.stat().st_size
    length = int(words.get("length") or size - offset)
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelRejected(
            f"weight {tensor.name!r} needs bytes {offset} to {offset + length} of {target}, which has {size}: "
            "the file is cut short or belongs to another model"
        )
    return Source(target, offset, length)


def inline(tensor: onnx.TensorProto, model_path: Path) -> None:
    """Read an external tensor's bytes into the message. Does nothing to one that holds its own."""
    source = source_of(tensor, model_path)
    if source is None:
        return
    with source.path.open("rb") as file:
        file.seek(source.offset)
        data = file.read(source.length)
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT
    tensor.raw_data = data


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of a node (branches of If, bodies of Loop and Scan), not those nested in them."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def tensors_of(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a node carries itself: its attributes, and all that is inside its bodies."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for graph in graphs_of(node):
        yield from graph.initializer
        for inner in graph.node:
            yield from tensors_of(inner)


def _pull_in_small_externals(model: onnx.ModelProto, path: Path) -> None:
    for tensor in model.graph.initializer:
        source = source_of(tensor, path)
        if source is not None and source.length <= INLINE_BYTES:
            inline(tensor, path)
