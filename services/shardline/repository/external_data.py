"""Weights outside the model file: which files a graph names, and whether they may be read.

ONNX external data (onnx.proto, TensorProto.external_data): a tensor names a file beside the model, an offset and a
length. The name comes from outside, so it is checked as any other path is (see layout.file_inside).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from shardline.core.errors import ModelRejected
from shardline.repository.layout import file_inside, shown
from shardline.repository.onnx_skeleton import text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_MEMORY_MARK = "_ORT_MEM_ADDR_"
"""ONNX Runtime reads a location with this text as an address in its own memory (core/graph: tensor utils)."""


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """A tensor whose bytes lie in another file. length_bytes: None where the file is read to its end."""

    name: str
    location: str
    offset_bytes: int
    length_bytes: int | None


def external_tensors(model: onnx.ModelProto) -> tuple[ExternalTensor, ...]:
    """Every tensor of the model with external data: initialisers, attributes, sub-graphs, functions, training.

    Raises ModelRejected, naming the tensor, when an entry makes no sense; Malformed when a name is not text.
    """
    return tuple(_external(tensor) for tensor in _tensors(model) if _is_external(tensor))


def check_external(folder: Path, tensors: Iterable[ExternalTensor]) -> tuple[Path, ...]:
    """The external files, sorted, each once, checked to lie in the version's folder and to be long enough.

    folder: the version's real path. Raises ModelRejected naming tensor and location.
    """
    sizes: dict[str, int] = {}
    files: dict[str, Path] = {}
    for tensor in tensors:
        what = f"tensor {shown(tensor.name)}: external data"
        if _MEMORY_MARK in tensor.location:
            raise ModelRejected(f"{what} {shown(tensor.location)} is an address in memory, not a file")
        if tensor.location not in files:
            files[tensor.location] = file_inside(folder, folder, tensor.location, what)
            sizes[tensor.location] = files[tensor.location].stat().st_size
        end = tensor.offset_bytes + (tensor.length_bytes or 0)
        if end > sizes[tensor.location]:
            raise ModelRejected(
                f"{what} {shown(tensor.location)} ends at byte {end}, but the file has {sizes[tensor.location]} bytes"
            )
    return tuple(sorted(set(files.values())))


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data) > 0


def _external(tensor: onnx.TensorProto) -> ExternalTensor:
    name = text(tensor.name)
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        key = text(entry.key)
        if key in entries:
            raise ModelRejected(f"tensor {shown(name)}: external data names {shown(key)} twice")
        entries[key] = text(entry.value)
    if "location" not in entries:
        raise ModelRejected(f"tensor {shown(name)}: external data names no location")
    length = _number(name, "length", entries["length"]) if "length" in entries else None
    return ExternalTensor(
        name=name,
        location=entries["location"],
        offset_bytes=_number(name, "offset", entries.get("offset", "0")),
        length_bytes=length,
    )


def _number(tensor: str, key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        raise ModelRejected(f"tensor {shown(tensor)}: external data {key} {shown(text)} is not a number of bytes")
    return int(text)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _of_graph(model.graph)
    for step in model.training_info:
        yield from _of_graph(step.initialization)
        yield from _of_graph(step.algorithm)
    for function in model.functions:
        yield from _of_nodes(function.node)
        yield from _of_attributes(function.attribute_proto)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _of_sparse(graph.sparse_initializer)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        yield from _of_attributes(node.attribute)


def _of_attributes(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        yield from _of_sparse([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])
        yield from _of_sparse(attribute.sparse_tensors)
        if attribute.HasField("g"):
            yield from _of_graph(attribute.g)
        for graph in attribute.graphs:
            yield from _of_graph(graph)


def _of_sparse(sparse: Iterable[onnx.SparseTensorProto]) -> Iterator[onnx.TensorProto]:
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices
