"""Milliseconds per node and sizes of tensors: measured piece by piece, or estimated.

Measured: the model is run in pieces of consecutive nodes, each a model file of its own, so no more than one piece's weights are
in memory. A piece is timed as a replica would run it, with every optimisation; how that time spreads over the nodes is taken
from a profile of the same piece without optimisation, since fused nodes have lost their names. Decision: docs/adr/0012.
"""

from __future__ import annotations

import math
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shardline.core.errors import ModelFailed
from shardline.partition import shapes as shape_rules
from shardline.partition.parts import Part, part_model, write_model
from shardline.partition.runtime import Model, NodeProfile, onnx_type_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shardline.partition.graph import Graph, Node
    from shardline.partition.runtime import Arrays

PIECE_BYTES = 256 * 2**20
"""Weights per profiled piece, unless one node alone has more."""
_PIECES = 8
_SMALL_GRAPH = 24
_PROFILED_RUNS = 4

# For --estimate: one core of a current server. Only their ratio changes where a plan cuts.
_FLOPS_PER_MS = 30e6
_BYTES_PER_MS = 8e6
_NODE_MS = 0.002


class Progress(Protocol):
    """Called as work goes on: `done` of `total` steps, and what is done now."""

    def __call__(self, done: int, total: int, what: str, /) -> None:
        """Told of one step."""


@dataclass(slots=True)
class Costs:
    """What is known about a model at one batch size.

    node_ms: by node index, copied nodes included. shapes: by value. batched: whether the model takes another number of rows;
    batch_axis: values whose axis 0 is the batch then.
    """

    node_ms: dict[int, float] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    batch_axis: set[str] = field(default_factory=set)
    batched: bool = False
    measured: bool = False


def estimate(graph: Graph, inputs: Mapping[str, tuple[int, ...]]) -> Costs:
    """Costs from operations and bytes. inputs: shapes of the graph inputs."""
    costs = Costs(shapes=shape_rules.concrete_shapes(graph, inputs))
    for node in (*graph.nodes, *graph.copied.values()):
        costs.node_ms[node.index] = 0.0 if node.index in graph.constants else _estimated_ms(graph, node, costs.shapes)
    costs.batched = shape_rules.is_batched(graph)
    if costs.batched:
        batch = next(iter(inputs.values()))[0]
        larger = shape_rules.concrete_shapes(graph, {name: (batch + 1, *shape[1:]) for name, shape in inputs.items()})
        costs.batch_axis = {
            name
            for name, shape in costs.shapes.items()
            if shape_rules.has_batch_axis(shape, larger.get(name), (batch, batch + 1))
        }
    return costs


def _estimated_ms(graph: Graph, node: Node, shapes: Mapping[str, tuple[int, ...]]) -> float:
    moved = sum(graph.weights[name].bytes for name in node.weights)
    for name in (*node.reads, *node.writes):
        value = graph.values.get(name)
        moved += shape_rules.size_bytes(value, shapes.get(name)) if value else 0
    return _NODE_MS + _operations(graph, node, shapes) / _FLOPS_PER_MS + moved / _BYTES_PER_MS


