"""Small models, one for each thing that a graph may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WIDTH = 8
FLOAT = TensorProto.FLOAT


def array(*shape: int, seed: int = 0, kind: type[np.generic] = np.float32) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal(shape) / 2).astype(kind)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "tested", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=list(functions))
    onnx.checker.check_model(made)
    return made


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def rows(name: str, kind: int = FLOAT, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *(shape or (WIDTH,))])


def products(count: int, kind: type[np.generic] = np.float32, onnx_type: int = FLOAT) -> onnx.ModelProto:
    """x -> count products with weights of their own -> y."""
    nodes, weights = [], []
    for at in range(count):
        weights.append(numpy_helper.from_array(array(WIDTH, WIDTH, seed=at, kind=kind), f"w{at}"))
        end = "y" if at == count - 1 else f"h{at}"
        nodes.append(helper.make_node("MatMul", [f"h{at - 1}" if at else "x", f"w{at}"], [end], name=f"product{at}"))
    return model_of(nodes, [rows("x", onnx_type)], [rows("y", onnx_type)], weights)


def with_function() -> onnx.ModelProto:
    """Two calls of a local function, which calls another."""
    inner = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    body = [helper.make_node("Twice", ["a"], ["t"], domain="local"), helper.make_node("Tanh", ["t"], ["b"])]
    outer = helper.make_function(
        "local", "Squash", ["a"], ["b"], body, [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    )
    nodes = [
        helper.make_node("Squash", ["x"], ["h"], domain="local", name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="between"),
        helper.make_node("Squash", ["r"], ["y"], domain="local", name="second"),
    ]
    return model_of(nodes, [rows("x")], [rows("y")], functions=[inner, outer])


def with_loop() -> onnx.ModelProto:
    """A loop whose body captures a value and a weight from outside."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["carried", "w"], ["product"]),
            helper.make_node("Add", ["product", "outside"], ["next"]),
            helper.make_node("Identity", ["going"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            rows("carried"),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), rows("next")],
    )
    weights = [
        numpy_helper.from_array(array(WIDTH, WIDTH), "w"),
        numpy_helper.from_array(np.array(3, np.int64), "turns"),
        numpy_helper.from_array(np.array(True), "start"),
    ]
    nodes = [
        helper.make_node("Tanh", ["x"], ["outside"], name="before"),
        helper.make_node("Relu", ["x"], ["h"], name="aside"),
        helper.make_node("Loop", ["turns", "start", "h"], ["looped"], name="loop", body=body),
        helper.make_node("Neg", ["looped"], ["y"], name="after"),
    ]
    return model_of(nodes, [rows("x")], [rows("y")], weights)


def with_odd_ends() -> onnx.ModelProto:
    """An initialiser that is an input, one that is an output, an input passed through, an absent optional input."""
    weights = [
        numpy_helper.from_array(array(WIDTH), "scale"),
        numpy_helper.from_array(array(WIDTH, seed=2), "fixed"),
        numpy_helper.from_array(np.array(0.5, np.float32), "high"),
    ]
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["m"], name="scaled"),
        helper.make_node("Clip", ["m", "", "high"], ["c"], name="clipped"),
        helper.make_node("Add", ["c", "fixed"], ["y"], name="moved"),
    ]
    scale = helper.make_tensor_value_info("scale", FLOAT, [WIDTH])
    fixed = helper.make_tensor_value_info("fixed", FLOAT, [WIDTH])
    return model_of(nodes, [rows("x"), scale], [rows("y"), fixed, rows("x")], weights)


def quantised() -> onnx.ModelProto:
    """QDQ: weights are stored as INT8 and dequantised by constant nodes."""
    weights = [
        numpy_helper.from_array(np.array(0.02, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.int8), "z"),
    ]
    nodes, last = [], "x"
    for at in range(3):
        stored = np.random.default_rng(at).integers(-100, 100, (WIDTH, WIDTH)).astype(np.int8)
        weights.append(numpy_helper.from_array(stored, f"w{at}"))
        nodes += [
            helper.make_node("DequantizeLinear", [f"w{at}", "s", "z"], [f"d{at}"], name=f"weight{at}"),
            helper.make_node("QuantizeLinear", [last, "s", "z"], [f"q{at}"], name=f"quantise{at}"),
            helper.make_node("DequantizeLinear", [f"q{at}", "s", "z"], [f"a{at}"], name=f"dequantise{at}"),
            helper.make_node("MatMul", [f"a{at}", f"d{at}"], [f"m{at}" if at < 2 else "y"], name=f"product{at}"),
        ]
        last = f"m{at}"
    return model_of(nodes, [rows("x")], [rows("y")], weights)


def with_sequence() -> onnx.ModelProto:
    """A value that is no tensor runs between two nodes."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="before"),
        helper.make_node("SplitToSequence", ["r"], ["parts"], name="parted", axis=1, keepdims=1),
        helper.make_node("ConcatFromSequence", ["parts"], ["c"], name="joined", axis=1),
        helper.make_node("Tanh", ["c"], ["y"], name="after"),
    ]
    return model_of(nodes, [rows("x")], [rows("y")])


def with_batch_size() -> onnx.ModelProto:
    """Shape arithmetic on an input that every later node reads, as exporters write it."""
    weights = [numpy_helper.from_array(np.array([2, -1], np.int64), "halves")]
    nodes = [
        helper.make_node("Shape", ["x"], ["size"], name="size", end=1),
        helper.make_node("Concat", ["size", "halves"], ["target"], name="target", axis=0),
        helper.make_node("Relu", ["x"], ["a"], name="a"),
        helper.make_node("Reshape", ["a", "target"], ["b"], name="b"),
        helper.make_node("Tanh", ["b"], ["c"], name="c"),
        helper.make_node("Flatten", ["c"], ["d"], name="d"),
        helper.make_node("Reshape", ["d", "target"], ["y"], name="e"),
    ]
    return model_of(nodes, [rows("x")], [rows("y", FLOAT, 2, WIDTH // 2)], weights)
