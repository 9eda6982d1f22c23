from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from google.protobuf import json_format, text_format

from shardline.core.errors import InvalidRequest, ModelRejected, NotFound
from shardline.repository import IndexEntry, LoadOptions, find_model, load_spec, repository_index, scan
from tests import onnx_models

if TYPE_CHECKING:
    from pathlib import Path


def test_a_missing_or_empty_repository_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot be read: No such file") as missing:
        scan(tmp_path / "nowhere")
    with pytest.raises(NotFound, match=r"holds no models; a model lies in <model>/<version>/model\.onnx") as empty:
        scan(tmp_path)
    assert "\n" not in missing.value.message + empty.value.message
    assert scan(tmp_path, allow_empty=True) == ()


def test_an_odd_folder_name_in_an_otherwise_empty_repository_is_told(tmp_path: Path) -> None:
    (tmp_path / "my model").mkdir()
    with pytest.raises(NotFound, match="folder 'my model': not a model name"):
        scan(tmp_path)


def test_a_broken_model_does_not_hide_the_others(tmp_path: Path) -> None:
    onnx_models.save(tmp_path, "good", 1, onnx_models.add_one())
    onnx_models.save(tmp_path, "corrupt", 1, b"rubbish")
    onnx_models.save(tmp_path, "misconfigured", 1, onnx_models.add_one(), "max_batchsize: 4")
    onnx_models.save(tmp_path, "contradicts", 1, onnx_models.no_batch_axis(), "max_batch_size: 4")
    onnx_models.save(tmp_path, "policy", 1, onnx_models.add_one(), "version_policy { specific { versions: 7 } }")
    (tmp_path / "empty").mkdir()
    (tmp_path / "escape").symlink_to("/usr")
    (tmp_path / "unfinished" / "1").mkdir(parents=True)
    found = {model.name: model for model in scan(tmp_path)}
    assert [name for name, model in found.items() if model.ok] == ["good"]
    assert found["good"].reason == ""
    for name, reason in {
        "corrupt": "version 1: ",
        "misconfigured": "config.pbtxt:1: ",
        "contradicts": "max_batch_size is 4",
        "policy": "version 7 does not exist; available: 1",
        "empty": "it has no versions",
        "escape": "is a link that leaves the model repository",
        "unfinished": "it has no versions; version 1: holds no model.onnx",
    }.items():
        assert reason in found[name].reason, name
        assert "\n" not in found[name].reason


def test_a_broken_version_does_not_hide_the_other_versions(tmp_path: Path) -> None:
    onnx_models.save(tmp_path, "m", 1, onnx_models.add_one(), "version_policy { all {} }")
    onnx_models.save(tmp_path, "m", 2, b"")
    onnx_models.save(tmp_path, "m", 3, onnx_models.add_one())
    found = find_model(tmp_path, "m")
    assert found.ok
    assert found.versions == (1, 3)
    assert list(found.broken) == [2]
    assert "the file is empty" in found.broken[2]


def test_a_version_that_is_just_being_copied_does_not_replace_the_one_that_serves(tmp_path: Path) -> None:
    onnx_models.save(tmp_path, "m", 1, onnx_models.add_one())
    (tmp_path / "m" / "2").mkdir()
    found = find_model(tmp_path, "m")
    assert (found.versions, found.skipped) == ((1,), ("version 2: holds no model.onnx",))


@pytest.mark.parametrize("name", ["../m", "", "a b", "/etc"])
def test_a_bad_name_is_an_invalid_request_and_an_unknown_one_is_not_found(tmp_path: Path, name: str) -> None:
    onnx_models.save(tmp_path, "m", 1, onnx_models.add_one())
    with pytest.raises(InvalidRequest):
        find_model(tmp_path, name)
    with pytest.raises(InvalidRequest):
        load_spec(tmp_path, name, 1)
    with pytest.raises(NotFound):
        find_model(tmp_path, "unknown")
    with pytest.raises(NotFound):
        load_spec(tmp_path, "m", 2)


def test_a_version_without_its_model_file_is_rejected_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    with pytest.raises(ModelRejected, match=r"model 'm' version 1: model file 'model\.onnx' cannot be read"):
        load_spec(tmp_path, "m", 1)


def test_a_config_may_name_the_model_file(tmp_path: Path) -> None:
    config = 'default_model_filename: "net.onnx"'
    folder = onnx_models.save(tmp_path, "m", 1, onnx_models.add_one(), config, filename="net.onnx")
    assert load_spec(tmp_path, "m", 1).model_path == folder / "net.onnx"
    assert find_model(tmp_path, "m").versions == (1,)


def test_yaml_configs_are_read(tmp_path: Path) -> None:
    for name in ("config.yaml", "config.yml"):
        onnx_models.save(tmp_path, name, 1, onnx_models.add_one(), "max_batch_size: 3", config_name=name)
        assert load_spec(tmp_path, name, 1).spec.batching.max_rows == 3


