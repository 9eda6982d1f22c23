"""The plan: how one model file is cut into stages, as a versioned document (`plan.json`).

What stands in it is checked when it is read, since people edit JSON: unknown fields, stages that disagree about a tensor, and
figures that do not follow from the others are refused by name.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shardline.core.datatypes import BY_NAME
from shardline.core.errors import ModelRejected

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1
PLAN_FILE = "plan.json"
ROUTER: Literal["router"] = "router"
"""Who gives the model's inputs and takes its outputs."""

Count = Annotated[int, Field(ge=0)]
Ms = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Peer = Literal["router"] | Count
"""The router, or a stage by its index."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Tensor(_Strict):
    """A tensor that is sent. shape: sizes, symbols, or -1 where any size may come. bytes: at the plan's batch and dims.

    batch_axis: whether axis 0 counts rows, so that a stage may join and cut batches along it.
    """

    datatype: str
    shape: list[int | str]
    bytes: Count
    batch_axis: bool


class StageInput(_Strict):
    """A tensor that a stage takes. source: who sends it. optional: has a default in the stage's file (an overridable weight)."""

    name: str
    source: Peer
    optional: bool = False


class StageOutput(_Strict):
    """A tensor that a stage makes. consumers: who needs it."""

    name: str
    consumers: Annotated[list[Peer], Field(min_length=1)]


class Stage(_Strict):
    """One part of the model. nodes: ids in order. copied_nodes: how many constant and shape nodes stand in it besides.

    Bytes: weights; the largest sum of activations alive at once; memory a pod needs; received from other stages.
    compute_ms: one batch on one replica. busy_ms: with receiving. replicas: how many would balance the stages.
    """

    index: Count
    nodes: Annotated[list[str], Field(min_length=1)]
    copied_nodes: Count
    inputs: list[StageInput]
    outputs: Annotated[list[StageOutput], Field(min_length=1)]
    weight_bytes: Count
    peak_activation_bytes: Count
    memory_bytes: Count
    received_bytes: Count
    compute_ms: Ms
    busy_ms: Ms
    replicas: Annotated[int, Field(ge=1)]


class ModelFacts(_Strict):
    """Which model the plan is for. digest: of the file and those that its weights lie in."""

    file: str
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    nodes: Count
    weight_bytes: Count
    inputs: list[str]
    outputs: list[str]


class Assumptions(_Strict):
    """What was asked for. hop_bandwidth: bytes per second. memory_per_pod: bytes, None where unlimited; overhead: bytes of it that
    neither weights nor activations take. dims: concrete shapes of the inputs. costs: where the times come from.
    """

    batch: Annotated[int, Field(ge=1)]
    batched: bool
    input_shapes: dict[str, list[int]]
    hop_bandwidth: Annotated[float, Field(gt=0)]
    hop_latency_ms: Ms
    memory_per_pod: int | None
    overhead_bytes: Count
    threads: Annotated[int, Field(ge=1)]
    costs: Literal["measured", "estimated"]


