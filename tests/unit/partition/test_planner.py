"""What the planner decides, in tables."""

from __future__ import annotations

import pytest

from shardline.core.errors import ModelRejected
from shardline.partition.planner import Split, replicas_for, split
from shardline.partition.problem import Costing, Item, Problem, bits
from tests.unit.partition.problems import chain, inception, problem


def names(given: Problem, found: Split) -> list[list[str]]:
    return [[given.items[at].id for at in bits(stage)] for stage in found.stages]


def independent_pairs(given: Problem, found: Split) -> list[tuple[int, int]]:
    """Pairs of stages neither of which depends on the other, directly or by others."""
    costing = Costing(given)
    after: list[set[int]] = []
    for at, stage in enumerate(found.stages):
        needed = costing.received(stage)
        direct = {other for other in range(at) if needed & costing.sent(found.stages[other])}
        after.append(direct.union(*(after[other] for other in direct)))
    return [(a, b) for b in range(len(after)) for a in range(b) if a not in after[b]]


@pytest.mark.parametrize(
    ("ms", "stages", "wanted"),
    [
        ((1, 1, 1, 1), 2, [["n0", "n1"], ["n2", "n3"]]),
        ((5, 1, 1, 1), 2, [["n0"], ["n1", "n2", "n3"]]),
        ((1, 1, 1, 5), 3, None),
        ((3,), 1, [["n0"]]),
    ],
)
def test_a_chain_is_cut_where_its_slowest_stage_is_fastest(
    ms: tuple[float, ...], stages: int, wanted: list[list[str]] | None
) -> None:
    given = chain(*ms)
    found = split(given, stages)
    assert len(found.stages) == stages
    assert found.slowest_ms >= found.bound_ms
    if wanted:
        assert names(given, found) == wanted
    else:
        assert found.slowest_ms == 5


def test_a_large_tensor_is_not_cut_where_a_small_one_can_be() -> None:
    given = chain(1, 1, 1, 1, value_bytes={"v2": 5000, "v1": 10, "v3": 10}, bytes_per_ms=1000.0)
    found = split(given, 2)
    assert found.slowest_ms < 4
    assert [cost.received_bytes for cost in found.costs] == [0, 10]


def test_branches_of_an_inception_block_run_side_by_side() -> None:
    given = inception(branches=4, depth=2)
    found = split(given, 4)
    pairs = independent_pairs(given, found)
    assert pairs, names(given, found)
    in_branches = [{name[:2] for name in stage if name.startswith("b")} for stage in names(given, found)]
    assert any(in_branches[a] and in_branches[b] for a, b in pairs)
    assert found.latency_ms < given.total_ms


def test_a_wide_and_shallow_graph_runs_side_by_side() -> None:
    given = inception(branches=24, depth=1)
    found = split(given, 4)
    assert independent_pairs(given, found)
    assert found.slowest_ms == pytest.approx(6.1, abs=0.11)
    assert found.latency_ms < given.total_ms * 0.8


def test_a_graph_too_wide_to_search_is_planned_near_the_bound_and_says_so() -> None:
    given = inception(branches=60, depth=3, ms=0.7)
    found = split(given, 4)
    assert found.slowest_ms <= found.bound_ms * 1.05
    assert found.notes


def test_as_few_stages_as_fit_the_memory_are_taken_where_no_number_is_given() -> None:
    weights = {f"w{at}": 100 for at in range(6)}
    assert len(split(chain(*[1.0] * 6, weight_bytes=weights, memory_bytes=700)).stages) == 1
    assert len(split(chain(*[1.0] * 6, weight_bytes=weights, memory_bytes=300)).stages) == 2
    assert len(split(chain(*[1.0] * 6, weight_bytes=weights, memory_bytes=150)).stages) == 6


def test_memory_moves_a_cut_away_from_even_times() -> None:
    given = chain(1, 1, 1, 1, weight_bytes={"w0": 900, "w1": 900, "w2": 10, "w3": 10}, memory_bytes=1000)
    assert names(given, split(given, 2)) == [["n0"], ["n1", "n2", "n3"]]


def test_a_weight_shared_by_two_nodes_counts_once_per_stage() -> None:
    items = (Item("a", 1, ("x",), ("y",), ("w",)), Item("b", 1, ("y",), ("z",), ("w",)))
    given = problem(items, {"x"}, {"z"}, weight_bytes={"w": 100})
    assert [cost.weight_bytes for cost in split(given, 1).costs] == [100]
    assert [cost.weight_bytes for cost in split(given, 2).costs] == [100, 100]


def test_a_value_that_must_not_cross_keeps_its_nodes_together() -> None:
    given = chain(1, 1, 1, 1, bound=frozenset({"v2"}))
    assert ["n1", "n2"] in names(given, split(given, 3))


def test_peak_activations_count_what_is_alive_at_once() -> None:
    sizes = {"v0": 10, "v1": 20, "v2": 5, "v3": 1}
    costing = Costing(chain(1, 1, 1, value_bytes=sizes))
    assert costing.peak_bytes(0b111) == 30
    assert costing.peak_bytes(0b100) == 6


@pytest.mark.parametrize(
    ("given", "stages", "words"),
    [
        (chain(1, 1), 3, "at most 2"),
        (chain(1), 2, "'n0' cannot be divided"),
        (chain(1, 1), 0, "1 stage or more"),
        (chain(1, 1, weight_bytes={"w1": 2**21}, memory_bytes=2**20), 2, "weight 'w1' has 2.0 MiB"),
        (
            chain(1, 1, 1, weight_bytes={f"w{n}": 60 for n in range(3)}, memory_bytes=100),
            2,
            "no split into 2 stages fits",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused_with_what_stands_in_the_way(given: Problem, stages: int, words: str) -> None:
    with pytest.raises(ModelRejected) as refusal:
        split(given, stages)
    assert words in refusal.value.message


@pytest.mark.parametrize(
    ("busy_ms", "pods", "wanted"),
    [
        ((10, 10), None, (1, 1)),
        ((10, 20, 10), None, (1, 2, 1)),
        ((1, 20, 19), None, (1, 2, 2)),
        ((10, 20), 5, (2, 3)),
    ],
)
def test_slow_stages_get_more_replicas(busy_ms: tuple[float, ...], pods: int | None, wanted: tuple[int, ...]) -> None:
    assert replicas_for(busy_ms, pods) == wanted
