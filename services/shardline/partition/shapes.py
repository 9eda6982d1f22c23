"""Types and sizes of tensors: symbolic as the model says, and concrete at given dimensions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
from onnx import shape_inference

from shardline.core.errors import InvalidRequest
from shardline.core.openaxes import SIZES_TO_TRY
from shardline.partition.graph import Graph, Shape, Value, item_bytes, value_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SEQUENCE_WORDS = ("seq", "length", "time", "token", "len")
_IMAGE_WORDS = ("height", "width", "h", "w")
_CHANNELS = (1, 3, 4)
DEFAULT_SEQUENCE, DEFAULT_IMAGE, DEFAULT_OTHER = 32, 224, 16


def infer_types(graph: Graph) -> None:
    """Fill `graph.values` with types and symbolic shapes of every value that inference reaches."""
    for name, value in _inferred(graph.model).items():
        known = graph.values.get(name)
        if (
            known is None
            or (known.onnx_type == 0 and value.onnx_type)
            or (known.shape is None and value.shape is not None)
        ):
            graph.values[name] = value


def _inferred(model: onnx.ModelProto) -> dict[str, Value]:
    inferred = shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True)
    items = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    return {item.name: value_of(item) for item in items}


def is_batched(graph: Graph) -> bool:
    """Whether the model has a batch axis: the first axis of every input and output is free."""
    ends = [graph.values.get(name) for name in (*graph.inputs, *graph.outputs)]
    return bool(ends) and all(_is_free(end) for end in ends)


def _is_free(end: Value | None) -> bool:
    return end is not None and bool(end.shape) and not isinstance((end.shape or (0,))[0], int)


def input_shapes(
    graph: Graph, batch: int, dims: Mapping[str, int], other: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Concrete shapes of the graph inputs: axis 0 is `batch` where it is free, and so is every axis of the same symbol.

    Other symbols are from `dims`, else `other`, else by their names, else by the kind of input: images, or anything.

    Raises InvalidRequest where `dims` names a symbol that the model does not have, or an input's rank is unknown.
    """
    known = {name: graph.values[name].shape for name in graph.inputs}
    symbols = free_symbols(graph)
    batches = {str(shape[0]): batch for shape in known.values() if shape and isinstance(shape[0], str)}
    sizes = {**batches, **dims}
    shapes = {}
    for name, shape in known.items():
        if shape is None:
            raise InvalidRequest(f"input {name!r} of {graph.path} has no rank: give sample input (--input file.npz)")
        rest = DEFAULT_IMAGE if _is_image(shape) else DEFAULT_OTHER
        shapes[name] = tuple(
            batch if axis == 0 and not isinstance(dim, int) else _size_of(dim, sizes, other or _by_name(dim, rest))
            for axis, dim in enumerate(shape)
        )
    unknown = set(dims) - symbols
    if unknown:
        raise InvalidRequest(
            f"the model has no dimension {min(unknown)!r}; it has {', '.join(sorted(symbols)) or 'none'}"
        )
    return shapes


def free_symbols(graph: Graph) -> set[str]:
    """Names of the inputs' dimensions whose size the model leaves open."""
    shapes = (graph.values[name].shape or () for name in graph.inputs)
    return {dim for shape in shapes for dim in shape if isinstance(dim, str)}


def _is_image(shape: Shape) -> bool:
    """[N, C, H, W] or [N, H, W, C] with as many channels as pictures have, and open sides."""
    if shape is None or len(shape) != 4:
        return False
    open_sides = [axis for axis, dim in enumerate(shape) if axis and not isinstance(dim, int)]
    return (open_sides == [2, 3] and shape[1] in _CHANNELS) or (open_sides == [1, 2] and shape[3] in _CHANNELS)


def _size_of(dim: int | str | None, sizes: Mapping[str, int], other: int) -> int:
    return dim if isinstance(dim, int) else sizes.get(dim or "", other)


def _by_name(dim: int | str | None, rest: int) -> int:
    word = str(dim or "").lower()
    if any(part in word for part in _SEQUENCE_WORDS):
        return DEFAULT_SEQUENCE
    return DEFAULT_IMAGE if word in _IMAGE_WORDS else rest


def likely_input_shapes(graph: Graph, batch: int, dims: Mapping[str, int]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes to try one after the other on a model that does not say what it takes: `input_shapes`, then usual sizes.

    Raises InvalidRequest as `input_shapes` does.
    """
    tried: list[dict[str, tuple[int, ...]]] = []
    for other in (None, *SIZES_TO_TRY):
        shapes = input_shapes(graph, batch, dims, other)
        if shapes not in tried:
            tried.append(shapes)
            yield shapes


def concrete_shapes(graph: Graph, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of all values for which inference finds them, when the inputs have the shapes given."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.value_info[:]
    for item in model.graph.input:
        if item.name in inputs:
            _set_shape(item, inputs[item.name])
    for item in model.graph.output:
        if item.type.HasField("tensor_type"):
            item.type.tensor_type.ClearField("shape")
    found = {}
    for name, value in _inferred(model).items():
        if value.shape is not None and all(isinstance(dim, int) for dim in value.shape):
            found[name] = tuple(int(dim) for dim in value.shape if isinstance(dim, int))
    return found


def _set_shape(item: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    item.type.tensor_type.ClearField("shape")
    item.type.tensor_type.shape.SetInParent()
    for size in shape:
        item.type.tensor_type.shape.dim.add(dim_value=size)


def size_bytes(value: Value, shape: tuple[int, ...] | None) -> int:
    """Bytes of a tensor; 0 where its shape is not known."""
    if shape is None:
        return 0
    count = 1
    for size in shape:
        count *= size
    return int(count * item_bytes(value.onnx_type)) if value.onnx_type else count * 4


def has_batch_axis(small: tuple[int, ...] | None, large: tuple[int, ...] | None, batches: tuple[int, int]) -> bool:
    """Whether axis 0 is the batch: it follows the batch size and no other axis does.

    small, large: the shapes at the two batch sizes.
    """
    if not small or not large or len(small) != len(large):
        return False
    return (small[0], large[0]) == batches and small[1:] == large[1:]


def refine(graph: Graph, name: str, onnx_type: int, shape: Shape) -> None:
    """Take over what a run showed about a value of which inference knew less."""
    known = graph.values.get(name, Value(name))
    if known.onnx_type == 0:
        known = replace(known, onnx_type=onnx_type)
    if known.shape is None:
        known = replace(known, shape=shape)
    graph.values[name] = known
