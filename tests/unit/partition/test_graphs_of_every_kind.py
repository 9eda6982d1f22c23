"""Whatever a graph holds, its stages are valid models and answer as the whole does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from shardline.core.errors import ModelRejected, PlanMismatch
from shardline.partition import parts
from shardline.partition.extract import extract, load_stages
from shardline.partition.graph import read_graph
from shardline.partition.planning import PlanRequest, make_plan
from shardline.partition.verify import difference, verify
from tests.unit.partition import models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("estimate", [True, False])
@pytest.mark.parametrize(
    ("make", "stages"),
    [
        (lambda: models.products(4), 3),
        (lambda: models.products(4, np.float16, TensorProto.FLOAT16), 2),
        (models.with_function, 3),
        (models.with_loop, 3),
        (models.with_odd_ends, 2),
        (models.quantised, 3),
        (models.with_sequence, 2),
        (models.with_batch_size, 3),
    ],
    ids=["products", "fp16", "functions", "loop", "odd ends", "quantised", "sequence", "batch size"],
)
def test_stages_answer_as_the_whole_model_does(
    make: Callable[[], onnx.ModelProto], stages: int, estimate: bool, tmp_path: Path
) -> None:
    path = models.save(make(), tmp_path)
    plan = make_plan(path, PlanRequest(stages=stages, batch=2, estimate=estimate))
    assert len(plan.stages) == stages
    assert verify(extract(plan, path, tmp_path / "out"), path).equal


def test_a_loop_is_one_node_and_reads_what_its_body_captures(tmp_path: Path) -> None:
    graph = read_graph(models.save(models.with_loop(), tmp_path))
    loop = next(node for node in graph.nodes if node.op == "Loop")
    assert set(loop.reads) == {"h", "outside"}
    assert set(loop.weights) == {"w", "turns", "start"}


def test_dequantised_weights_are_copied_like_weights_and_never_sent(tmp_path: Path) -> None:
    path = models.save(models.quantised(), tmp_path)
    plan = make_plan(path, PlanRequest(stages=3, estimate=True))
    sent = {output.name for stage in plan.stages for output in stage.outputs}
    assert not sent & {"d0", "d1", "d2"}
    assert [stage.copied_nodes for stage in plan.stages] == [1, 1, 1]


def test_a_batch_size_is_computed_anew_in_each_stage_that_reads_it(tmp_path: Path) -> None:
    path = models.save(models.with_batch_size(), tmp_path)
    plan = make_plan(path, PlanRequest(stages=3, batch=3, estimate=True))
    assert all(plan.tensors[item.name].batch_axis for stage in plan.stages for item in stage.inputs)
    assert any(item.name == "x" for item in plan.stages[2].inputs)


def test_a_value_that_is_no_tensor_never_crosses_a_cut(tmp_path: Path) -> None:
    path = models.save(models.with_sequence(), tmp_path)
    plan = make_plan(path, PlanRequest(stages=3))
    assert ["parted", "joined"] in [stage.nodes for stage in plan.stages]


def test_each_stage_file_holds_its_own_weights_and_functions_only(tmp_path: Path) -> None:
    path = models.save(models.products(4), tmp_path)
    stages = extract(make_plan(path, PlanRequest(stages=2, estimate=True)), path, tmp_path / "out")
    held = [{tensor.name for tensor in onnx.load(file).graph.initializer} for file in stages.models]
    assert held == [{"w0", "w1"}, {"w2", "w3"}]
    words = {prop.key: prop.value for prop in onnx.load(stages.models[1]).metadata_props}
    assert words == {"shardline.plan": stages.plan.digest, "shardline.stage": "1/2"}


def test_weights_above_the_threshold_lie_in_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "EXTERNAL_FROM_BYTES", 10)
    monkeypatch.setattr("shardline.partition.skeleton.INLINE_BYTES", 16)
    path = models.save(models.products(4), tmp_path)
    stages = extract(make_plan(path, PlanRequest(stages=2, estimate=True)), path, tmp_path / "out")
    assert all(file.with_name("model.onnx.data").is_file() for file in stages.models)
    assert verify(load_stages(tmp_path / "out"), path).equal


def test_what_an_earlier_plan_wrote_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = models.save(models.products(4), tmp_path)
    plan = make_plan(path, PlanRequest(stages=2, estimate=True))
    extract(plan, path, tmp_path / "out")
    assert len(extract(plan, path, tmp_path / "out").models) == 2
    assert [item.name for item in sorted(tmp_path.iterdir())] == ["model.onnx", "out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelRejected, match="holds no plan"):
        extract(plan, path, tmp_path / "mine")


def test_a_plan_for_another_model_is_refused_with_both_digests(tmp_path: Path) -> None:
    path = models.save(models.products(4), tmp_path)
    plan = make_plan(path, PlanRequest(stages=2, estimate=True))
    models.save(models.products(5), tmp_path)
    with pytest.raises(PlanMismatch) as refusal:
        extract(plan, path, tmp_path / "out")
    assert plan.model.digest in refusal.value.message
    assert refusal.value.message.count("sha256:") == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut short", "changed", "gone"])
def test_a_damaged_stage_file_is_named(damage: str, tmp_path: Path) -> None:
    path = models.save(models.products(4), tmp_path)
    file = extract(make_plan(path, PlanRequest(stages=2, estimate=True)), path, tmp_path / "out").models[1]
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if damage == "cut short" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ModelRejected, match="stage 1 is damaged"):
        load_stages(tmp_path / "out")


def test_a_stage_of_another_plan_is_refused(tmp_path: Path) -> None:
    path = models.save(models.products(4), tmp_path)
    extract(make_plan(path, PlanRequest(stages=2, estimate=True)), path, tmp_path / "out")
    other = make_plan(path, PlanRequest(stages=2, batch=2, estimate=True))
    (tmp_path / "out" / "plan.json").write_text(other.to_json())
    with pytest.raises(PlanMismatch):
        load_stages(tmp_path / "out")


def test_stages_that_answer_otherwise_are_not_verified(tmp_path: Path) -> None:
    path = models.save(models.products(4), tmp_path)
    stages = extract(make_plan(path, PlanRequest(stages=2, estimate=True)), path, tmp_path / "out")
    changed = onnx.load(stages.models[1])
    changed.graph.initializer[0].raw_data = models.array(models.WIDTH, models.WIDTH, seed=99).tobytes()
    stages.models[1].write_bytes(changed.SerializeToString())
    with pytest.raises(ModelRejected, match="output 'y' is off by"):
        verify(stages, path)


@pytest.mark.parametrize(
    ("expected", "actual", "equal"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0, 2.1], False),
        ([1.0, float("nan")], [1.0, float("nan")], True),
        ([1.0, float("nan")], [1.0, 2.0], False),
        ([1.0, float("inf")], [1.0, float("-inf")], False),
        ([1.0], [1.0, 1.0], False),
    ],
)
def test_answers_are_compared_by_value_with_nan_equal_to_nan(
    expected: list[float], actual: list[float], equal: bool
) -> None:
    _, relative = difference(np.array(expected, np.float32), np.array(actual, np.float32), "FP32")
    assert (relative <= 1e-5) == equal
