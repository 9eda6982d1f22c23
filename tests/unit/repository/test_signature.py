from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shardline.core.datatypes import BY_NAME
from shardline.core.errors import ModelRejected
from shardline.repository.onnx_skeleton import Malformed, read_skeleton
from shardline.repository.signature import GraphTensor, Signature, read_signature
from tests import onnx_models

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, proto: onnx.ModelProto | bytes, **bounds: int) -> Signature:
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    return read_signature(path, **bounds)


def tensor(name: str, datatype: str, dims: tuple[int | str, ...] | None) -> GraphTensor:
    return GraphTensor(name, BY_NAME[datatype], dims)


def graph_with_input(type_proto: onnx.TypeProto) -> onnx.ModelProto:
    model = onnx_models.add_one()
    model.graph.input[0].type.CopyFrom(type_proto)
    return model


@pytest.mark.parametrize("datatype", onnx_models.IDENTITY_TYPES)
def test_every_data_type_of_the_protocol_is_read(tmp_path: Path, datatype: str) -> None:
    signature = read(tmp_path / "m", onnx_models.identity(datatype, ("batch", 3, -1, "n")))
    assert signature.inputs == (tensor("x", datatype, ("batch", 3, -1, "n")),)
    assert signature.outputs == (tensor("y", datatype, ("batch", 3, -1, "n")),)


def test_initialisers_are_not_inputs(tmp_path: Path) -> None:
    model = onnx_models.matmul()
    model.graph.input.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, [4, 3]))
    assert [spec.name for spec in read(tmp_path / "m", model).inputs] == ["x"]


def test_a_missing_shape_is_not_a_scalar(tmp_path: Path) -> None:
    model = onnx_models.add_one()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert read(tmp_path / "m", model).outputs[0].dims is None
    assert read(tmp_path / "m", onnx_models.scalar()).outputs[0].dims == ()


@pytest.mark.parametrize(("value", "dim"), [(-1, -1), (0, 0), (7, 7)])
def test_a_dimension_of_minus_one_is_dynamic(tmp_path: Path, value: int, dim: int) -> None:
    model = onnx_models.add_one()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = value
    assert read(tmp_path / "m", model).inputs[0].dims == ("batch", dim)


def test_an_empty_symbol_is_dynamic(tmp_path: Path) -> None:
    model = onnx_models.add_one()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = ""
    assert read(tmp_path / "m", model).inputs[0].dims == (-1, 4)


def _huge() -> onnx.ModelProto:
    return onnx_models.identity("FP32", ("batch", 2**62, 2**62))


def _twice() -> onnx.ModelProto:
    model = onnx_models.add_one()
    model.graph.input.append(model.graph.input[0])
    return model


def _without(field: str) -> onnx.ModelProto:
    model = onnx_models.add_one()
    model.ClearField(field)
    return model


def _graph_without(field: str) -> onnx.ModelProto:
    model = onnx_models.add_one()
    model.graph.ClearField(field)
    return model


def _renamed(name: str) -> onnx.ModelProto:
    model = onnx_models.add_one()
    model.graph.input[0].name = name
    return model


def _negative() -> onnx.ModelProto:
    model = onnx_models.add_one()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -7
    return model


