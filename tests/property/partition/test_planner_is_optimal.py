"""On small graphs no assignment of nodes to stages beats the plan's slowest stage."""

from __future__ import annotations

import random

import pytest

from shardline.core.errors import ModelRejected
from shardline.partition.planner import split
from tests.unit.partition.problems import exhaustive_ms, random_problem


@pytest.mark.parametrize("seed", range(150))
def test_no_cut_of_a_small_graph_is_better_than_the_plans(seed: int) -> None:
    dice = random.Random(seed)
    nodes = dice.choice([3, 4, 5, 6, 7, 8, 9])
    stages = dice.randint(2, min(nodes, 4 if nodes <= 7 else 3))
    given = random_problem(seed, nodes, limited=dice.random() < 0.3)
    wanted = exhaustive_ms(given, stages)
    if wanted == float("inf"):
        with pytest.raises(ModelRejected):
            split(given, stages)
    else:
        found = split(given, stages)
        assert found.slowest_ms == pytest.approx(wanted, abs=1e-9)
        assert found.bound_ms <= found.slowest_ms + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_no_cut_of_a_graph_of_twelve_nodes_is_better_than_the_plans(seed: int) -> None:
    given = random_problem(5000 + seed, 12, limited=False)
    assert split(given, 2).slowest_ms == pytest.approx(exhaustive_ms(given, 2), abs=1e-9)
