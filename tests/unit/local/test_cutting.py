"""How the planning process finds, makes, keeps and refuses stages."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shardline.core.errors import ModelRejected, PlanMismatch, ServingError
from shardline.local.cutting import Cut, Order, Teller, carry_out
from shardline.local.verified import VERIFIED_FILE
from shardline.partition.extract import extract
from shardline.partition.planning import PlanRequest, make_plan
from tests import onnx_models
from tests.unit.partition import models


class Told:
    """What the planning process wrote."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.teller = Teller("products", lambda line: self.lines.append(json.loads(line)))

    @property
    def steps(self) -> list[str]:
        return list(dict.fromkeys(line["step"] for line in self.lines if "step" in line))

    @property
    def notes(self) -> str:
        return "\n".join(line["note"] for line in self.lines if "note" in line)


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """Two stages of a model of six products."""
    onnx_models.save(tmp_path / "models", "products", 1, models.products(6), "max_batch_size: 4")
    return Order(str(tmp_path / "models"), "products", 1, str(tmp_path / "cache"), stages=2, estimate=True)


def cut(order: Order) -> tuple[Cut, Told]:
    told = Told()
    return carry_out(order, told.teller), told


def kept(order: Order) -> list[str]:
    return sorted(path.name for path in Path(order.cache).glob("*") if path.suffix != ".lock")


def test_stages_are_planned_verified_and_kept_for_the_next_start(order: Order) -> None:
    first, told = cut(order)
    assert told.steps[-1] == "verifying the stages of products"
    assert first.suggested == (1, 1)
    again, told_again = cut(order)
    assert again == first
    assert told_again.steps == ["checking the stages of products"]
    assert len(kept(order)) == 1


def test_another_request_or_another_model_does_not_find_them(order: Order, tmp_path: Path) -> None:
    cut(order)
    cut(replace(order, stages=3))
    onnx_models.save(tmp_path / "models", "products", 1, models.products(7), "max_batch_size: 4")
    cut(order)
    assert len(kept(order)) == 3


@pytest.mark.parametrize("damage", ["stage", "plan", "record"])
def test_what_was_damaged_since_is_made_anew_and_the_user_is_told(order: Order, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "cache" / kept_name(order)
    if damage == "stage":
        (folder / "stage-1" / "model.onnx").write_bytes(b"cut short")
    elif damage == "plan":
        (folder / "plan.json").write_text("{}")
    else:
        (folder / VERIFIED_FILE).unlink()
    _, told = cut(order)
    assert "kept stages are made anew" in told.notes
    assert (folder / VERIFIED_FILE).is_file()
    _, after = cut(order)
    assert after.notes == ""


def kept_name(order: Order) -> str:
    cut(order)
    return kept(order)[0]


def test_what_a_killed_planner_left_is_removed(order: Order) -> None:
    left = Path(order.cache) / f".{kept_name(order)}-abc.partial"
    (left / "new").mkdir(parents=True)
    cut(order)
    assert not left.exists()


def test_stages_that_do_not_answer_as_the_whole_are_not_kept(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModelRejected("the stages do not answer as the whole model does")

    monkeypatch.setattr("shardline.local.verified.verify", refuse)
    with pytest.raises(ModelRejected, match="do not answer as the whole"):
        cut(order)
    assert kept(order) == []


def test_a_model_that_fits_the_memory_is_not_split(order: Order) -> None:
    found, _ = cut(replace(order, stages=0, memory_bytes=1 << 30))
    assert found == Cut("", (1,))


def test_a_model_above_the_memory_is_split_into_as_few_stages_as_fit(order: Order, tmp_path: Path) -> None:
    onnx_models.save(tmp_path / "models", "products", 1, models.products(6), "max_batch_size: 4")
    # Weights of 256 bytes each beside an overhead that is told: three products fit, four do not.
    found, _ = cut(replace(order, stages=0, memory_bytes=4096 + 1100, overhead_bytes=4096))
    assert len(found.suggested) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stages": 99}, "at most 6"),
        ({"stages": 0, "memory_bytes": 5000, "overhead_bytes": 4990}, "needs"),
        ({"stages": 0, "memory_bytes": 1024}, "memory per pod is"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(order: Order, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ServingError, match=says) as caught:
        cut(replace(order, **changes))
    assert "\n" not in caught.value.message
    assert kept(order) == []


def test_one_giant_node_cannot_be_cut(tmp_path: Path) -> None:
    onnx_models.save(tmp_path / "models", "giant", 1, onnx_models.matmul())
    with pytest.raises(ModelRejected, match="cannot be cut into 2 stages"):
        cut(Order(str(tmp_path / "models"), "giant", 1, str(tmp_path / "cache"), stages=2, estimate=True))


def test_a_missing_external_file_is_named(tmp_path: Path) -> None:
    folder = onnx_models.save(tmp_path / "models", "m", 1, onnx_models.with_external_data(tmp_path / "models/m/1"))
    (folder / "weights.bin").unlink()
    with pytest.raises(ModelRejected, match=r"weights\.bin"):
        cut(Order(str(tmp_path / "models"), "m", 1, str(tmp_path / "cache"), stages=2, estimate=True))


@pytest.fixture
def given(order: Order, tmp_path: Path) -> Order:
    """The order with a plan that was made, but not verified, before."""
    model = tmp_path / "models" / "products" / "1" / "model.onnx"
    extract(make_plan(model, PlanRequest(stages=3, estimate=True)), model, tmp_path / "plan")
    return replace(order, plan=str(tmp_path / "plan"))


def test_a_given_plan_is_served_from_where_it_is_and_verified_once(given: Order, tmp_path: Path) -> None:
    found, told = cut(given)
    assert found == Cut(str(tmp_path / "plan"), (1, 1, 1))
    assert "verifying the stages of products" in told.steps
    _, again = cut(given)
    assert again.steps == ["checking the stages of products"]


def test_a_plan_edited_by_hand_names_the_field(given: Order, tmp_path: Path) -> None:
    plan = tmp_path / "plan" / "plan.json"
    document = json.loads(plan.read_text())
    document["stages"][1]["nodes"] = document["stages"][0]["nodes"]
    plan.write_text(json.dumps(document))
    with pytest.raises(ModelRejected, match=r"is no valid plan: .*stages\[1\]\.nodes"):
        cut(given)


def test_a_damaged_stage_of_a_given_plan_is_refused_by_name(given: Order, tmp_path: Path) -> None:
    (tmp_path / "plan" / "stage-2" / "model.onnx").write_bytes(b"x")
    with pytest.raises(ModelRejected, match="stage 2 is damaged"):
        cut(given)


def test_a_plan_for_another_model_is_refused(given: Order, tmp_path: Path) -> None:
    onnx_models.save(tmp_path / "models", "products", 1, models.products(5), "max_batch_size: 4")
    with pytest.raises(PlanMismatch, match="is for another model than"):
        cut(given)


def test_stages_of_two_plans_in_one_folder_are_refused(given: Order, tmp_path: Path) -> None:
    model = tmp_path / "models" / "products" / "1" / "model.onnx"
    extract(make_plan(model, PlanRequest(stages=3, estimate=True, batch=2)), model, tmp_path / "other")
    shutil.copy(tmp_path / "other" / "plan.json", tmp_path / "plan" / "plan.json")
    with pytest.raises(PlanMismatch, match="extract it again"):
        cut(given)
