"""Which replica processes are started."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardline.local.failure import ClusterFailed
from shardline.local.layout import CutModel, Layout, StagedModel, expected_processes, lay_out

PLAN = Path("/plans/m")


def cut(*suggested: int, model: str = "m") -> CutModel:
    return CutModel(model, 1, PLAN, suggested)


def test_without_splits_all_replicas_serve_all_of_the_repository() -> None:
    assert lay_out(2, 8, ["a", "b"], (), []) == Layout(2)
    assert lay_out(2, 8, ["a"], ("a",), []) == Layout(2, ("a",))


def test_what_is_split_is_not_served_whole_as_well() -> None:
    layout = lay_out(2, 8, ["a", "m", "b"], (), [(cut(1, 1), ())])
    assert layout == Layout(2, ("a", "b"), (StagedModel("m", 1, PLAN, (1, 1)),))
    assert layout.processes == 4
    assert layout.warm(["a", "m", "b"]) == 2 * 2 + 2


def test_where_every_model_is_split_no_replica_serves_whole_models() -> None:
    layout = lay_out(2, 8, ["m"], (), [(cut(1, 1, 1), ())])
    assert (layout.whole, layout.processes, layout.warm(["m"])) == (0, 3, 3)


@pytest.mark.parametrize(
    ("cores", "told", "replicas"),
    [
        (2, (), (1, 1)),
        (3, (), (2, 1)),
        (2, (3, 1), (3, 1)),
    ],
)
def test_stages_are_evened_out_where_each_replica_has_a_core(
    cores: int, told: tuple[int, ...], replicas: tuple[int, ...]
) -> None:
    assert lay_out(1, cores, ["m"], (), [(cut(2, 1), told)]).staged[0].replicas == replicas


def test_a_core_is_given_away_only_once() -> None:
    layout = lay_out(1, 5, ["m", "n"], (), [(cut(2, 1), ()), (cut(2, 1, model="n"), ())])
    assert [model.replicas for model in layout.staged] == [(2, 1), (1, 1)]


def test_replicas_for_another_number_of_stages_are_refused() -> None:
    with pytest.raises(ClusterFailed, match="--stage-replicas m=2,1 is for 2 stages, the plan has 3"):
        lay_out(1, 8, ["m"], (), [(cut(1, 1, 1), (2, 1))])


def test_processes_are_counted_before_there_is_a_plan() -> None:
    assert expected_processes(2, ["a", "m"], [("m", 3)]) == 5
    assert expected_processes(2, ["m"], [("m", 3)]) == 3
