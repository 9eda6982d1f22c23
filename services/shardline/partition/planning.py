"""From a model file to a plan: read, measure, split, and measure the stages that came out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.core.datatypes import BY_ONNX
from shardline.core.errors import InvalidRequest, ModelRejected, NotFound
from shardline.partition import costs as cost_model
from shardline.partition import shapes as shape_rules
from shardline.partition.graph import Graph, Node, read_graph
from shardline.partition.parts import MODEL_FILE, Part, digest_of, files_of, part_model, write_model
from shardline.partition.plan import (
    ROUTER,
    Assumptions,
    ModelFacts,
    Peer,
    Plan,
    Stage,
    StageInput,
    StageOutput,
    Tensor,
)
from shardline.partition.planner import Split, replicas_for, settle, split
from shardline.partition.problem import Costing, Item, Mask, Problem, bits
from shardline.partition.runtime import Model
from shardline.partition.samples import make_samples, read_samples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.partition.costs import Costs, Progress
    from shardline.partition.runtime import Arrays

DEFAULT_OVERHEAD_BYTES = 160 * 2**20
"""What a replica holds without a model: the interpreter, ONNX Runtime, the links."""
TIMED_STAGE_BYTES = 384 * 2**20
"""Stages with more weights than this are not loaded to be timed, so that the planner stays below 1 GB whatever the model."""
_CLOSE_ENOUGH = 0.05
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What is asked of the planner.

    stages: how many, None for the smallest number that fits `memory_per_pod` (bytes; None: unlimited, so 1). batch: rows.
    dims: sizes of symbolic dimensions other than the batch. samples: an .npz file of inputs, whose shapes then count.
    hop_bandwidth: bytes per second, hop_latency_s: seconds. estimate: guess times instead of measuring.
    threads: intra-op threads that a stage will have. overhead_bytes: memory of a pod that no tensor can have.
    """

    stages: int | None = None
    memory_per_pod: int | None = None
    batch: int = 1
    dims: Mapping[str, int] = field(default_factory=dict)
    samples: Path | None = None
    hop_bandwidth: float = 1.25e9
    hop_latency_s: float = 100e-6
    estimate: bool = False
    threads: int = 1
    overhead_bytes: int = DEFAULT_OVERHEAD_BYTES


def silent(_done: int, _total: int, _what: str) -> None:
    """Progress for those who do not watch."""


def find_model(path: Path) -> Path:
    """The model file at `path`: the file itself, or of a folder (of a repository, of a version) the newest version's model.onnx.

    Raises NotFound where there is none.
    """
    if path.is_file():
        return path
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    versions = [int(item.name) for item in path.iterdir() if item.name.isdecimal()] if path.is_dir() else []
    for version in sorted(versions, reverse=True):
        if (path / str(version) / MODEL_FILE).is_file():
            return path / str(version) / MODEL_FILE
    raise NotFound(f"no model at {path}: give an .onnx file, or a folder with <version>/{MODEL_FILE}")


def make_plan(model_path: Path, request: PlanRequest, progress: Progress = silent) -> Plan:
    """Plan how the model at `model_path` is cut.

    Raises ModelRejected where the model cannot be read, run or cut as asked, InvalidRequest for a request that makes no sense.
    """
    path = find_model(model_path)
    graph = read_graph(path)
    shape_rules.infer_types(graph)
    samples, shapes = _inputs(graph, request)
    if request.estimate or samples is None:
        costs = cost_model.estimate(graph, shapes)
    else:
        costs = cost_model.profile(
            graph, samples, batched=shape_rules.is_batched(graph), threads=request.threads, progress=progress
        )
    problem = problem_of(graph, costs, request)
    wanted = request.stages or (None if request.memory_per_pod else 1)
    result = split(problem, wanted)
    small = all(cost.weight_bytes <= TIMED_STAGE_BYTES for cost in result.costs)
    if costs.measured and samples is not None and len(result.stages) > 1 and small:
        problem, result = _refined(graph, problem, result, samples, request, progress)
    return _document(graph, problem, result, costs, request, shapes)


def _inputs(graph: Graph, request: PlanRequest) -> tuple[Arrays | None, dict[str, tuple[int, ...]]]:
    if request.batch < 1:
        raise InvalidRequest(f"a batch has 1 row or more, not {request.batch}")
    if request.samples is not None:
        samples = read_samples(graph, request.samples)
        return samples, {name: array.shape for name, array in samples.items()}
    shapes = shape_rules.input_shapes(graph, request.batch, request.dims)
    return (None if request.estimate else make_samples(graph, shapes)), shapes


