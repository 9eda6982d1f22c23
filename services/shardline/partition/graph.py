"""What every node of a model reads, writes and weighs, without its weights in memory.

Three kinds of nodes are told apart, since they are treated differently by a cut:

* ordinary ones, which belong to one stage;
* constants: nodes that no input of the model can change (Constant, DequantizeLinear of a weight). Each stage that needs one gets
  its own copy, as it would of a weight; the runtime folds them when it loads;
* shapes: integer arithmetic that depends on inputs only through Shape or Size of a graph input. Copied too: sending a batch size
  over a cut would tie the rows of a batch together, since stages form their batches anew. Decision: docs/adr/0011.

Bodies of If, Loop and Scan are never cut: such a node is one, and what its bodies capture from outside counts as read by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx

from shardline.core.datatypes import BY_ONNX
from shardline.core.errors import ModelRejected
from shardline.partition.skeleton import Source, graphs_of, read_skeleton, source_of, tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Shape = tuple["int | str | None", ...]
"""Dimensions: sizes, symbols, or None where nothing is known."""

_RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Dropout",
}
# fmt: off
_SHAPE_ARITHMETIC = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Floor", "Gather",
    "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min",
    "Mod", "Mul", "Neg", "Not", "Or", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape",
    "ScatterND", "Shape", "Size", "Slice", "Split", "Squeeze", "Sub", "Tile", "Transpose", "Trilu", "Unsqueeze",
    "Where",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that flows: a graph input or a node's output. onnx_type: TensorProto.DataType, 0 where it is no tensor or unknown."""

    name: str
    onnx_type: int = 0
    shape: Shape | None = None

    @property
    def cuttable(self) -> bool:
        """Whether it can be sent: a tensor of a data type of the protocol."""
        return self.onnx_type in BY_ONNX


@dataclass(frozen=True, slots=True)
class Weight:
    """An initialiser, or bytes that a node carries itself. source: None where they are small and stand in the skeleton."""

    name: str
    bytes: int
    onnx_type: int = 0
    shape: tuple[int, ...] = ()
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A node and all that it needs.

    index: position in the model's node list. id: unique and stable for one model file.
    reads: values from other ordinary nodes or graph inputs, those of its copied nodes included.
    weights: initialisers, those of its copied nodes included. copies: indices of constant and shape nodes that must stand beside it.
    """

    index: int
    id: str
    op: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    weights: tuple[str, ...]
    copies: tuple[int, ...] = ()
    domain: str = ""


@dataclass(slots=True)
class Graph:
    """A model file, read. nodes: ordinary ones in topological order; copied: constant and shape nodes by index.

    inputs: graph inputs that a caller gives. defaults: graph inputs that are initialisers too (optional).
    constant_outputs: graph outputs that are initialisers.
    """

    path: Path
    model: onnx.ModelProto
    nodes: tuple[Node, ...] = ()
    copied: dict[int, Node] = field(default_factory=dict)
    constants: frozenset[int] = frozenset()
    inputs: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    constant_outputs: tuple[str, ...] = ()
    values: dict[str, Value] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, shared ones counted once."""
        return sum(weight.bytes for weight in self.weights.values())


def read_graph(path: Path) -> Graph:
    """Read the model file at `path`. Raises ModelRejected where it cannot be read or is no valid graph."""
    model = read_skeleton(path)
    graph = Graph(path, model)
    _read_weights(graph)
    names = {item.name for item in model.graph.input}
    graph.inputs = tuple(item.name for item in model.graph.input if item.name not in graph.weights)
    graph.defaults = tuple(name for name in graph.weights if name in names)
    graph.outputs = tuple(item.name for item in model.graph.output)
    graph.constant_outputs = tuple(name for name in graph.outputs if name in graph.weights)
    graph.values = _read_values(model)
    _read_nodes(graph)
    if not graph.nodes:
        raise ModelRejected(f"{path} computes nothing from its inputs: there is nothing to cut into stages")
    return graph


def _read_weights(graph: Graph) -> None:
    for tensor in graph.model.graph.initializer:
        source = source_of(tensor, graph.path)
        size = source.length if source else tensor_bytes(tensor)
        graph.weights[tensor.name] = Weight(tensor.name, size, tensor.data_type, tuple(tensor.dims), source)
    for sparse in graph.model.graph.sparse_initializer:
        size = tensor_bytes(sparse.values) + tensor_bytes(sparse.indices)
        graph.weights[sparse.values.name] = Weight(
            sparse.values.name, size, sparse.values.data_type, tuple(sparse.dims)
        )


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's data from its type and dims; of text, from what is there."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    return math.ceil(math.prod(tensor.dims) * item_bytes(tensor.data_type))


def item_bytes(onnx_type: int) -> float:
    """Bytes per element; half for 4-bit types, 16 assumed for text and unknown ones."""
    if onnx_type in BY_ONNX and BY_ONNX[onnx_type].item_bytes:
        return BY_ONNX[onnx_type].item_bytes
    name = onnx.TensorProto.DataType.Name(onnx_type)
    return {"UINT4": 0.5, "INT4": 0.5, "FLOAT4E2M1": 0.5, "COMPLEX64": 8}.get(
        name, 1 if name.startswith("FLOAT8") else 16
    )


