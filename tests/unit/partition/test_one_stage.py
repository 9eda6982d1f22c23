"""A pod that has one stage: it reads that stage only, and knows the whole model by its shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from shardline.core.errors import PlanMismatch
from shardline.partition.extract import check_stage, extract, extract_one, stage_folder
from shardline.partition.graph import read_graph
from shardline.partition.planning import PlanRequest, make_plan
from shardline.partition.shell import shell_of
from shardline.replica.stage import load_role
from shardline.repository import load_spec
from tests.unit.partition import models

if TYPE_CHECKING:
    from pathlib import Path

    from shardline.partition.plan import Plan

VERSION = "m/1"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A repository with one model, in two stages beside it."""
    folder = tmp_path / "repository" / VERSION
    folder.mkdir(parents=True)
    return models.save(models.products(4), folder)


@pytest.fixture
def plan(whole: Path, tmp_path: Path) -> Plan:
    made = make_plan(whole, PlanRequest(stages=2, estimate=True))
    extract(made, whole, tmp_path / "plan")
    return made


def with_shell(whole: Path, folder: Path) -> Path:
    """Put the whole model's shell into the plan's folder, as a repository."""
    target = folder / "repository" / VERSION
    target.mkdir(parents=True)
    (target / "model.onnx").write_bytes(shell_of(read_graph(whole)))
    return folder / "repository"


def beside(plan: Plan, tmp_path: Path) -> Path:
    """Another folder that knows what was written for each stage."""
    folder = tmp_path / "one"
    folder.mkdir(exist_ok=True)
    (folder / "stages.json").write_bytes((tmp_path / "plan/stages.json").read_bytes())
    return folder


def test_one_stage_alone_is_byte_for_byte_what_all_together_are(whole: Path, plan: Plan, tmp_path: Path) -> None:
    for index in range(2):
        extract_one(plan, whole, index, beside(plan, tmp_path))
        check_stage(tmp_path / "one", index)
        written = tmp_path / "one" / stage_folder(index) / "model.onnx"
        assert written.read_bytes() == (tmp_path / "plan" / stage_folder(index) / "model.onnx").read_bytes()


def test_a_weight_that_was_changed_since_is_found_in_its_stage(whole: Path, plan: Plan, tmp_path: Path) -> None:
    model = onnx.load(whole)
    weight = model.graph.initializer[-1]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + np.float32(1), weight.name))
    onnx.save(model, whole)
    folder = beside(plan, tmp_path)
    extract_one(plan, whole, 0, folder)
    with pytest.raises(PlanMismatch, match="was changed since"):
        extract_one(plan, whole, 1, folder)


def test_a_shell_says_all_that_clients_may_know_of_the_model(whole: Path, plan: Plan, tmp_path: Path) -> None:
    repository = with_shell(whole, tmp_path / "plan")
    shell, real = load_spec(repository, "m", 1), load_spec(tmp_path / "repository", "m", 1)
    assert (shell.spec.inputs, shell.spec.outputs) == (real.spec.inputs, real.spec.outputs)
    assert (shell.spec.batching, shell.config) == (real.spec.batching, real.config)
    assert shell.model_path.stat().st_size < real.model_path.stat().st_size
    assert shell_of(read_graph(whole)) == shell.model_path.read_bytes()


def test_a_stage_takes_the_shell_that_came_with_its_plan_and_no_other_model(
    whole: Path, plan: Plan, tmp_path: Path
) -> None:
    folder = tmp_path / "plan"
    loaded = load_spec(with_shell(whole, folder), "m", 1)
    role, spec, path = load_role(folder, 1, loaded.spec, (loaded.model_path,))
    assert (role.plan, role.index, spec.stages) == (plan.digest, 1, 2)
    assert path == folder / stage_folder(1) / "model.onnx"
    elsewhere = load_spec(with_shell(whole, tmp_path / "elsewhere"), "m", 1)
    with pytest.raises(PlanMismatch, match="plan it anew"):
        load_role(folder, 1, elsewhere.spec, (elsewhere.model_path,))
