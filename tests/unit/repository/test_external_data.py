from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import helper

from shardline.core.errors import ModelRejected
from shardline.repository import load_spec
from tests import onnx_models

if TYPE_CHECKING:
    from pathlib import Path


def referring(location: str, length: int | None = None) -> onnx.ModelProto:
    model = onnx_models.matmul()
    onnx_models.refer(model.graph.initializer[0], location, length)
    return model


def test_weights_beside_the_model_are_found_and_part_of_the_digest(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    onnx_models.save(tmp_path, "m", 1, onnx_models.with_external_data(folder))
    before = load_spec(tmp_path, "m", 1)
    assert before.external_files == (folder / "weights.bin",)
    (folder / "weights.bin").write_bytes(b"\0" * 48)
    after = load_spec(tmp_path, "m", 1)
    assert before.files_digest != after.files_digest
    assert before.spec.digest != after.spec.digest


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("/etc/passwd", "'/etc/passwd' is not a relative file name"),
        ("../2/weights.bin", "'../2/weights.bin' leaves its folder"),
        ("a/../../../secret", "leaves its folder"),
        ("..", "leaves its folder"),
        ("", "'' is not a relative file name"),
        ("missing.bin", "'missing.bin' cannot be read in"),
        ("out", "'out' is a link that leaves"),
        ("folder", "'folder' is not a regular file"),
        ("*/_ORT_MEM_ADDR_/*", "is an address in memory, not a file"),
        ("a\0b", "is not a relative file name"),
    ],
)
def test_a_location_outside_the_versions_folder_is_refused_with_tensor_and_location(
    tmp_path: Path, location: str, reason: str
) -> None:
    folder = onnx_models.save(tmp_path, "m", 1, referring(location))
    onnx_models.save(tmp_path, "m", 2, onnx_models.with_external_data(tmp_path / "m" / "2"))
    (folder / "out").symlink_to("../2/weights.bin")
    (folder / "folder").mkdir()
    with pytest.raises(ModelRejected) as caught:
        load_spec(tmp_path, "m", 1)
    assert "tensor 'W': external data" in caught.value.message
    assert reason in caught.value.message


def test_a_file_that_is_too_short_is_refused_with_both_sizes(tmp_path: Path) -> None:
    folder = onnx_models.save(tmp_path, "m", 1, referring("weights.bin", 48))
    (folder / "weights.bin").write_bytes(b"\0" * 47)
    with pytest.raises(ModelRejected, match="ends at byte 48, but the file has 47 bytes"):
        load_spec(tmp_path, "m", 1)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("offset", "-1", "offset '-1' is not a number of bytes"),
        ("offset", "9" * 30, "is not a number of bytes"),
        ("offset", "٣", "is not a number of bytes"),
        ("length", "4.5", "length '4.5' is not a number of bytes"),
        ("location", "other.bin", "names 'location' twice"),
        ("offset", "100", "ends at byte 100, but the file has 48 bytes"),
    ],
)
def test_entries_that_make_no_sense_are_refused(tmp_path: Path, key: str, value: str, reason: str) -> None:
    model = referring("weights.bin")
    model.graph.initializer[0].external_data.add(key=key, value=value)
    folder = onnx_models.save(tmp_path, "m", 1, model)
    (folder / "weights.bin").write_bytes(b"\0" * 48)
    with pytest.raises(ModelRejected) as caught:
        load_spec(tmp_path, "m", 1)
    assert reason in caught.value.message


def test_no_location_is_refused(tmp_path: Path) -> None:
    model = referring("weights.bin")
    del model.graph.initializer[0].external_data[:]
    onnx_models.save(tmp_path, "m", 1, model)
    with pytest.raises(ModelRejected, match="tensor 'W': external data names no location"):
        load_spec(tmp_path, "m", 1)


def _in_attribute(bad: onnx.TensorProto) -> onnx.ModelProto:
    model = onnx_models.add_one()
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=bad))
    return model


def _in_subgraph(bad: onnx.TensorProto) -> onnx.ModelProto:
    model = onnx_models.slow()
    body = next(a.g for node in model.graph.node for a in node.attribute if a.name == "body")
    body.initializer.append(bad)
    return model


def _in_function(bad: onnx.TensorProto) -> onnx.ModelProto:
    model = onnx_models.add_one()
    function = model.functions.add(name="f", domain="test")
    function.node.append(helper.make_node("Constant", [], ["c"], value=bad))
    return model


def _in_sparse(bad: onnx.TensorProto) -> onnx.ModelProto:
    model = onnx_models.add_one()
    model.graph.sparse_initializer.add().values.CopyFrom(bad)
    return model


def _in_training(bad: onnx.TensorProto) -> onnx.ModelProto:
    model = onnx_models.add_one()
    model.training_info.add().initialization.initializer.append(bad)
    return model


def _among_tensors(bad: onnx.TensorProto) -> onnx.ModelProto:
    model = onnx_models.add_one()
    model.graph.node[0].attribute.add(name="many", type=onnx.AttributeProto.TENSORS).tensors.append(bad)
    return model


@pytest.mark.parametrize("hide", [_in_attribute, _in_subgraph, _in_function, _in_sparse, _in_training, _among_tensors])
@pytest.mark.parametrize("bulk", [0, 5000])
def test_a_tensor_cannot_hide_its_location_anywhere(tmp_path: Path, hide: object, bulk: int) -> None:
    """bulk: a larger message is walked, a small one is copied; both must be seen."""
    assert callable(hide)
    bad = onnx.TensorProto(name="hidden", data_type=onnx.TensorProto.FLOAT, dims=[1], doc_string="d" * bulk)
    onnx_models.refer(bad, "/etc/passwd")
    onnx_models.save(tmp_path, "m", 1, hide(bad))
    with pytest.raises(ModelRejected, match="tensor 'hidden': external data '/etc/passwd'"):
        load_spec(tmp_path, "m", 1)