def _read_values(model: onnx.ModelProto) -> dict[str, Value]:
    values = {}
    for item in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        values[item.name] = value_of(item)
    return values


def value_of(item: onnx.ValueInfoProto) -> Value:
    """A ValueInfoProto in our words."""
    if not item.type.HasField("tensor_type"):
        return Value(item.name)
    tensor = item.type.tensor_type
    if not tensor.HasField("shape"):
        return Value(item.name, tensor.elem_type)
    return Value(item.name, tensor.elem_type, tuple(map(_dim, tensor.shape.dim)))


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def captured(graph: onnx.GraphProto) -> set[str]:
    """Names that a body uses and does not define: they come from outside. Nested bodies included."""
    known = {item.name for item in graph.input} | {item.name for item in graph.initializer}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    outside: set[str] = set()
    for node in graph.node:
        used = set(node.input).union(*map(captured, graphs_of(node)))
        outside |= used - known
        known.update(node.output)
    outside |= {item.name for item in graph.output} - known
    return outside - {""}


def names_read(node: onnx.NodeProto) -> list[str]:
    """What a node reads from its own scope, captured values included; each once, in order; absent optional inputs left out."""
    names = dict.fromkeys(name for name in node.input if name)
    for body in graphs_of(node):
        names.update(dict.fromkeys(sorted(captured(body))))
    return list(names)


def _read_nodes(graph: Graph) -> None:
    reader = _Reader(graph)
    for index, node in enumerate(graph.model.graph.node):
        reader.read(index, node)
    graph.nodes = tuple(reader.nodes)
    graph.copied = reader.copied
    graph.constants = frozenset(reader.constants)
    missing = [name for name in graph.outputs if name not in reader.known]
    if missing:
        raise ModelRejected(f"{graph.path}: output {missing[0]!r} is produced by no node")


class _Reader:
    """One pass over the node list that sorts nodes into ordinary and copied ones."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.copied: dict[int, Node] = {}
        self.constants: set[int] = set()
        self.copy_of: dict[str, Node] = {}
        self.known = {*graph.weights, *graph.inputs, *graph.defaults}
        self.fixed = set(graph.weights) - set(graph.defaults)
        self.shapes: set[str] = set()
        self.ids: set[str] = set()

    def read(self, index: int, node: onnx.NodeProto) -> None:
        names = names_read(node)
        for name in names:
            if name not in self.known:
                raise ModelRejected(
                    f"{self.graph.path}: node {node.name or node.op_type!r} reads {name!r}, which nothing before it produces"
                )
        writes = tuple(name for name in node.output if name)
        made = self._node(index, node, names, writes)
        self.known.update(writes)
        if self._is_constant(node, names, writes):
            self.fixed.update(writes)
            self.constants.add(index)
        elif self._is_shape(node, names, writes):
            self.shapes.update(writes)
        else:
            self.nodes.append(made)
            return
        self.copied[index] = made
        self.copy_of.update(dict.fromkeys(writes, made))

    def _node(self, index: int, node: onnx.NodeProto, names: list[str], writes: tuple[str, ...]) -> Node:
        reads: dict[str, None] = {}
        weights: dict[str, None] = {}
        copies: dict[int, None] = {}
        for name in names:
            if name in self.copy_of:
                source = self.copy_of[name]
                reads.update(dict.fromkeys(source.reads))
                weights.update(dict.fromkeys(source.weights))
                copies.update(dict.fromkeys((*source.copies, source.index)))
            elif name in self.graph.weights:
                weights[name] = None
            else:
                reads[name] = None
        made = self._identify(node, index, writes)
        own = sum(map(tensor_bytes, tensors_of(node)))
        if own:
            self.graph.weights[f"{made}/own"] = Weight(f"{made}/own", own)
            weights[f"{made}/own"] = None
        return Node(index, made, node.op_type, tuple(reads), writes, tuple(weights), tuple(sorted(copies)), node.domain)

    def _identify(self, node: onnx.NodeProto, index: int, writes: tuple[str, ...]) -> str:
        """The node's name where it is unique, else one made of what it writes."""
        for name in (node.name, f"{node.op_type}>{writes[0]}" if writes else "", f"{node.op_type}#{index}"):
            if name and name not in self.ids:
                self.ids.add(name)
                return name
        raise ModelRejected(f"{self.graph.path}: no unique name for node {index} ({node.op_type})")

    def _is_constant(self, node: onnx.NodeProto, names: Iterable[str], writes: tuple[str, ...]) -> bool:
        plain = node.op_type not in _RANDOM and not any(True for _ in graphs_of(node))
        return plain and self.fixed.issuperset(names) and not set(writes) & set(self.graph.outputs)

    def _is_shape(self, node: onnx.NodeProto, names: list[str], writes: tuple[str, ...]) -> bool:
        if (
            node.domain not in ("", "ai.onnx")
            or node.op_type not in _SHAPE_ARITHMETIC
            or set(writes) & set(self.graph.outputs)
        ):
            return False
        if node.op_type in ("Shape", "Size") and names[0] in self.graph.inputs:
            return True
        return all(name in self.fixed or name in self.shapes for name in names)
