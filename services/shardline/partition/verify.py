"""Stages composed equal the whole, on sample and random inputs, before anything serves them (promise P7).

Whole and stages are run as a replica runs them, with every optimisation; these associate sums differently on both sides of a
cut, so answers are compared within the tolerance of the data type. Quantised models may round a value to the next step where
sums differ in the last bit; they are therefore compared a second time without optimisation, where they must be equal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from shardline.core.datatypes import BF16, BY_NAME, BY_ORT
from shardline.core.errors import ModelRejected
from shardline.partition import samples as sample_maker
from shardline.partition.extract import ExtractedStages, matching_graph
from shardline.partition.planning import find_model, silent
from shardline.partition.runtime import Arrays, Level, Model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shardline.partition.costs import Progress
    from shardline.partition.graph import Graph
    from shardline.partition.runtime import Array

TOLERANCE = {"FP64": 1e-10, "FP32": 1e-5, "FP16": 4e-3, "BF16": 3e-2}
"""Largest error relative to the scale of an output (its largest finite magnitude); 0 for all other data types."""
QUANTISED_TOLERANCE = 0.05
"""The same for a quantised model as served, given that it is exact without optimisation; more where the runtime's optimisation
moves the whole model's own answers by more than half of that."""
_QUANTISED = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinear", "MatMulInteger", "ConvInteger", "MatMulNBits")


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far one output of the composed stages is from the whole's. relative: to the output's scale."""

    name: str
    datatype: str
    max_abs: float
    relative: float
    tolerance: float

    @property
    def equal(self) -> bool:
        """Whether the output counts as the same."""
        return self.relative <= self.tolerance


@dataclass(frozen=True, slots=True)
class Verification:
    """The largest error per output over all inputs tried. exact: equal in every bit."""

    outputs: tuple[OutputError, ...]
    inputs_tried: int
    level: Level

    @property
    def equal(self) -> bool:
        """Whether all outputs are the same."""
        return all(output.equal for output in self.outputs)

    @property
    def exact(self) -> bool:
        """Whether all outputs are the same in every bit."""
        return all(output.max_abs == 0 for output in self.outputs)


def verify(
    stages: ExtractedStages,
    model_path: Path,
    *,
    given: Sequence[Arrays] = (),
    random_inputs: int = 3,
    progress: Progress = silent,
) -> Verification:
    """Compare the stages with the whole model on `given` inputs and on random ones.

    Raises PlanMismatch where the model is another than the plan's, ModelRejected where an answer differs, naming the output.
    """
    path = find_model(model_path)
    graph = matching_graph(stages.plan, path)
    inputs = [*given, *_random_inputs(graph, stages, random_inputs)]
    served = compare(graph, path, stages, inputs, "served", progress)
    if served.equal:
        return served
    quantised = any(node.op_type.startswith(_QUANTISED) for node in graph.model.graph.node)
    if quantised and compare(graph, path, stages, inputs, "plain", progress).equal:
        allowed = max(QUANTISED_TOLERANCE, 2 * _own_spread(graph, path, inputs))
        if all(output.relative <= allowed for output in served.outputs):
            return replace(served, outputs=tuple(replace(output, tolerance=allowed) for output in served.outputs))
    worst = max(served.outputs, key=lambda output: output.relative - output.tolerance)
    raise ModelRejected(
        f"the stages do not answer as the whole model does: output {worst.name!r} is off by {worst.max_abs:.3g} "
        f"({worst.relative:.2g} of its scale, {worst.tolerance:.2g} are allowed for {worst.datatype}). "
        + _random_words(graph)
    )


def _own_spread(graph: Graph, path: Path, inputs: Sequence[Arrays]) -> float:
    """How far the whole model's own answers move when the runtime optimises it: the largest relative error of any output."""
    found = []
    levels: tuple[Level, ...] = ("served", "plain")
    for level in levels:
        whole = Model(path, level=level)
        kinds = whole.outputs
        found.append([whole.run(feeds) for feeds in inputs])
    return max(_output_error(name, kinds[name], found[1], found[0]).relative for name in graph.outputs)


def _random_words(graph: Graph) -> str:
    random = [
        node.op_type
        for node in graph.model.graph.node
        if node.op_type.startswith(("Random", "Multinomial", "Bernoulli"))
    ]
    return (
        f"It draws random numbers ({random[0]}), so it cannot be compared"
        if random
        else "Do not serve this plan; report the model"
    )


def _random_inputs(graph: Graph, stages: ExtractedStages, count: int) -> list[Arrays]:
    """Random inputs of the plan's shapes; where rows are free, each has another number of them."""
    assumptions = stages.plan.assumptions
    shapes = {name: tuple(shape) for name, shape in assumptions.input_shapes.items()}
    made = []
    for seed in range(count):
        if assumptions.batched:
            rows = assumptions.batch + seed % 2
            shapes = {name: (rows, *shape[1:]) for name, shape in shapes.items()}
        made.append(sample_maker.make_samples(graph, shapes, seed=seed + 1))
    return made


def compare(
    graph: Graph,
    path: Path,
    stages: ExtractedStages,
    inputs: Sequence[Arrays],
    level: Level,
    progress: Progress = silent,
) -> Verification:
    """Errors per output. One model is in memory at a time: the whole, then each stage."""
    steps = len(stages.models) + 1
    progress(0, steps, "running the whole model")
    whole = Model(path, level=level)
    wanted = [whole.run(feeds) for feeds in inputs]
    kinds = whole.outputs
    del whole
    values = [dict(feeds) for feeds in inputs]
    for at, file in enumerate(stages.models):
        progress(at + 1, steps, f"running stage {at}")
        stage = Model(file, level=level)
        for known in values:
            known.update(stage.run(known))
    progress(steps, steps, "compared")
    return Verification(
        tuple(_output_error(name, kinds[name], wanted, values) for name in graph.outputs), len(inputs), level
    )


def _output_error(
    name: str, kind: str, wanted: Sequence[Mapping[str, Array]], found: Sequence[Mapping[str, Array]]
) -> OutputError:
    datatype = BY_ORT[kind].name if kind in BY_ORT else kind
    errors = [
        difference(expected[name], actual[name], datatype) for expected, actual in zip(wanted, found, strict=True)
    ]
    return OutputError(
        name,
        datatype,
        max((absolute for absolute, _ in errors), default=0.0),
        max((relative for _, relative in errors), default=0.0),
        TOLERANCE.get(datatype, 0.0),
    )


def difference(expected: Array, actual: Array, datatype: str) -> tuple[float, float]:
    """(largest absolute error, the same relative to the largest finite magnitude expected); infinite where shapes or NaNs differ."""
    if np.shape(expected) != np.shape(actual):
        return float("inf"), float("inf")
    if datatype not in TOLERANCE or datatype not in BY_NAME:
        same = np.array_equal(expected, actual)
        return (0.0, 0.0) if same else (float("inf"), float("inf"))
    left, right = _as_float64(expected, datatype), _as_float64(actual, datatype)
    finite = np.isfinite(left)
    if not np.array_equal(finite, np.isfinite(right)) or not np.array_equal(
        left[~finite], right[~finite], equal_nan=True
    ):
        return float("inf"), float("inf")
    if not finite.any():
        return 0.0, 0.0
    absolute = float(np.max(np.abs(left[finite] - right[finite])))
    scale = float(np.max(np.abs(left[finite])))
    return absolute, absolute / scale if scale else absolute


def _as_float64(array: Array, datatype: str) -> Array:
    if datatype == BF16.name:
        return (np.asarray(array).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.asarray(array, np.float64)
