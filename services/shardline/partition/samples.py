"""Inputs to profile and verify a model on: given ones from a file, or made up from the model's signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shardline.core.datatypes import BF16, BY_ONNX, BYTES
from shardline.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shardline.partition.graph import Graph
    from shardline.partition.runtime import Array, Arrays

_PASSES_INDICES = {"Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Clip"}
_DEFAULT_RANGE = 2
"""Integers whose use says nothing are 0 or 1: good for masks, token types and the smallest table."""


def make_samples(graph: Graph, shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> Arrays:
    """Random inputs of the given shapes: normal floats, integers within the table that they index, masks of ones.

    Raises InvalidRequest for an input that no sample can be made of.
    """
    random = np.random.default_rng(seed)
    return {name: _sample(graph, name, shapes[name], random) for name in graph.inputs}


def _sample(graph: Graph, name: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    kind = BY_ONNX.get(graph.values[name].onnx_type)
    if kind is None:
        raise InvalidRequest(f"no sample can be made for input {name!r}: give one (--input file.npz)")
    if kind is BYTES:
        return np.full(shape, b"sample".decode(), dtype=object)
    if kind is BF16:
        return (random.standard_normal(shape, np.float32).view(np.uint32) >> 16).astype(BF16.numpy)
    if kind.numpy.kind == "f":
        return np.asarray(random.standard_normal(shape), kind.numpy)
    if "mask" in name.lower():
        return np.ones(shape, kind.numpy)
    if kind.numpy.kind == "b":
        return random.integers(0, 2, shape).astype(kind.numpy)
    return random.integers(0, _index_range(graph, name), shape).astype(kind.numpy)


def _index_range(graph: Graph, name: str) -> int:
    """The smallest axis that an integer input indexes, followed through casts and reshapes."""
    aliases = {name}
    smallest = 0
    for node in graph.model.graph.node:
        if node.op_type in _PASSES_INDICES and node.input and node.input[0] in aliases:
            aliases.update(node.output)
        if node.op_type == "Gather" and len(node.input) > 1 and node.input[1] in aliases:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            size = _axis_size(graph, node.input[0], axis)
            smallest = min(smallest, size) if smallest and size else smallest or size
    return smallest or _DEFAULT_RANGE


def _axis_size(graph: Graph, name: str, axis: int) -> int:
    if name in graph.weights:
        shape = graph.weights[name].shape
    else:
        value = graph.values.get(name)
        shape = tuple(dim if isinstance(dim, int) else 0 for dim in (value.shape if value and value.shape else ()))
    return shape[axis] if -len(shape) <= axis < len(shape) else 0


def read_samples(graph: Graph, file: Path) -> Arrays:
    """Inputs from an .npz file, one array per input. Raises InvalidRequest where it does not suit the model."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read sample input {file}: {error}") from error
    missing = [name for name in graph.inputs if name not in arrays]
    if missing:
        raise InvalidRequest(f"{file} lacks input {missing[0]!r}; the model takes {', '.join(graph.inputs)}")
    for name in graph.inputs:
        kind = BY_ONNX.get(graph.values[name].onnx_type)
        if kind is not None and kind is not BYTES and arrays[name].dtype != kind.numpy:
            raise InvalidRequest(
                f"input {name!r} of {file} is {arrays[name].dtype}; the model takes {kind.numpy} ({kind.name})"
            )
    return {name: arrays[name] for name in graph.inputs}
