"""Tiny ONNX models for tests, built in memory: one function per behaviour that a test needs.

    add_one(datatype)              y = x + 1, [batch, 4]
    identity(datatype, dims)       y = x, any data type and dims, BYTES too
    two_inputs()                   y = a + b, [batch, n] each, n shared
    matmul(n_in, n_out)            y = x · W with seeded weights
    no_batch_axis()                y = x + 1, [2, 3] fixed
    nan_sensitive()                y = x where finite, else NaN: one bad row shows in its own answer only
    mean_over_batch()              y = x - mean over the rows: a batch changes its answers
    slow(iterations, size)         a Loop of matmuls: time in proportion to iterations, interruptible between nodes
    versioned(version)             y = x and `version` [batch] int64, the constant of this version
    gather(rows)                   y = table[index]; an index outside 0 … rows-1 raises in the runtime
    pad_sensitive()                y = sum of a row over its variable axis: padding with 0 is harmless
    double_each()                  y = 2x over a variable axis [batch, n], to be padded and trimmed
    hard_coded_reshape()           looks batchable, but holds a Reshape to [1, 4]: fails above one row
    with_external_data(folder)     y = x · W, W in a file beside the model

Write them where a repository has them with `save(repository, model, version, proto, config=...)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shardline.core.datatypes import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shardline.core.models import Dim

OPSET = 17
IR_VERSION = 9

IDENTITY_TYPES: tuple[str, ...] = tuple(BY_NAME)
"""Every protocol data type; ONNX Runtime's CPU provider has an Identity for each."""

ADD_TYPES: tuple[str, ...] = tuple(name for name in BY_NAME if name not in ("BOOL", "BYTES", "BF16"))
"""Data types that ONNX Runtime's CPU provider adds."""


def add_one(
    datatype: str = "FP32", dims: Sequence[Dim] = ("batch", 4), *, input_name: str = "x", output_name: str = "y"
) -> onnx.ModelProto:
    """y = x + 1. datatype: one of ADD_TYPES."""
    one = numpy_helper.from_array(np.array(1, BY_NAME[datatype].numpy), "one")
    node = helper.make_node("Add", [input_name, "one"], [output_name])
    return _model([node], [_value(input_name, datatype, dims)], [_value(output_name, datatype, dims)], [one])


def identity(datatype: str = "FP32", dims: Sequence[Dim] = ("batch", 4)) -> onnx.ModelProto:
    """y = x. datatype: one of IDENTITY_TYPES."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return _model([node], [_value("x", datatype, dims)], [_value("y", datatype, dims)])


def string_identity() -> onnx.ModelProto:
    """y = x, BYTES [batch, n]."""
    return identity("BYTES", ("batch", "n"))


def two_inputs(datatype: str = "FP32") -> onnx.ModelProto:
    """y = a + b, all [batch, n]: `n` must agree between the inputs."""
    dims = ("batch", "n")
    node = helper.make_node("Add", ["a", "b"], ["y"])
    inputs = [_value("a", datatype, dims), _value("b", datatype, dims)]
    return _model([node], inputs, [_value("y", datatype, dims)])


def two_outputs() -> onnx.ModelProto:
    """sum [batch] and double [batch, 4] of x [batch, 4] FP32."""
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "x"], ["double"]),
    ]
    outputs = [_value("sum", "FP32", ("batch",)), _value("double", "FP32", ("batch", 4))]
    return _model(nodes, [_value("x", "FP32", ("batch", 4))], outputs, [axes])


def matmul(n_in: int = 4, n_out: int = 3, *, seed: int = 0) -> onnx.ModelProto:
    """y [batch, n_out] = x [batch, n_in] · W, W seeded."""
    weights = numpy_helper.from_array(weights_of(n_in, n_out, seed), "W")
    node = helper.make_node("MatMul", ["x", "W"], ["y"])
    return _model([node], [_value("x", "FP32", ("batch", n_in))], [_value("y", "FP32", ("batch", n_out))], [weights])


def weights_of(n_in: int, n_out: int, seed: int = 0) -> np.ndarray:
    """The W of matmul and with_external_data, [n_in, n_out] FP32."""
    return np.random.default_rng(seed).standard_normal((n_in, n_out)).astype(np.float32)


def no_batch_axis() -> onnx.ModelProto:
    """y = x + 1, [2, 3] fixed: max_batch_size 0."""
    return add_one("FP32", (2, 3))


def scalar() -> onnx.ModelProto:
    """y = x + 1 on a tensor without axes."""
    return add_one("FP32", ())


def nan_sensitive() -> onnx.ModelProto:
    """y = x · 0 + x, [batch, 4] FP32: NaN and infinity in a row show in that row's answer, and in no other."""
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    nodes = [helper.make_node("Mul", ["x", "zero"], ["nothing"]), helper.make_node("Add", ["nothing", "x"], ["y"])]
    return _model(nodes, [_value("x", "FP32", ("batch", 4))], [_value("y", "FP32", ("batch", 4))], [zero])