def problem_of(graph: Graph, costs: Costs, request: PlanRequest) -> Problem:
    """The planner's view of a graph. Values that have no batch axis may not cross a cut of a model that has one."""
    bound = set()
    for node in graph.nodes:
        for name in node.writes:
            value = graph.values.get(name)
            rowless = costs.batched and name not in costs.batch_axis
            if value is None or not value.cuttable or value.shape is None or rowless:
                bound.add(name)
    return Problem(
        items=tuple(
            Item(
                node.id, costs.node_ms[node.index], node.reads, node.writes, node.weights, tuple(map(str, node.copies))
            )
            for node in graph.nodes
        ),
        value_bytes={
            name: shape_rules.size_bytes(value, costs.shapes.get(name)) for name, value in graph.values.items()
        },
        weight_bytes={name: weight.bytes for name, weight in graph.weights.items()},
        copy_ms={str(index): costs.node_ms.get(index, 0.0) for index in graph.copied},
        inputs=frozenset(graph.inputs),
        results=frozenset(graph.outputs) - frozenset(graph.constant_outputs),
        bound=frozenset(bound),
        bytes_per_ms=request.hop_bandwidth / 1e3,
        hop_ms=request.hop_latency_s * 1e3,
        memory_bytes=request.memory_per_pod,
        overhead_bytes=request.overhead_bytes,
    )


def _refined(
    graph: Graph, problem: Problem, result: Split, samples: Arrays, request: PlanRequest, progress: Progress
) -> tuple[Problem, Split]:
    """Measure the stages, correct the nodes' times by what came out, split again: until prediction and measurement agree.

    Optimisation differs with where a graph is cut, so only a stage's own time is sure. Returns the best measured split.
    """
    best: tuple[float, Problem, Split] | None = None
    for attempt in range(_ROUNDS):
        measured = _measure_stages(graph, result.stages, samples, request, progress, attempt)
        predicted = [cost.compute_ms for cost in result.costs]
        problem = _corrected(
            problem, result.stages, [m / p if p else 1.0 for m, p in zip(measured, predicted, strict=True)]
        )
        settled = _recosted(problem, result)
        if best is None or settled.slowest_ms < best[0]:
            best = (settled.slowest_ms, problem, settled)
        again = split(problem, len(result.stages))
        error = max(abs(m - p) / m for m, p in zip(measured, predicted, strict=True) if m)
        if again.stages == result.stages or (error <= _CLOSE_ENOUGH and again.slowest_ms > settled.slowest_ms * 0.97):
            break
        result = again
    if best is None:
        return problem, result
    return best[1], best[2]


def _measure_stages(
    graph: Graph, stages: tuple[Mask, ...], samples: Arrays, request: PlanRequest, progress: Progress, attempt: int
) -> list[float]:
    """Milliseconds of each stage on the values that the ones before it make; one stage in memory at a time."""
    values = dict(samples)
    taken = []
    for at, stage in enumerate(stages):
        progress(at, len(stages), f"timing stage {at} (round {attempt + 1})")
        part = stage_part(graph, [graph.nodes[bit] for bit in bits(stage)], last=at == len(stages) - 1)
        with tempfile.TemporaryDirectory(prefix="shardline-stage-") as folder:
            write_model(part_model(graph, part), graph.path, Path(folder))
            model = Model(Path(folder) / MODEL_FILE, threads=request.threads)
            values |= model.run(values)
            taken.append(model.time_ms(values, seconds=1.0))
    progress(len(stages), len(stages), "timed")
    return taken


def _corrected(problem: Problem, stages: tuple[Mask, ...], factors: list[float]) -> Problem:
    items = list(problem.items)
    for stage, factor in zip(stages, factors, strict=True):
        for at in bits(stage):
            item = items[at]
            items[at] = Item(item.id, item.ms * factor, item.reads, item.writes, item.weights, item.copies)
    return Problem(**{**vars(problem), "items": tuple(items)})


def _recosted(problem: Problem, result: Split) -> Split:
    """The same stages at other costs."""
    return settle(Costing(problem), result.stages, result.notes)


def stage_part(graph: Graph, nodes: list[Node], *, last: bool) -> Part:
    """The signature of a stage: what it takes from outside, and what others or the router need of it.

    last: constant outputs of the model are given by the last stage.
    """
    inside = {node.index for node in nodes}
    made = dict.fromkeys(name for node in nodes for name in node.writes)
    reads = dict.fromkeys(name for node in nodes for name in node.reads if name not in made)
    wanted = {name for node in graph.nodes if node.index not in inside for name in node.reads} | set(graph.outputs)
    ordered = [name for name in graph.inputs if name in reads]
    ordered += [name for name in reads if name not in graph.inputs and name not in graph.defaults]
    outputs = [name for name in made if name in wanted]
    if last:
        outputs += graph.constant_outputs
        passed = [name for name in graph.outputs if name in graph.inputs]
        ordered += [name for name in passed if name not in ordered]
        outputs += passed
    return Part(tuple(nodes), tuple(ordered), tuple(outputs))


