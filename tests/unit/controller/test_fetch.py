"""From a repository to what a stage's replica serves: planned, packed, fetched, loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from shardline.controller import contract
from shardline.controller.bundle import Bundle
from shardline.controller.fetch import fetch
from shardline.controller.planner import make_bundle
from shardline.controller.settings import FetchSettings, PlannerSettings
from shardline.core.errors import ModelRejected, PlanMismatch
from shardline.ops.settings import load
from shardline.replica.stage import load_role, parse_stage
from shardline.repository import load_spec
from tests.unit.partition import models

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository/m/1"
    folder.mkdir(parents=True)
    models.save(models.products(4), folder)
    (folder.parent / "config.pbtxt").write_text("max_batch_size: 16\n")
    return tmp_path / "repository"


def bundle_of(repository: Path, **asked: object) -> Bundle:
    return make_bundle(load(PlannerSettings, repository=str(repository), models=("m",), estimate=True, **asked))


def brought(repository: Path, cache: Path, **told: object) -> Mapping[str, str]:
    return fetch(load(FetchSettings, repository=str(repository), models=("m",), cache=str(cache), **told))


def planned(repository: Path, tmp_path: Path) -> Path:
    file = tmp_path / "plan"
    file.write_bytes(bundle_of(repository, stages=2).pack())
    return file


def test_a_stage_is_fetched_as_its_replica_expects_it(repository: Path, tmp_path: Path) -> None:
    plan = planned(repository, tmp_path)
    for index in range(2):
        told = brought(repository, tmp_path / f"cache{index}", plan=str(plan), stage_index=index)
        loaded = load_spec(Path(told[contract.ENV_REPOSITORY]), "m", int(told[contract.ENV_VERSION]))
        assert loaded.spec.batching.max_rows == 16, "the config came with it"
        folder, number = parse_stage(told[contract.ENV_STAGE])
        role, _, path = load_role(folder, number, loaded.spec, (loaded.model_path,))
        assert (role.index, len(role.graph)) == (index, 2)
        weights = [weight.name for weight in onnx.load(path).graph.initializer]
        assert 0 < len(weights) < 4
        others = [item.name for item in folder.iterdir() if item.name.startswith("stage-")]
        assert others == [f"stage-{index}"]


def test_a_model_that_changed_since_it_was_planned_is_refused_in_words(repository: Path, tmp_path: Path) -> None:
    plan = planned(repository, tmp_path)
    path = repository / "m/1/model.onnx"
    model = onnx.load(path)
    weight = model.graph.initializer[-1]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + np.float32(1), weight.name))
    onnx.save(model, path)
    with pytest.raises(PlanMismatch, match="was changed since"):
        brought(repository, tmp_path / "cache", plan=str(plan), stage_index=1)


def test_a_model_that_fits_one_pod_is_not_cut(repository: Path) -> None:
    whole = bundle_of(repository, stages=0, stage_memory_bytes=1 << 30)
    assert (whole.stages, whole.plan) == (1, "")
    assert bundle_of(repository, stages=2).stages == 2


def test_a_plan_for_a_version_that_is_not_there_says_so(repository: Path) -> None:
    with pytest.raises(ModelRejected, match="version 3"):
        bundle_of(repository, stages=2, version=3)


def test_a_whole_model_is_copied_once_and_again_when_its_files_change(repository: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = brought(repository, cache)[contract.ENV_REPOSITORY]
    assert load_spec(Path(first), "m", 1).spec.digest == load_spec(repository, "m", 1).spec.digest
    assert brought(repository, cache)[contract.ENV_REPOSITORY] == first
    models.save(models.products(5), repository / "m/1")
    second = brought(repository, cache)[contract.ENV_REPOSITORY]
    assert second != first
    assert load_spec(Path(second), "m", 1).spec.digest == load_spec(repository, "m", 1).spec.digest


def test_a_damaged_copy_is_made_anew(repository: Path, tmp_path: Path) -> None:
    first = brought(repository, tmp_path / "cache")[contract.ENV_REPOSITORY]
    (Path(first) / "m/1/model.onnx").write_bytes(b"rotten")
    second = brought(repository, tmp_path / "cache")[contract.ENV_REPOSITORY]
    assert load_spec(Path(second), "m", 1).spec.digest == load_spec(repository, "m", 1).spec.digest


@pytest.mark.parametrize("body", [b"", b"no gzip", Bundle("m", 1).pack()[:20]])
def test_a_plan_that_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(ModelRejected, match="the plan cannot be read"):
        Bundle.unpack(body)


def test_a_bundle_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    for wrong in ({"model": "../m"}, {"config_name": "../../config.pbtxt"}, {"version": 0}):
        with pytest.raises(ModelRejected):
            Bundle.unpack(replace(Bundle("m", 1), **wrong).pack())