class Plan(_Strict):
    """How a model is cut. slowest_ms: of the stages' busy_ms; bound_ms: no plan of as many stages is below it.

    whole_ms: the model unsplit. latency_ms: one batch through idle stages, hops between stages included.
    rows_per_s: what a stream of batches reaches, one replica per stage.
    """

    schema_version: Literal[1]
    model: ModelFacts
    assumptions: Assumptions
    stages: Annotated[list[Stage], Field(min_length=1)]
    tensors: dict[str, Tensor]
    slowest_ms: Ms
    bound_ms: Ms
    whole_ms: Ms
    latency_ms: Ms
    rows_per_s: Annotated[float, Field(ge=0)]
    notes: list[str]

    @property
    def digest(self) -> str:
        """Of the plan itself: stages that were extracted by different plans differ in it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    @property
    def distance(self) -> float:
        """How far the slowest stage is above the lower bound, as a share of it."""
        return self.slowest_ms / self.bound_ms - 1.0 if self.bound_ms else 0.0

    def to_json(self) -> str:
        """The document."""
        return self.model_dump_json(indent=1) + "\n"

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        _check_order(self)
        _check_nodes(self)
        _check_edges(self)
        _check_figures(self)
        return self


def load_plan(path: Path) -> Plan:
    """Read `plan.json`, or the one in a folder. Raises ModelRejected naming the first field that is wrong."""
    file = path / PLAN_FILE if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelRejected(f"cannot read the plan {file}: {error}") from error
    return parse_plan(text, str(file))


def parse_plan(text: str, name: str = PLAN_FILE) -> Plan:
    """The plan in a document. Raises ModelRejected naming the first field that is wrong."""
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        message = first["msg"].removeprefix("Value error, ")
        raise ModelRejected(
            f"{name} is no valid plan: {where + ': ' if where else ''}{message}. Plan again instead of editing"
        ) from error


def _check_order(plan: Plan) -> None:
    for at, stage in enumerate(plan.stages):
        if stage.index != at:
            raise ValueError(f"stages[{at}].index is {stage.index}, expected {at}")


def _check_nodes(plan: Plan) -> None:
    owner: dict[str, int] = {}
    for stage in plan.stages:
        for node in stage.nodes:
            if node in owner:
                raise ValueError(f"stages[{stage.index}].nodes: {node!r} is in stage {owner[node]} too")
            owner[node] = stage.index


def _check_edges(plan: Plan) -> None:
    """Every tensor has one maker, and makers and takers agree about it."""
    sent = {
        (output.name, stage.index, peer)
        for stage in plan.stages
        for output in stage.outputs
        for peer in output.consumers
    }
    for stage in plan.stages:
        for at, item in enumerate(stage.inputs):
            _check_input(plan, stage, at, item, sent)
    _check_outputs(plan, sent)
    results = {name for name, _, consumer in sent if consumer == ROUTER}
    for name in plan.model.outputs:
        if name not in results:
            raise ValueError(f"model.outputs: no stage sends {name!r} to the router")


def _check_input(plan: Plan, stage: Stage, at: int, item: StageInput, sent: set[tuple[str, int, Peer]]) -> None:
    where = f"stages[{stage.index}].inputs[{at}]"
    if item.name not in plan.tensors:
        raise ValueError(f"{where}: tensor {item.name!r} is not among tensors")
    if item.source == ROUTER:
        if item.name not in plan.model.inputs:
            raise ValueError(f"{where}: {item.name!r} is no input of the model")
        return
    if item.source >= stage.index:
        raise ValueError(f"{where}: a stage takes only from stages before it, not from stage {item.source}")
    if (item.name, item.source, stage.index) not in sent:
        raise ValueError(f"{where}: stage {item.source} does not send {item.name!r} to stage {stage.index}")


def _check_outputs(plan: Plan, sent: set[tuple[str, int, Peer]]) -> None:
    taken = {(item.name, item.source, stage.index) for stage in plan.stages for item in stage.inputs}
    made = {output.name: stage.index for stage in plan.stages for output in stage.outputs}
    for name, source, consumer in sorted(sent, key=str):
        where = f"stages[{source}].outputs"
        if name not in plan.tensors:
            raise ValueError(f"{where}: tensor {name!r} is not among tensors")
        if consumer == ROUTER and name not in plan.model.outputs:
            raise ValueError(f"{where}: {name!r} is no output of the model")
        if consumer != ROUTER and (name, source, consumer) not in taken:
            raise ValueError(f"{where}: stage {consumer} does not take {name!r} from stage {source}")
        if made[name] != source:
            raise ValueError(f"{where}: {name!r} is made by stage {made[name]} too")


def _check_figures(plan: Plan) -> None:
    for name, tensor in plan.tensors.items():
        if tensor.datatype not in BY_NAME:
            raise ValueError(f"tensors.{name}.datatype: {tensor.datatype!r} is no data type of the protocol")
    for stage in plan.stages:
        crossing = sum(plan.tensors[item.name].bytes for item in stage.inputs if item.source != ROUTER)
        if stage.received_bytes != crossing:
            raise ValueError(
                f"stages[{stage.index}].received_bytes is {stage.received_bytes}, its inputs have {crossing}"
            )
        limit = plan.assumptions.memory_per_pod
        if limit is not None and stage.memory_bytes > limit:
            raise ValueError(
                f"stages[{stage.index}].memory_bytes is {stage.memory_bytes}, above assumptions.memory_per_pod {limit}"
            )
    slowest = max(stage.busy_ms for stage in plan.stages)
    if abs(slowest - plan.slowest_ms) > 1e-6 * max(1.0, slowest):
        raise ValueError(f"slowest_ms is {plan.slowest_ms}, the slowest stage takes {slowest}")