def _document(
    graph: Graph,
    problem: Problem,
    result: Split,
    costs: Costs,
    request: PlanRequest,
    shapes: Mapping[str, tuple[int, ...]],
) -> Plan:
    parts = [
        stage_part(graph, [graph.nodes[at] for at in bits(stage)], last=index == len(result.stages) - 1)
        for index, stage in enumerate(result.stages)
    ]
    source: dict[str, Peer] = dict.fromkeys(graph.inputs, ROUTER)
    for index, part in enumerate(parts):
        source.update({name: index for name in part.outputs if name not in graph.inputs})
    replicas = replicas_for([cost.busy_ms for cost in result.costs])
    stages = []
    for index, (part, cost) in enumerate(zip(parts, result.costs, strict=True)):
        stages.append(
            Stage(
                index=index,
                nodes=[node.id for node in part.nodes],
                copied_nodes=len({copy for node in part.nodes for copy in node.copies}),
                inputs=[StageInput(name=name, source=source[name]) for name in part.inputs]
                + _default_inputs(graph, part),
                outputs=[StageOutput(name=name, consumers=_consumers(graph, parts, name)) for name in part.outputs],
                weight_bytes=cost.weight_bytes,
                peak_activation_bytes=cost.peak_bytes,
                memory_bytes=cost.memory_bytes,
                received_bytes=cost.received_bytes,
                compute_ms=cost.compute_ms,
                busy_ms=cost.busy_ms,
                replicas=replicas[index],
            )
        )
    rows = next(iter(shapes.values()))[0] if costs.batched and shapes else request.batch
    return Plan(
        schema_version=1,
        model=ModelFacts(
            file=graph.path.name,
            digest=digest_of(files_of(graph)),
            nodes=len(graph.model.graph.node),
            weight_bytes=graph.weight_bytes,
            inputs=[*graph.inputs, *graph.defaults],
            outputs=list(graph.outputs),
        ),
        assumptions=Assumptions(
            batch=rows,
            batched=costs.batched,
            input_shapes={name: list(shape) for name, shape in shapes.items()},
            hop_bandwidth=request.hop_bandwidth,
            hop_latency_ms=problem.hop_ms,
            memory_per_pod=request.memory_per_pod,
            overhead_bytes=request.overhead_bytes,
            threads=request.threads,
            costs="measured" if costs.measured else "estimated",
        ),
        stages=stages,
        tensors=_tensors(graph, stages, costs),
        slowest_ms=result.slowest_ms,
        bound_ms=result.bound_ms,
        whole_ms=problem.total_ms,
        latency_ms=result.latency_ms,
        rows_per_s=rows * 1e3 / result.slowest_ms if result.slowest_ms else 0.0,
        notes=list(result.notes),
    )


def _default_inputs(graph: Graph, part: Part) -> list[StageInput]:
    used = {name for node in part.nodes for name in node.weights}
    return [StageInput(name=name, source=ROUTER, optional=True) for name in graph.defaults if name in used]


def _consumers(graph: Graph, parts: list[Part], name: str) -> list[Peer]:
    found: list[Peer] = []
    if name not in graph.inputs:
        found += [index for index, part in enumerate(parts) if name in part.inputs]
    return [*found, ROUTER] if name in graph.outputs else found


def _tensors(graph: Graph, stages: list[Stage], costs: Costs) -> dict[str, Tensor]:
    names = dict.fromkeys(item.name for stage in stages for item in stage.inputs)
    names |= dict.fromkeys(item.name for stage in stages for item in stage.outputs)
    return {name: _tensor(graph, name, costs) for name in names}


def _tensor(graph: Graph, name: str, costs: Costs) -> Tensor:
    if name in graph.weights:
        weight = graph.weights[name]
        return Tensor(
            datatype=BY_ONNX[weight.onnx_type].name, shape=list(weight.shape), bytes=weight.bytes, batch_axis=False
        )
    value = graph.values.get(name)
    if value is None or not value.cuttable:
        raise ModelRejected(f"{graph.path}: {name!r} is no tensor of a data type that can be sent")
    named = {dim for end in graph.inputs for dim in graph.values[end].shape or ()}
    # Inference invents symbols for what it does not know; they mean nothing to a reader of the plan.
    free = [dim if isinstance(dim, int) or (dim is not None and dim in named) else -1 for dim in value.shape or ()]
    batch_axis = costs.batched and (name in costs.batch_axis or name in graph.inputs)
    return Tensor(
        datatype=BY_ONNX[value.onnx_type].name,
        shape=free,
        bytes=shape_rules.size_bytes(value, costs.shapes.get(name)),
        batch_axis=batch_axis,
    )
