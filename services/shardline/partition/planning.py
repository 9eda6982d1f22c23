"""From a model file to a plan: read, measure, split, and measure the stages that came out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardline.core.datatypes import BY_ONNX
from shardline.core.errors import InvalidRequest, ModelFailed, ModelRejected, NotFound
from shardline.partition import costs as cost_model
from shardline.partition import shapes as shape_rules
from shardline.partition.graph import Graph, read_graph
from shardline.partition.parts import MODEL_FILE, Part, digest_of, files_of, stage_part
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
from shardline.partition.planner import Split, replicas_for, split
from shardline.partition.problem import Item, Problem, bits
from shardline.partition.refine import can_be_timed, refined
from shardline.partition.samples import make_samples, read_samples

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shardline.partition.costs import Costs, Progress
    from shardline.partition.runtime import Arrays

    Shapes = Mapping[str, tuple[int, ...]]

DEFAULT_OVERHEAD_BYTES = 160 * 2**20
"""What a replica holds without a model: the interpreter, ONNX Runtime, the links."""


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
    if request.batch < 1:
        raise InvalidRequest(f"a batch has 1 row or more, not {request.batch}")
    samples, shapes, costs = _estimated(graph, request) if request.estimate else _profiled(graph, request, progress)
    problem = problem_of(graph, costs, request)
    wanted = request.stages or (None if request.memory_per_pod else 1)
    result = split(problem, wanted)
    if samples is not None and len(result.stages) > 1 and can_be_timed(result):
        problem, result = refined(graph, problem, result, samples, request.threads, progress)
    return _document(graph, problem, result, costs, request, shapes)


def _estimated(graph: Graph, request: PlanRequest) -> tuple[None, Shapes, Costs]:
    """As `_profiled`, but nothing ran."""
    if request.samples is not None:
        shapes = _shapes_of(read_samples(graph, request.samples))
    else:
        shapes = shape_rules.input_shapes(graph, request.batch, request.dims)
    return None, shapes, cost_model.estimate(graph, shapes)


def _profiled(graph: Graph, request: PlanRequest, progress: Progress) -> tuple[Arrays, Shapes, Costs]:
    """The inputs that the model ran on, their shapes, and what it took: on those given, else on the first made up that it takes."""

    def costs_of(samples: Arrays) -> Costs:
        batched = shape_rules.is_batched(graph)
        return cost_model.profile(graph, samples, batched=batched, threads=request.threads, progress=progress)

    if request.samples is not None:
        samples = read_samples(graph, request.samples)
        return samples, _shapes_of(samples), costs_of(samples)
    failure: ModelFailed | None = None
    for shapes in shape_rules.likely_input_shapes(graph, request.batch, request.dims):
        samples = make_samples(graph, shapes)
        try:
            return samples, shapes, costs_of(samples)
        except ModelFailed as error:
            failure = failure or ModelFailed(f"{error.message}; {_made_up(graph, shapes)}")
    assert failure is not None
    raise failure


def _shapes_of(samples: Arrays) -> Shapes:
    return {name: array.shape for name, array in samples.items()}


def _made_up(graph: Graph, shapes: Shapes) -> str:
    """What the model was fed, and what to do where it does not like that."""
    inputs = ", ".join(f"{name} [{'×'.join(map(str, shape))}]" for name, shape in shapes.items())
    free = ", ".join(sorted(shape_rules.free_symbols(graph)))
    sizes = f"sizes (--dim NAME=SIZE; open are {free}) or with " if free else ""
    return f"its input was made up: {inputs}; plan it by `shardline plan` with {sizes}real input (--input FILE.npz)"


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