def _operations(graph: Graph, node: Node, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Multiplications and additions of the operators that have many; one per output element of others."""
    output = shapes.get(node.writes[0], ()) if node.writes else ()
    elements = math.prod(output)
    names = list(graph.model.graph.node[node.index].input)
    operands = [graph.weights[name].shape if name in graph.weights else shapes.get(name, ()) for name in names]
    if node.op == "Conv" and len(operands) > 1 and len(operands[1]) > 1:
        return 2.0 * elements * math.prod(operands[1][1:])
    if node.op in ("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm", "MatMulNBits") and operands and operands[0]:
        return 2.0 * elements * operands[0][-1]
    if node.op in ("LSTM", "GRU", "RNN") and len(operands) > 2 and operands[0]:
        return 2.0 * math.prod(operands[0][:2]) * sum(math.prod(operand) for operand in operands[1:3])
    return float(elements)


def profile(graph: Graph, samples: Arrays, *, batched: bool, threads: int, progress: Progress) -> Costs:
    """Costs from running the model on `samples`; also learns types and shapes that inference could not find.

    Raises ModelRejected or ModelFailed where a piece cannot be loaded or run.
    """
    pieces = pieces_of(graph)
    costs = estimate(graph, {name: array.shape for name, array in samples.items()})
    costs.measured, costs.batched = True, batched
    runner = _Runner(graph, costs, samples, batched=batched, threads=threads)
    for at, piece in enumerate(pieces):
        progress(at, len(pieces), f"profiling nodes {piece[0].index} to {piece[-1].index}")
        runner.measure(piece)
    progress(len(pieces), len(pieces), "profiled")
    return costs


class _Runner:
    """Runs pieces in order and keeps the values that later ones read: at the samples' batch size, and at one row more."""

    def __init__(self, graph: Graph, costs: Costs, samples: Arrays, *, batched: bool, threads: int) -> None:
        self._graph = graph
        self._costs = costs
        self._threads = threads
        self._values = dict(samples)
        self._rows = len(next(iter(samples.values()))) if batched else 0
        self._larger = {name: np.concatenate([array, array[:1]]) for name, array in samples.items()} if batched else {}

    def measure(self, piece: Sequence[Node]) -> None:
        part = self._part(piece)
        model = part_model(self._graph, part)
        order = sorted({node.index for node in piece}.union(*(node.copies for node in piece)))
        for position, node in enumerate(model.graph.node):
            node.name = f"n{order[position]}"
        with tempfile.TemporaryDirectory(prefix="shardline-profile-") as folder:
            write_model(model, self._graph.path, Path(folder))
            file = Path(folder) / "model.onnx"
            served_ms = Model(file, threads=self._threads).time_ms(self._values)
            plain = Model(file, level="plain", threads=self._threads, profile_to=Path(folder) / "profile")
            for _ in range(_PROFILED_RUNS):
                results = plain.run(self._values)
            larger = self._run_larger(plain)
            profiles = plain.end_profile()
        self._learn(order, profiles, served_ms)
        for name, array in results.items():
            kind = onnx_type_of(array, plain.outputs[name])
            shape_rules.refine(self._graph, name, kind, (None,) * np.ndim(array))
            self._learn_shape(name, np.shape(array), np.shape(larger[name]) if name in larger else None)
        self._keep(piece, results, larger)

    def _run_larger(self, model: Model) -> Arrays:
        if not self._rows:
            return {}
        try:
            return model.run(self._larger)
        except ModelFailed:
            # The model says that its batch axis is free and then refuses another size: it has no batch axis.
            self._rows, self._larger = 0, {}
            self._costs.batch_axis.clear()
            self._costs.batched = False
            return {}

    def _part(self, piece: Sequence[Node]) -> Part:
        made = {name for node in piece for name in node.writes}
        reads = dict.fromkeys(name for node in piece for name in node.reads if name not in made)
        last = piece[-1].index
        later = {name for node in self._graph.nodes if node.index > last for name in node.reads} | set(
            self._graph.outputs
        )
        outputs = [name for node in piece for name in node.writes if name in later]
        return Part(tuple(piece), tuple(reads), tuple(outputs or piece[-1].writes[:1]))

    def _learn(self, order: Sequence[int], profiles: Mapping[str, list[NodeProfile]], served_ms: float) -> None:
        found: dict[int, float] = {}
        for name, runs in profiles.items():
            match = re.match(r"n(\d+)(?!\d)", name)
            index = int(match.group(1)) if match else -1
            if index not in order:
                continue
            repeats = len(runs) // (_PROFILED_RUNS + bool(self._rows)) or 1
            found[index] = found.get(index, 0.0) + float(np.median([run.ms for run in runs])) * repeats
            if name == f"n{index}":
                self._learn_shapes(index, runs)
        timed = [index for index in order if index not in self._graph.constants]
        raw = {index: found.get(index, self._costs.node_ms[index]) for index in timed}
        total = sum(raw.values())
        self._costs.node_ms.update({index: ms * served_ms / total for index, ms in raw.items() if total})

    def _learn_shapes(self, index: int, runs: Sequence[NodeProfile]) -> None:
        names = [name for name in self._graph.model.graph.node[index].output if name]
        first, last = runs[0].outputs, runs[-1].outputs
        for at, name in enumerate(names[: len(first)]):
            self._learn_shape(name, first[at][1], last[at][1] if self._rows and at < len(last) else None)

    def _learn_shape(self, name: str, shape: tuple[int, ...], larger: tuple[int, ...] | None) -> None:
        self._costs.shapes[name] = shape
        self._costs.batch_axis.discard(name)
        if self._rows and shape_rules.has_batch_axis(shape, larger, (self._rows, self._rows + 1)):
            self._costs.batch_axis.add(name)

    def _keep(self, piece: Sequence[Node], results: Arrays, larger: Arrays) -> None:
        """Values that no later node reads are let go."""
        last = piece[-1].index
        later = {name for node in self._graph.nodes if node.index > last for name in node.reads}
        self._values = {name: array for name, array in {**self._values, **results}.items() if name in later}
        if self._rows:
            self._larger = {name: array for name, array in {**self._larger, **larger}.items() if name in later}


def pieces_of(graph: Graph) -> list[tuple[Node, ...]]:
    """Consecutive nodes, cut where few values cross, none of them one that cannot be sent.

    As many pieces as make the measured times fine enough to follow, and none with more than PIECE_BYTES of weights that can be avoided.
    """
    nodes = graph.nodes
    count = 1 if len(nodes) < _SMALL_GRAPH else min(_PIECES, len(nodes) // 8)
    size = math.ceil(len(nodes) / count)
    crossing = _crossings(graph)
    pieces = []
    start = 0
    while start < len(nodes):
        end = _piece_end(graph, crossing, start, size)
        pieces.append(tuple(nodes[start:end]))
        start = end
    return pieces


def _piece_end(graph: Graph, crossing: Sequence[float], start: int, size: int) -> int:
    """Where a piece that begins at node `start` ends: at the cheapest cut in the second half of what it may hold."""
    furthest = _furthest(graph, start, math.ceil(size * 1.25))
    if furthest == len(graph.nodes):
        return furthest
    half = start + max(1, (furthest - start) // 2)
    best = min(range(furthest, half - 1, -1), key=lambda at: crossing[at])
    if crossing[best] < math.inf:
        return best
    return next((at for at in range(furthest + 1, len(graph.nodes)) if crossing[at] < math.inf), len(graph.nodes))


def _furthest(graph: Graph, start: int, most: int) -> int:
    """The end of the longest piece of at most `most` nodes and PIECE_BYTES of weights; one node at least."""
    weights: set[str] = set()
    held = 0
    for end in range(start, min(start + most, len(graph.nodes))):
        fresh = set(graph.nodes[end].weights) - weights
        weights |= fresh
        held += sum(graph.weights[name].bytes for name in fresh)
        if held > PIECE_BYTES and end > start:
            return end
    return min(start + most, len(graph.nodes))


def _crossings(graph: Graph) -> list[float]:
    """How many values cross between node k-1 and node k; infinity where one of them cannot be sent."""
    last: dict[str, int] = {}
    for at, node in enumerate(graph.nodes):
        last.update(dict.fromkeys(node.reads, at))
    change = [0.0] * (len(graph.nodes) + 1)
    blocked = [False] * (len(graph.nodes) + 1)
    for at, node in enumerate(graph.nodes):
        for name in node.writes:
            until = last.get(name, at)
            if until > at:
                change[at + 1] += 1
                change[min(until + 1, len(graph.nodes))] -= 1
                value = graph.values.get(name)
                if value is not None and not value.cuttable:
                    blocked[at + 1 : until + 1] = [True] * (until - at)
    crossing, running = [], 0.0
    for at, step in enumerate(change):
        running += step
        crossing.append(math.inf if blocked[at] else running)
    return crossing
