"""One stage of a split model on this replica: what it takes from whom, what it gives to whom (the plan says)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.core.datatypes import BY_NAME
from shardline.core.errors import ModelRejected, PlanMismatch
from shardline.core.models import ModelSpec, TensorSpec
from shardline.partition.plan import ROUTER, Plan, load_plan
from shardline.wire.descriptions import StageLink

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class StageRole:
    """This replica's part in a plan.

    plan: the plan's digest; stages of another one refuse. sources: by input, the stage it comes from, None for the
    router. consumers: by output, the stages that need it; answers: outputs that the router needs.
    needed: inputs without which the stage cannot run. graph: all stages, as routers need to know them.
    whole: the whole model's spec, which clients see.
    """

    plan: str
    index: int
    sources: dict[str, int | None]
    consumers: dict[int, tuple[str, ...]]
    answers: tuple[str, ...]
    needed: frozenset[str]
    graph: tuple[StageLink, ...]
    whole: ModelSpec
    micro_batch_rows: int


def parse_stage(text: str) -> tuple[Path, int]:
    """`<plan folder>#<index>` as its parts. Raises ModelRejected."""
    folder, separator, index = text.rpartition("#")
    if not separator or not index.isdigit():
        raise ModelRejected(f"stage: expected <plan folder>#<index>, not '{text}'")
    return Path(folder), int(index)


def load_role(
    folder: Path, index: int, whole: ModelSpec, model_files: Sequence[Path]
) -> tuple[StageRole, ModelSpec, Path]:
    """(role, the stage's own spec, the stage's model file). Raises ModelRejected or PlanMismatch.

    model_files: of the whole model, the ONNX file first: the plan must be for exactly these. Where the file lies in the plan's own
    folder it is the whole model's shell (shardline.partition.shell): the plan came with it, there is nothing to compare.
    """
    # onnx is imported only by replicas that execute a stage.
    from shardline.partition.extract import check_stage, stage_folder
    from shardline.partition.parts import MODEL_FILE, digest_of

    plan = load_plan(folder)
    shell = model_files[0].resolve().is_relative_to(folder.resolve())
    if not shell and plan.model.digest != (digest := digest_of(model_files)):
        raise PlanMismatch(
            f"model '{whole.name}' version {whole.version}: the plan in {folder} is for {plan.model.digest}, "
            f"the repository has {digest}; plan it anew"
        )
    if index >= len(plan.stages):
        raise ModelRejected(f"stage {index} is not in the plan of '{whole.name}', which has {len(plan.stages)} stages")
    check_stage(folder, index)
    role = _role(plan, index, whole)
    return role, _stage_spec(plan, index, whole), folder / stage_folder(index) / MODEL_FILE


def _role(plan: Plan, index: int, whole: ModelSpec) -> StageRole:
    stage = plan.stages[index]
    consumers: dict[int, list[str]] = {}
    for output in stage.outputs:
        for consumer in output.consumers:
            if consumer != ROUTER:
                consumers.setdefault(int(consumer), []).append(output.name)
    return StageRole(
        plan=plan.digest,
        index=index,
        sources={item.name: None if item.source == ROUTER else int(item.source) for item in stage.inputs},
        consumers={number: tuple(names) for number, names in sorted(consumers.items())},
        answers=tuple(output.name for output in stage.outputs if ROUTER in output.consumers),
        needed=frozenset(item.name for item in stage.inputs if not item.optional),
        graph=tuple(
            StageLink(
                item.index,
                tuple(value.name for value in item.inputs if value.source == ROUTER),
                tuple(value.name for value in item.outputs if ROUTER in value.consumers),
            )
            for item in plan.stages
        ),
        whole=replace(whole, stages=len(plan.stages)),
        micro_batch_rows=whole.execution.micro_batch,
    )


def _stage_spec(plan: Plan, index: int, whole: ModelSpec) -> ModelSpec:
    """The stage as a model of its own: its tensors, the whole model's batching.

    Rows are padded at no stage: an activation does not say how it would have to be.
    """
    stage = plan.stages[index]
    if plan.assumptions.batched is not whole.batched:
        raise PlanMismatch(
            f"model '{whole.name}': the plan was made for {_batching(plan.assumptions.batched)}, "
            f"the config asks for {_batching(whole.batched)}"
        )
    inputs = tuple(_tensor(plan, item.name, optional=item.optional) for item in stage.inputs)
    outputs = tuple(_tensor(plan, item.name) for item in stage.outputs)
    batching = replace(whole.batching, pad_inputs={}, trim_outputs={})
    return replace(whole, inputs=inputs, outputs=outputs, batching=batching, stages=len(plan.stages))


def _batching(batched: bool) -> str:
    return "a batch axis" if batched else "no batch axis"


def _tensor(plan: Plan, name: str, *, optional: bool = False) -> TensorSpec:
    tensor = plan.tensors[name]
    dims = tuple(tensor.shape[1:] if plan.assumptions.batched else tensor.shape)
    return TensorSpec(name, BY_NAME[tensor.datatype], dims, optional)
