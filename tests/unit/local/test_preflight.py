"""Which models of a repository will be served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardline.core.models import Stages
from shardline.local.failure import ClusterFailed
from shardline.local.preflight import CheckedModels, check_models, choose
from shardline.repository import FoundModel
from tests import onnx_models

if TYPE_CHECKING:
    from pathlib import Path

GOOD = FoundModel("good", versions=(1,))
HALF = FoundModel("half", versions=(1,), broken={2: "not an ONNX model"})
BAD = FoundModel("bad", reason="config.pbtxt: no such field 'x'")


def test_a_good_repository_is_served_whole_and_new_models_may_join() -> None:
    checked = choose("r", [GOOD], [], keep_going=False)
    assert checked == CheckedModels(("good",), (), (), {"good": Stages()}, {"good": (1,)})


def test_named_models_are_the_only_ones_and_need_no_good_neighbours() -> None:
    checked = choose("r", [GOOD, BAD], ["good", "good"], keep_going=False)
    assert (checked.models, checked.limit_to, checked.left_out) == (("good",), ("good",), ())


def test_what_configs_ask_of_splitting_is_known_before_anything_is_started(tmp_path: Path) -> None:
    config = 'parameters { key: "shardline.stages" value { string_value: "3" } }'
    onnx_models.save(tmp_path, "split", 2, onnx_models.add_one(), config)
    onnx_models.save(tmp_path, "whole", 1, onnx_models.add_one())
    checked = check_models(str(tmp_path), [], keep_going=False)
    assert checked.stages == {"split": Stages(3), "whole": Stages()}
    assert checked.versions == {"split": (2,), "whole": (1,)}


@pytest.mark.parametrize(
    ("found", "words"), [([GOOD, BAD], "model bad: config.pbtxt"), ([GOOD, HALF], "model half version 2: not an ONNX")]
)
def test_one_broken_model_or_version_stops_the_start_and_says_why(found: list[FoundModel], words: str) -> None:
    with pytest.raises(ClusterFailed, match=words) as raised:
        choose("r", found, [], keep_going=False)
    assert "--keep-going" in str(raised.value)


def test_keep_going_serves_the_good_and_tells_what_was_left_out() -> None:
    checked = choose("r", [GOOD, BAD], [], keep_going=True)
    assert (checked.models, checked.limit_to) == (("good",), ("good",))
    assert "bad" in checked.left_out[0]


def test_a_model_with_one_good_version_is_kept_when_going_on() -> None:
    checked = choose("r", [GOOD, HALF], [], keep_going=True)
    assert checked.models == ("good", "half")
    assert "version 2" in checked.left_out[0]


@pytest.mark.parametrize(
    ("found", "wanted", "keep_going", "words"),
    [
        ([GOOD], ["other"], False, "no model other in r; it holds good"),
        ([BAD], [], True, "no model in r can be served"),
    ],
)
def test_nothing_to_serve_is_an_error(found: list[FoundModel], wanted: list[str], keep_going: bool, words: str) -> None:
    with pytest.raises(ClusterFailed, match=words):
        choose("r", found, wanted, keep_going=keep_going)


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterFailed, match="nowhere"):
        check_models(str(tmp_path / "nowhere"), [], keep_going=False)