FLOATS = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (graph_with_input(helper.make_sequence_type_proto(FLOATS)), "input 'x' is of type sequence"),
        (graph_with_input(helper.make_map_type_proto(TensorProto.INT64, FLOATS)), "input 'x' is of type map"),
        (graph_with_input(helper.make_optional_type_proto(FLOATS)), "input 'x' is of type optional"),
        (
            graph_with_input(helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2])),
            "input 'x' is of type sparse tensor",
        ),
        (graph_with_input(onnx.TypeProto()), "input 'x' is of type no type"),
        (graph_with_input(helper.make_tensor_type_proto(TensorProto.COMPLEX64, [2])), "elements of type COMPLEX64"),
        (
            graph_with_input(helper.make_tensor_type_proto(TensorProto.FLOAT8E4M3FN, [2])),
            "elements of type FLOAT8E4M3FN",
        ),
        (graph_with_input(helper.make_tensor_type_proto(99, [2])), "elements of type number 99"),
        (graph_with_input(helper.make_tensor_type_proto(TensorProto.FLOAT, [1] * 33)), "33 dimensions"),
        (_huge(), "elements, more than"),
        (_negative(), "dimension of -7"),
        (_twice(), "input 'x' stands in the graph twice"),
        (_renamed(""), "a name of 0 characters"),
        (_renamed("x" * 2000), "a name of 2000 characters"),
        (_without("graph"), "has no graph"),
        (_without("ir_version"), "has no ir_version"),
        (_without("opset_import"), "has no opset_import"),
        (_graph_without("input"), "the graph has no inputs"),
        (_graph_without("output"), "the graph has no outputs"),
        (b"", "the file is empty"),
        (b"\0", "field number 0"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "not an ONNX model"),
        (b"hello, this is text\n", "not an ONNX model"),
        (b"PK\x03\x04" + b"\0" * 50, "not an ONNX model"),
        (b"\xff" * 100, "a number longer than 10 bytes"),
    ],
)
def test_what_cannot_be_served_is_refused_with_path_and_reason(
    tmp_path: Path, model: onnx.ModelProto | bytes, reason: str
) -> None:
    with pytest.raises(ModelRejected) as caught:
        read(tmp_path / "model.onnx", model)
    assert caught.value.message.startswith(str(tmp_path / "model.onnx"))
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = onnx_models.versioned(3).SerializeToString()
    for length in range(len(whole)):
        # The opset comes last: whatever is missing, the file is not whole.
        with pytest.raises(ModelRejected):
            read(tmp_path / "m", whole[:length])


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    model = onnx_models.identity("FP32", ("batch", "dddd"))
    model.graph.input[0].name = "qqqq"
    for name in (b"qqqq", b"dddd"):
        content = model.SerializeToString().replace(name, b"q\xff\xfeq")
        with pytest.raises(ModelRejected, match="not valid UTF-8"):
            read(tmp_path / "m", content)


def test_a_file_above_the_limit_names_the_limit(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match=r"more than the limit of 10 \(max_model_bytes\)"):
        read(tmp_path / "m", onnx_models.add_one(), max_model_bytes=10)


def test_a_graph_above_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="graph without its weights is larger than 50 bytes"):
        read(tmp_path / "m", onnx_models.add_one(), max_graph_bytes=50)


def test_a_missing_file_a_folder_and_a_forbidden_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="No such file"):
        read_signature(tmp_path / "missing")
    with pytest.raises(ModelRejected, match="Is a directory"):
        read_signature(tmp_path)


def test_weights_are_stepped_over_however_large(tmp_path: Path) -> None:
    """The weights are a hole of 3 GiB in a sparse file: reading them would take minutes and memory."""
    small = onnx_models.matmul()
    small.graph.initializer[0].ClearField("raw_data")
    weights = small.graph.initializer[0].SerializeToString()
    small.graph.ClearField("initializer")
    hole = 3 << 30
    graph = small.graph.SerializeToString()
    small.ClearField("graph")
    tensor_head = weights + b"\x4a" + _varint(hole)
    graph_head = b"\x2a" + _varint(len(tensor_head) + hole) + tensor_head
    with (tmp_path / "m").open("wb") as file:
        file.write(small.SerializeToString())
        file.write(b"\x3a" + _varint(len(graph) + len(graph_head) + hole) + graph + graph_head)
        file.seek(hole, os.SEEK_CUR)
        file.truncate()
    assert read_signature(tmp_path / "m").inputs == (tensor("x", "FP32", ("batch", 4)),)


def test_the_skeleton_is_the_model_without_payloads() -> None:
    model = onnx_models.slow(size=64)
    for index in range(50):
        weights = np.random.default_rng(index).standard_normal(500)
        model.graph.initializer.append(numpy_helper.from_array(weights, f"extra{index}"))
    content = model.SerializeToString()
    skeleton = onnx.ModelProto.FromString(read_skeleton(io.BytesIO(content), len(content), 1 << 20))
    for each in (*model.graph.initializer, *skeleton.graph.initializer):
        each.ClearField("raw_data")
    assert skeleton == model


def test_deep_nesting_is_refused_before_the_stack_ends() -> None:
    content = b"\x0a\x00" * 600
    for _ in range(3000):
        # graph.node.attribute.g, again and again: fields 1, 5, 6
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            content = tag + _varint(len(content)) + content
        if len(content) > 100_000:
            break
    content = b"\x3a" + _varint(len(content)) + content
    with pytest.raises(Malformed, match="nested more than 64 deep"):
        read_skeleton(io.BytesIO(content), len(content), 1 << 30)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