def mean_over_batch() -> onnx.ModelProto:
    """y = x - mean over the rows, [batch, 4] FP32: unsafe to batch, since neighbours change the answer."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return _model(nodes, [_value("x", "FP32", ("batch", 4))], [_value("y", "FP32", ("batch", 4))])


def hard_coded_reshape() -> onnx.ModelProto:
    """y = x by way of a Reshape to [1, 4]: states a batch axis, but fails above one row."""
    shape = numpy_helper.from_array(np.array([1, 4], np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    return _model([node], [_value("x", "FP32", ("batch", 4))], [_value("y", "FP32", ("batch", 4))], [shape])


def slow(iterations: int = 100, size: int = 128) -> onnx.ModelProto:
    """y [batch, 4] = x, after a Loop of `iterations` matmuls of size × size whose result is thrown in times 0.

    The runtime can be told to stop between the loop's nodes.
    """
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "weights"], ["product"]),
            helper.make_node("Tanh", ["product"], ["state_out"]),
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("go_on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [size, size]),
        ],
    )
    weights = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32) / size**0.5
    constants = [
        numpy_helper.from_array(np.array(iterations, np.int64), "iterations"),
        numpy_helper.from_array(np.array(True), "true"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.array([size, size], np.int64), "square"),
        numpy_helper.from_array(weights, "weights"),
    ]
    nodes = [
        # The loop starts from the input's shape: no optimiser can run it once and for all, and no row's values count.
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sizes"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["sizes"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "square"], ["first"]),
        helper.make_node("Loop", ["iterations", "true", "first"], ["last"], body=body),
        helper.make_node("ReduceMean", ["last"], ["number"], keepdims=0),
        helper.make_node("Mul", ["number", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    dims = ("batch", 4)
    return _model(nodes, [_value("x", "FP32", dims)], [_value("y", "FP32", dims)], constants)


def versioned(version: int) -> onnx.ModelProto:
    """y = x · version [batch, 4] FP32, and `version` [batch] int64: an answer that mixes versions gives itself away."""
    constants = [
        numpy_helper.from_array(np.array(version, np.float32), "factor"),
        numpy_helper.from_array(np.array(version, np.int64), "tag"),
        numpy_helper.from_array(np.array([0], np.int64), "from"),
        numpy_helper.from_array(np.array([1], np.int64), "to"),
    ]
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["y"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "from", "to"], ["rows"]),
        helper.make_node("Expand", ["tag", "rows"], ["version"]),
    ]
    outputs = [_value("y", "FP32", ("batch", 4)), _value("version", "INT64", ("batch",))]
    return _model(nodes, [_value("x", "FP32", ("batch", 4))], outputs, constants)


def gather(rows: int = 8) -> onnx.ModelProto:
    """y [batch, 4] = table[index], index [batch] int64; an index out of range makes the runtime raise."""
    table = numpy_helper.from_array(np.arange(rows * 4, dtype=np.float32).reshape(rows, 4), "table")
    node = helper.make_node("Gather", ["table", "index"], ["y"], axis=0)
    return _model([node], [_value("index", "INT64", ("batch",))], [_value("y", "FP32", ("batch", 4))], [table])


def pad_sensitive() -> onnx.ModelProto:
    """y [batch, 1] = sum of x [batch, n] over n: right when x is padded with 0, wrong with anything else."""
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)
    return _model([node], [_value("x", "FP32", ("batch", "n"))], [_value("y", "FP32", ("batch", 1))], [axes])


def double_each() -> onnx.ModelProto:
    """y = 2x, [batch, n] both: what padding added must be trimmed from the answer."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return _model([node], [_value("x", "FP32", ("batch", "n"))], [_value("y", "FP32", ("batch", "n"))])


def of_length(length: int) -> onnx.ModelProto:
    """y = -2x, [batch, n] both; a run fails where n is another than `length`, which the signature does not say."""
    shape = numpy_helper.from_array(np.array([0, length], np.int64), "shape")
    nodes = [
        helper.make_node("Add", ["x", "x"], ["doubled"]),
        helper.make_node("Reshape", ["doubled", "shape"], ["shaped"]),
        helper.make_node("Neg", ["shaped"], ["y"]),
    ]
    return _model(nodes, [_value("x", "FP32", ("batch", "n"))], [_value("y", "FP32", ("batch", "n"))], [shape])


def with_external_data(
    folder: Path, n_in: int = 4, n_out: int = 3, *, location: str = "weights.bin"
) -> onnx.ModelProto:
    """y = x · W as matmul(n_in, n_out), W in the file `location`, which is written into `folder`."""
    model = matmul(n_in, n_out)
    tensor = model.graph.initializer[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(tensor.raw_data)
    refer(tensor, location, len(tensor.raw_data))
    return model


def refer(tensor: onnx.TensorProto, location: str, length: int | None = None) -> None:
    """Make a tensor's data external, whatever the location: also one that a server must refuse."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=location)
    if length is not None:
        tensor.external_data.add(key="length", value=str(length))


def save(
    repository: Path,
    model: str,
    version: int,
    proto: onnx.ModelProto | bytes,
    config: str | None = None,
    *,
    config_name: str = "config.pbtxt",
    filename: str = "model.onnx",
) -> Path:
    """Write <repository>/<model>/<version>/model.onnx, and the config where one is given. Returns the version's folder."""
    folder = repository / model / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    content = proto if isinstance(proto, bytes) else proto.SerializeToString(deterministic=True)
    (folder / filename).write_bytes(content)
    if config is not None:
        (repository / model / config_name).write_text(config)
    return folder


def _value(name: str, datatype: str, dims: Sequence[Dim]) -> onnx.ValueInfoProto:
    shape = [None if dim == -1 else dim for dim in dims]
    return helper.make_tensor_value_info(name, BY_NAME[datatype].onnx, shape)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="shardline-tests")
    model.ir_version = IR_VERSION
    return model
