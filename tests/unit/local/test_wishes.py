"""What may be asked of splitting, by whom, and what is said where it makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardline.core.models import Stages
from shardline.local.failure import ClusterFailed
from shardline.local.wishes import Wish, parse_wishes, wanted_splits

WHOLE = Stages()


def test_stages_are_a_number_auto_a_size_or_a_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    given = parse_wishes(["a=3", "b=auto", "c=8Gi", f"d={tmp_path}"], ["a=2,1,1"])
    assert given == {
        "a": Wish(Stages(3), replicas=(2, 1, 1)),
        "b": Wish(Stages(0)),
        "c": Wish(Stages(0, 8 << 30)),
        "d": Wish(plan=tmp_path),
    }


@pytest.mark.parametrize(
    ("stages", "replicas", "says"),
    [
        (["minilm"], [], "--stages minilm: write MODEL=N"),
        (["minilm="], [], "--stages minilm=: write MODEL=N"),
        (["minilm=many"], [], "--stages minilm=many: write MODEL=N"),
        (["minilm=0"], [], "--stages minilm=0: write MODEL=N"),
        (["minilm=./nowhere"], [], "nowhere holds no plan.json"),
        ([], ["minilm=two"], "--stage-replicas minilm=two: write MODEL=2,1"),
        ([], ["minilm=2,0"], "--stage-replicas minilm=2,0: write MODEL=2,1"),
        ([], ["minilm"], "--stage-replicas minilm: write MODEL=2,1"),
    ],
)
def test_what_is_not_understood_is_named_with_its_forms(stages: list[str], replicas: list[str], says: str) -> None:
    with pytest.raises(ClusterFailed) as caught:
        parse_wishes(stages, replicas)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line_goes_before_a_models_config() -> None:
    configured = {"a": Stages(2), "b": Stages(0), "c": WHOLE, "d": Stages(3)}
    given = parse_wishes(["a=1", "c=4"], ["d=1,1,2"])
    assert wanted_splits(configured, given) == {
        "b": Wish(Stages(0)),
        "c": Wish(Stages(4)),
        "d": Wish(Stages(3), replicas=(1, 1, 2)),
    }


@pytest.mark.parametrize(
    ("stages", "replicas", "says"),
    [
        (["c=2"], [], "--stages c=…: no such model is served; there are a, b"),
        ([], ["c=2"], "--stage-replicas c=…: no such model is served"),
        ([], ["a=2,1"], "--stage-replicas a=…: the model is not split; --stages a=2 splits it"),
    ],
)
def test_models_that_are_not_served_or_not_split_are_named(stages: list[str], replicas: list[str], says: str) -> None:
    with pytest.raises(ClusterFailed) as caught:
        wanted_splits({"a": WHOLE, "b": Stages(2)}, parse_wishes(stages, replicas))
    assert says in str(caught.value)


def test_two_stages_are_expected_of_a_split_whose_number_is_not_known_yet() -> None:
    wishes = (Wish(), Wish(Stages(0)), Wish(Stages(3)), Wish(plan=Path("/p")))
    assert [wish.least_stages for wish in wishes] == [1, 2, 3, 2]
