"""Reads what an ONNX file takes and gives, without its weights and without trusting it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from shardline.core.datatypes import BY_ONNX, DataType
from shardline.core.errors import ModelRejected
from shardline.repository.external_data import ExternalTensor, external_tensors
from shardline.repository.layout import shown
from shardline.repository.onnx_skeleton import Malformed, read_skeleton, text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from shardline.core.models import Dim

MAX_MODEL_BYTES = 64 << 30
MAX_GRAPH_BYTES = 64 << 20
_MAX_TENSORS = 4096
_MAX_RANK = 32
"""NumPy 1.x's limit; no operator of ONNX comes near it."""
_MAX_ITEM_ELEMENTS = 1 << 40
_MAX_NAME = 1024


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """An input or output as the graph states it.

    dims: all axes, the batch axis too; -1 where a size is neither fixed nor named; None where no shape is stated.
    """

    name: str
    datatype: DataType
    dims: tuple[Dim, ...] | None


@dataclass(frozen=True, slots=True)
class Signature:
    """What an ONNX model takes (initialisers are not inputs), gives, and reads from other files."""

    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    external: tuple[ExternalTensor, ...] = ()


def read_signature(
    path: Path, *, max_model_bytes: int = MAX_MODEL_BYTES, max_graph_bytes: int = MAX_GRAPH_BYTES
) -> Signature:
    """Read the signature of an ONNX file, stepping over its weights.

    max_model_bytes: of the file, max_graph_bytes: of the graph without weights (bounds memory and time).
    Raises ModelRejected with the path and the reason: unreadable, empty, cut short, not ONNX, too large, or inputs
    and outputs that the protocol cannot carry.
    """
    try:
        return signature_of(_parse(path, max_model_bytes, max_graph_bytes))
    except Malformed as error:
        raise ModelRejected(f"{path}: not an ONNX model, or a corrupt one: {error}") from error
    except DecodeError as error:
        raise ModelRejected(f"{path}: not an ONNX model, or a corrupt one: its graph does not parse") from error
    except ModelRejected as error:
        raise ModelRejected(f"{path}: {error.message}") from error
    except OSError as error:
        raise ModelRejected(f"{path}: cannot be read: {error.strerror or error}") from error


def signature_of(model: onnx.ModelProto) -> Signature:
    """The signature of a parsed model. Raises ModelRejected (without a path), Malformed."""
    if not model.HasField("graph") or model.ir_version <= 0 or not model.opset_import:
        missing = "graph" if not model.HasField("graph") else "ir_version" if model.ir_version <= 0 else "opset_import"
        raise ModelRejected(f"not an ONNX model: it has no {missing}")
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    weights.update(tensor.values.name for tensor in graph.sparse_initializer)
    inputs = _tensors("input", [value for value in graph.input if value.name not in weights])
    outputs = _tensors("output", graph.output)
    return Signature(inputs, outputs, external_tensors(model))


def _parse(path: Path, max_model_bytes: int, max_graph_bytes: int) -> onnx.ModelProto:
    size = path.stat().st_size
    if size == 0:
        raise ModelRejected("the file is empty")
    if size > max_model_bytes:
        raise ModelRejected(f"the file has {size} bytes, more than the limit of {max_model_bytes} (max_model_bytes)")
    with path.open("rb") as file:
        skeleton = read_skeleton(file, size, max_graph_bytes)
    model = onnx.ModelProto()
    model.ParseFromString(skeleton)
    return model


def _tensors(kind: str, values: Iterable[onnx.ValueInfoProto]) -> tuple[GraphTensor, ...]:
    found: dict[str, GraphTensor] = {}
    for value in values:
        tensor = _tensor(kind, value)
        if tensor.name in found:
            raise ModelRejected(f"{kind} {shown(tensor.name)} stands in the graph twice")
        if len(found) == _MAX_TENSORS:
            raise ModelRejected(f"the graph has more than {_MAX_TENSORS} {kind}s")
        found[tensor.name] = tensor
    if not found:
        raise ModelRejected(f"the graph has no {kind}s, so there is nothing to serve")
    return tuple(found.values())


def _tensor(kind: str, value: onnx.ValueInfoProto) -> GraphTensor:
    name = text(value.name)
    if not 1 <= len(name) <= _MAX_NAME:
        raise ModelRejected(f"an {kind} has a name of {len(name)} characters (1 to {_MAX_NAME} are allowed)")
    what = f"{kind} {shown(name)}"
    type_name = value.type.WhichOneof("value")
    if type_name != "tensor_type":
        named = (type_name or "no type").removesuffix("_type").replace("_", " ")
        raise ModelRejected(f"{what} is of type {named}; only tensors can be sent and answered")
    element = value.type.tensor_type.elem_type
    datatype = BY_ONNX.get(element)
    if datatype is None:
        raise ModelRejected(f"{what} has elements of type {_element_name(element)}, which the protocol cannot carry")
    shape = value.type.tensor_type
    dims = tuple(_dim(what, dim) for dim in shape.shape.dim) if shape.HasField("shape") else None
    if dims is not None:
        _check_size(what, dims)
    return GraphTensor(name, datatype, dims)


def _dim(what: str, dim: onnx.TensorShapeProto.Dimension) -> Dim:
    kind = dim.WhichOneof("value")
    if kind == "dim_param":
        symbol = text(dim.dim_param)
        if len(symbol) > _MAX_NAME:
            raise ModelRejected(f"{what} has a dimension with a name of {len(symbol)} characters")
        return symbol or -1
    if kind is None or dim.dim_value == -1:
        return -1
    if dim.dim_value < 0:
        raise ModelRejected(f"{what} has a dimension of {dim.dim_value}")
    return int(dim.dim_value)


def _check_size(what: str, dims: tuple[Dim, ...]) -> None:
    if len(dims) > _MAX_RANK:
        raise ModelRejected(f"{what} has {len(dims)} dimensions, more than {_MAX_RANK}")
    elements = math.prod(dim for dim in dims if isinstance(dim, int) and dim > 0)
    if elements > _MAX_ITEM_ELEMENTS:
        raise ModelRejected(f"{what} has at least {elements} elements, more than {_MAX_ITEM_ELEMENTS}")


def _element_name(element: int) -> str:
    names = onnx.TensorProto.DataType
    return names.Name(element) if element in names.values() else f"number {element}"