def test_a_config_link_must_stay_in_the_repository(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    onnx_models.save(root, "m", 1, onnx_models.add_one())
    (root / "shared.pbtxt").write_text("max_batch_size: 3")
    (root / "m" / "config.pbtxt").symlink_to("../shared.pbtxt")
    assert load_spec(root, "m", 1).spec.batching.max_rows == 3
    (root / "m" / "config.pbtxt").unlink()
    (tmp_path / "outside.pbtxt").write_text("max_batch_size: 3")
    (root / "m" / "config.pbtxt").symlink_to(tmp_path / "outside.pbtxt")
    with pytest.raises(ModelRejected, match=r"config file 'config\.pbtxt' is a link that leaves"):
        load_spec(root, "m", 1)


def test_a_model_file_link_must_stay_in_the_repository(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    onnx_models.save(root, "m", 1, onnx_models.add_one())
    onnx_models.save(tmp_path, "outside", 1, onnx_models.add_one())
    (root / "m" / "1" / "model.onnx").unlink()
    (root / "m" / "1" / "model.onnx").symlink_to(tmp_path / "outside" / "1" / "model.onnx")
    with pytest.raises(ModelRejected, match=r"model file 'model\.onnx' is a link that leaves"):
        load_spec(root, "m", 1)


def test_a_config_override_takes_the_place_of_the_file(tmp_path: Path) -> None:
    onnx_models.save(tmp_path, "m", 1, onnx_models.add_one(), "this is not a config")
    override = json.dumps({"max_batch_size": 6, "version_policy": {"all": {}}})
    assert load_spec(tmp_path, "m", 1, config_override=override).spec.batching.max_rows == 6
    assert find_model(tmp_path, "m", config_override=override).versions == (1,)
    with pytest.raises(ModelRejected, match="config of the load request: name is 'n'"):
        load_spec(tmp_path, "m", 1, config_override='{"name": "n"}')


CONFIGS = [
    "",
    "max_batch_size: 0",
    "max_batch_size: 4",
    'parameters { key: "shardline.buckets" value { string_value: "1,3" } }',
]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_config_that_a_client_reads_can_be_sent_back(tmp_path: Path, config: str) -> None:
    """Tools read ModelConfig, change a value and send it with the next load request."""
    onnx_models.save(tmp_path, "m", 1, onnx_models.two_outputs(), config)
    loaded = load_spec(tmp_path, "m", 1)
    as_json = json_format.MessageToJson(loaded.config, preserving_proto_field_name=True)
    for sent in (as_json, json_format.MessageToJson(loaded.config), text_format.MessageToString(loaded.config)):
        again = load_spec(tmp_path, "m", 1, config_override=sent)
        assert again.spec == loaded.spec


def test_the_digest_is_the_same_for_the_same_model_wherever_it_lies(tmp_path: Path) -> None:
    onnx_models.save(tmp_path / "a", "m", 1, onnx_models.add_one(), "max_batch_size: 4")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, second = (load_spec(tmp_path / name, "m", 1) for name in "ab")
    assert first.spec.digest == second.spec.digest
    (tmp_path / "b" / "m" / "config.pbtxt").write_text("max_batch_size: 5")
    changed = load_spec(tmp_path / "b", "m", 1)
    assert changed.files_digest == first.files_digest
    assert changed.spec.digest != first.spec.digest


def test_bounds_are_options(tmp_path: Path) -> None:
    onnx_models.save(tmp_path, "m", 1, onnx_models.add_one(), "#" * 100)
    for options, limit in (
        (LoadOptions(max_model_bytes=10), "max_model_bytes"),
        (LoadOptions(max_graph_bytes=10), "larger than 10 bytes"),
        (LoadOptions(max_config_bytes=10), "max_config_bytes"),
    ):
        with pytest.raises(ModelRejected, match=limit):
            load_spec(tmp_path, "m", 1, options=options)


def test_the_index_lists_what_is_served_what_is_broken_and_what_was_never_loaded(tmp_path: Path) -> None:
    for version in (2, 10):
        onnx_models.save(tmp_path, "served", version, onnx_models.add_one(), "version_policy { all {} }")
    onnx_models.save(tmp_path, "broken", 1, b"")
    onnx_models.save(tmp_path, "idle", 1, onnx_models.add_one())
    (tmp_path / "void").mkdir()
    states = {("served", 10): ("READY", ""), ("served", 2): ("LOADING", ""), ("gone", 1): ("UNAVAILABLE", "unloaded")}
    index = repository_index(scan(tmp_path), states)
    assert [(entry.name, entry.version, entry.state) for entry in index] == [
        ("broken", "1", "UNAVAILABLE"),
        ("gone", "1", "UNAVAILABLE"),
        ("idle", "", ""),
        ("served", "2", "LOADING"),
        ("served", "10", "READY"),
        ("void", "", "UNAVAILABLE"),
    ]
    assert "the file is empty" in index[0].reason
    assert index[1] == IndexEntry("gone", "1", "UNAVAILABLE", "unloaded")


def test_a_version_that_is_served_stays_ready_when_its_file_breaks(tmp_path: Path) -> None:
    onnx_models.save(tmp_path, "m", 1, b"")
    index = repository_index(scan(tmp_path), {("m", 1): ("READY", "")})
    assert index == (IndexEntry("m", "1", "READY", ""),)
