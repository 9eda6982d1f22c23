"""A plan carried out: one folder per stage, `stage-<i>/model.onnx` with the stage's own weights only.

All is written into a folder of a temporary name beside the target and renamed at the end, so a target is complete or absent.
`stages.json` holds each file's size and digest; a stage that was cut short or mixed up is refused before it is loaded.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from pydantic import BaseModel, ConfigDict, ValidationError

from shardline.core.datatypes import BY_NAME
from shardline.core.errors import ModelRejected, PlanMismatch
from shardline.partition.graph import Graph, Value, read_graph
from shardline.partition.parts import MODEL_FILE, Part, digest_of, files_of, part_model, stage_part, write_model
from shardline.partition.plan import PLAN_FILE, Plan, load_plan
from shardline.partition.planning import find_model, silent
from shardline.partition.shapes import infer_types

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardline.partition.costs import Progress

STAGES_FILE = "stages.json"
PLAN_KEY, STAGE_KEY = "shardline.plan", "shardline.stage"
"""Metadata of a stage's model file: the digest of its plan, and `index/count`."""
_BLOCK = 8 * 2**20


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    bytes: int
    sha256: str


class _Stages(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    plan: str
    files: list[list[_File]]


@dataclass(frozen=True, slots=True)
class ExtractedStages:
    """Stages on disk. models[i]: the model file of stage i."""

    plan: Plan
    folder: Path
    models: tuple[Path, ...]


def stage_folder(index: int) -> str:
    """Name of a stage's folder."""
    return f"stage-{index}"


def extract(
    plan: Plan,
    model_path: Path,
    out_dir: Path,
    progress: Progress = silent,
    accept: Callable[[ExtractedStages], None] | None = None,
) -> ExtractedStages:
    """Write the plan and one model per stage into `out_dir`, which is created, or replaced where it holds an earlier plan.

    accept: looks at the stages while they still have a temporary name; what it raises leaves `out_dir` as it was.
    Raises PlanMismatch where the model is another than the plan's, ModelRejected where the plan does not suit it, a stage is no
    valid ONNX model, or `out_dir` holds something else.
    """
    path = find_model(model_path)
    graph = matching_graph(plan, path)
    parts = parts_of(plan, graph)
    _refuse_strangers(out_dir)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}-", suffix=".partial", dir=out_dir.parent) as name:
        partial = Path(name) / "new"
        partial.mkdir()
        files = []
        for index, part in enumerate(parts):
            progress(index, len(parts), f"writing stage {index}")
            files.append(_write_stage(plan, graph, part, index, partial / stage_folder(index)))
        stages = _Stages(plan=plan.digest, files=files)
        (partial / STAGES_FILE).write_text(stages.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (partial / PLAN_FILE).write_text(plan.to_json(), encoding="utf-8")
        if accept is not None:
            accept(_extracted(plan, partial))
        _put_in_place(partial, out_dir, Path(name) / "old")
    progress(len(parts), len(parts), "written")
    return _extracted(plan, out_dir)


def _write_stage(plan: Plan, graph: Graph, part: Part, index: int, folder: Path) -> list[_File]:
    folder.mkdir()
    metadata = {PLAN_KEY: plan.digest, STAGE_KEY: f"{index}/{len(plan.stages)}"}
    written = write_model(part_model(graph, part, metadata), graph.path, folder)
    try:
        onnx.checker.check_model(str(folder / MODEL_FILE))
    except onnx.checker.ValidationError as error:
        raise ModelRejected(f"stage {index} of {graph.path} is no valid ONNX model: {error}") from error
    return [_File(name=file.name, bytes=file.bytes, sha256=file.sha256) for file in written]


def _refuse_strangers(out_dir: Path) -> None:
    if out_dir.exists() and (not out_dir.is_dir() or (any(out_dir.iterdir()) and not (out_dir / PLAN_FILE).is_file())):
        raise ModelRejected(f"{out_dir} exists and holds no plan: name a new folder, nothing there is overwritten")


def _put_in_place(fresh: Path, target: Path, old: Path) -> None:
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    if old.exists():
        shutil.rmtree(old)


def _extracted(plan: Plan, folder: Path) -> ExtractedStages:
    return ExtractedStages(
        plan, folder, tuple(folder / stage_folder(stage.index) / MODEL_FILE for stage in plan.stages)
    )


def extract_one(plan: Plan, model_path: Path, index: int, out_dir: Path) -> None:
    """Write one stage into `out_dir`/stage-<index>, reading only the graph and this stage's weights.

    out_dir: holds the stages.json of those who had the whole model. That it is still the same model shows in what was written.
    Raises PlanMismatch where it is not, ModelRejected where the plan does not even suit it.
    """
    expected = _Stages.model_validate_json((out_dir / STAGES_FILE).read_text(encoding="utf-8"))
    graph = _typed(plan, read_graph(find_model(model_path)))
    written = _write_stage(plan, graph, parts_of(plan, graph)[index], index, out_dir / stage_folder(index))
    if expected.plan != plan.digest or written != expected.files[index]:
        raise PlanMismatch(f"{model_path} was changed since its stages were planned and verified: plan it again")


def matching_graph(plan: Plan, path: Path) -> Graph:
    """The graph of the model at `path`, with the types that the plan knows. Raises PlanMismatch where it is another model."""
    graph = read_graph(path)
    found = digest_of(files_of(graph))
    if found != plan.model.digest:
        raise PlanMismatch(f"the plan is for the model {plan.model.digest}, {path} is {found}: plan it again")
    return _typed(plan, graph)


def _typed(plan: Plan, graph: Graph) -> Graph:
    infer_types(graph)
    for name, tensor in plan.tensors.items():
        known = graph.values.get(name, Value(name))
        shape = tuple(None if dim == -1 else dim for dim in tensor.shape)
        datatype = known.onnx_type or BY_NAME[tensor.datatype].onnx
        graph.values[name] = replace(known, onnx_type=datatype, shape=known.shape if known.shape is not None else shape)
    return graph


def parts_of(plan: Plan, graph: Graph) -> tuple[Part, ...]:
    """Each stage's nodes and signature. Raises ModelRejected naming the plan's field that does not suit the graph."""
    nodes = {node.id: node for node in graph.nodes}
    owned: set[str] = set()
    parts = []
    for stage in plan.stages:
        for name in stage.nodes:
            if name not in nodes:
                raise ModelRejected(f"the plan does not suit its model: stages[{stage.index}].nodes: no node {name!r}")
        owned.update(stage.nodes)
        members = sorted((nodes[name] for name in stage.nodes), key=lambda node: node.index)
        part = stage_part(graph, members, last=stage.index == len(plan.stages) - 1)
        _compare(stage.index, "inputs", [item.name for item in stage.inputs if not item.optional], part.inputs)
        _compare(stage.index, "outputs", [item.name for item in stage.outputs], part.outputs)
        parts.append(part)
    missing = [name for name in nodes if name not in owned]
    if missing:
        raise ModelRejected(f"the plan does not suit its model: node {missing[0]!r} is in no stage")
    return tuple(parts)


def _compare(stage: int, what: str, planned: list[str], needed: tuple[str, ...]) -> None:
    difference = sorted(set(planned) ^ set(needed))
    if difference:
        word = "lacks" if difference[0] in needed else "names, without need,"
        raise ModelRejected(f"the plan does not suit its model: stages[{stage}].{what} {word} {difference[0]!r}")


def load_stages(folder: Path, *, check: bool = True) -> ExtractedStages:
    """Stages that `extract` wrote. check: compare every file's size and digest.

    Raises ModelRejected where something is missing or changed, PlanMismatch where the stages are of another plan.
    """
    plan = load_plan(folder)
    try:
        stages = _Stages.model_validate_json((folder / STAGES_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise ModelRejected(f"cannot read {folder / STAGES_FILE}: extract the plan again") from error
    if stages.plan != plan.digest or len(stages.files) != len(plan.stages):
        raise PlanMismatch(
            f"the stages in {folder} are of plan {stages.plan}, its {PLAN_FILE} is {plan.digest}: extract it again"
        )
    if check:
        for stage in plan.stages:
            check_stage(folder, stage.index)
    return _extracted(plan, folder)


def check_stage(folder: Path, index: int) -> None:
    """Compare one stage's files with what was written. Reads only that stage. Raises ModelRejected naming the file."""
    stages = _Stages.model_validate_json((folder / STAGES_FILE).read_text(encoding="utf-8"))
    for file in stages.files[index]:
        target = folder / stage_folder(index) / file.name
        size = target.stat().st_size if target.is_file() else -1
        if size != file.bytes:
            found = f"has {size} bytes" if size >= 0 else "is missing"
            raise ModelRejected(
                f"stage {index} is damaged: {target} {found}, {file.bytes} were written. Extract the plan again"
            )
        if _sha256(target) != file.sha256:
            raise ModelRejected(
                f"stage {index} is damaged: {target} was changed since it was written. Extract the plan again"
            )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()
