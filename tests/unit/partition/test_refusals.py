"""Bad models and bad plans get one clear error, and nothing is half-written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import onnx
import pytest

from shardline.core.errors import InvalidRequest, ModelRejected, NotFound
from shardline.partition.extract import extract
from shardline.partition.plan import parse_plan
from shardline.partition.planning import PlanRequest, find_model, make_plan
from tests.unit.partition import models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    path = models.save(models.products(4), tmp_path)
    return dict(json.loads(make_plan(path, PlanRequest(stages=2, estimate=True)).to_json()))


def edited(change: Callable[[Any], object]) -> Callable[[Any], object]:
    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda plan: plan.update(extra=1), "extra"),
        (lambda plan: plan.update(schema_version=2), "schema_version"),
        (lambda plan: plan["stages"][1].update(index=5), r"stages\[1\].index"),
        (lambda plan: plan["stages"][1]["nodes"].append("product0"), r"stages\[1\].nodes"),
        (lambda plan: plan["stages"][1]["inputs"][0].update(source="router"), r"stages\[1\].inputs\[0\]"),
        (lambda plan: plan["stages"][1]["inputs"][0].update(source=1), r"stages\[1\].inputs\[0\]"),
        (lambda plan: plan["stages"][1]["inputs"][0].update(name="other"), r"stages\[1\].inputs\[0\]"),
        (lambda plan: plan["stages"][0]["outputs"][0].update(consumers=[]), r"stages\[0\].outputs\[0\].consumers"),
        (lambda plan: plan["stages"][1].update(received_bytes=1), r"stages\[1\].received_bytes"),
        (lambda plan: plan.update(slowest_ms=0.0), "slowest_ms"),
        (lambda plan: plan["assumptions"].update(memory_per_pod=5), "memory_bytes"),
        (lambda plan: plan["model"].update(digest="none"), "model.digest"),
        (lambda plan: plan["tensors"]["x"].update(datatype="FP31"), "tensors.x.datatype"),
        (lambda plan: plan["stages"][0].update(compute_ms=-1.0), r"stages\[0\].compute_ms"),
    ],
)
def test_a_plan_edited_to_be_inconsistent_is_refused_by_its_field(
    change: Callable[[Any], object], field: str, document: dict[str, Any]
) -> None:
    parse_plan(json.dumps(document))
    change(document)
    with pytest.raises(ModelRejected, match=field):
        parse_plan(json.dumps(document))


def test_a_consistent_plan_that_does_not_suit_its_model_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    document["stages"][0]["nodes"].remove("product0")
    plan = parse_plan(json.dumps(document))
    with pytest.raises(ModelRejected, match="does not suit its model"):
        extract(plan, tmp_path / "model.onnx", tmp_path / "out")
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


def test_a_plan_read_again_is_the_same_plan(document: dict[str, Any]) -> None:
    plan = parse_plan(json.dumps(document))
    assert parse_plan(plan.to_json()).digest == plan.digest


@pytest.mark.parametrize("size", [0, 1, 40, 200])
def test_a_model_cut_short_is_refused(size: int, tmp_path: Path) -> None:
    path = models.save(models.products(3), tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelRejected):
        make_plan(path, PlanRequest(stages=2, estimate=True))


def external(tmp_path: Path, location: str) -> Path:
    model = models.products(3)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="256")
    return models.save(model, tmp_path)


def test_a_missing_external_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match=r"lost\.bin, which is missing"):
        make_plan(external(tmp_path, "lost.bin"), PlanRequest(stages=2, estimate=True))


def test_an_external_file_that_is_too_short_is_named(tmp_path: Path) -> None:
    (tmp_path / "short.bin").write_bytes(b"0" * 10)
    with pytest.raises(ModelRejected, match="cut short"):
        make_plan(external(tmp_path, "short.bin"), PlanRequest(stages=2, estimate=True))


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", ""])
def test_weights_outside_the_models_folder_are_never_read(location: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="outside the model's folder"):
        make_plan(external(tmp_path, location), PlanRequest(stages=2, estimate=True))


def test_a_memory_limit_that_no_node_fits_names_node_and_weight(tmp_path: Path) -> None:
    path = models.save(models.products(3), tmp_path)
    with pytest.raises(ModelRejected, match=r"node 'product\d' needs .* weight 'w\d'"):
        make_plan(path, PlanRequest(memory_per_pod=200, overhead_bytes=0, estimate=True))


def test_more_stages_than_cuts_are_refused_with_how_many_there_are(tmp_path: Path) -> None:
    path = models.save(models.products(3), tmp_path)
    with pytest.raises(ModelRejected, match="at most 3"):
        make_plan(path, PlanRequest(stages=9, estimate=True))


def test_an_unknown_dimension_is_refused_with_those_there_are(tmp_path: Path) -> None:
    path = models.save(models.products(3), tmp_path)
    with pytest.raises(InvalidRequest, match="no dimension 'seq'; it has batch"):
        make_plan(path, PlanRequest(stages=2, dims={"seq": 8}, estimate=True))


def test_the_newest_version_of_a_models_folder_is_planned(tmp_path: Path) -> None:
    for version in ("1", "10", "9"):
        (tmp_path / version).mkdir()
        models.save(models.products(2), tmp_path / version)
    assert find_model(tmp_path).parent.name == "10"
    with pytest.raises(NotFound):
        find_model(tmp_path / "none")
