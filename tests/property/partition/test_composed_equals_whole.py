"""Promise P7 on hundreds of random graphs: however a model is cut, its stages answer as it does."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from shardline.core.errors import ModelRejected
from shardline.partition.extract import extract, load_stages
from shardline.partition.planning import PlanRequest, make_plan
from shardline.partition.verify import verify
from tests.property.partition.graphs import random_model, save

if TYPE_CHECKING:
    from pathlib import Path

    from shardline.partition.plan import Plan

BLOCKS, PER_BLOCK = 10, 30


def plan_if_cuttable(path: Path, stages: int) -> Plan | None:
    try:
        return make_plan(path, PlanRequest(stages=stages, batch=3, estimate=True))
    except ModelRejected as error:
        if "cannot be cut into" not in error.message:
            raise
        return None


@pytest.mark.parametrize("block", range(BLOCKS))
def test_stages_of_any_graph_answer_as_the_whole_does(block: int, tmp_path: Path) -> None:
    cut = 0
    for seed in range(block * PER_BLOCK, (block + 1) * PER_BLOCK):
        path = save(random_model(seed), tmp_path)
        stages = random.Random(seed).randint(2, 4)
        plan = plan_if_cuttable(path, stages)
        if plan is None:
            continue
        assert len(plan.stages) == stages
        extract(plan, path, tmp_path / "stages")
        report = verify(load_stages(tmp_path / "stages"), path, random_inputs=2)
        assert report.equal, f"seed {seed}: {report}"
        cut += 1
    assert cut > PER_BLOCK // 2, (
        f"only {cut} of {PER_BLOCK} graphs could be cut: the generator or the planner got worse"
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_measured_plan_answers_as_the_whole_does(seed: int, tmp_path: Path) -> None:
    path = save(random_model(1000 + seed, most_nodes=30), tmp_path)
    plan = make_plan(path, PlanRequest(stages=2, batch=2))
    assert plan.assumptions.costs == "measured"
    assert verify(extract(plan, path, tmp_path / "stages"), path).equal
