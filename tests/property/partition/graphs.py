"""Random ONNX models: branches, joins, skips, nodes with two outputs, If bodies that capture, shared weights, several ends."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

WIDTH = 4


class Builder:
    """Grows one graph of [batch, WIDTH] tensors, node by node."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.values = ["x", "y"] if self.random.random() < 0.4 else ["x"]
        self.inputs = list(self.values)

    def pick(self) -> str:
        """A value, more likely a recent one, so that there are skips but also depth."""
        recent = self.values[-3:] if self.random.random() < 0.6 else self.values
        return self.random.choice(recent)

    def weight(self, *shape: int) -> str:
        if self.weights and self.random.random() < 0.2:
            shared = [item.name for item in self.weights if tuple(item.dims) == shape]
            if shared:
                return self.random.choice(shared)
        name = f"w{len(self.weights)}"
        array = (self.numbers.standard_normal(shape) / 2).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def grow(self) -> None:
        kind = self.random.choice(
            ["matmul", "add", "relu", "split", "if", "scale", "add", "matmul", "constant", "shape"]
        )
        at = len(self.nodes)
        out = f"v{at}"
        if kind == "matmul":
            self.add("MatMul", [self.pick(), self.weight(WIDTH, WIDTH)], [out])
        elif kind == "add":
            self.add("Add", [self.pick(), self.pick()], [out])
        elif kind == "relu":
            self.add("Tanh", [self.pick()], [out])
        elif kind == "scale":
            self.add("Mul", [self.pick(), self.weight(WIDTH)], [out])
        elif kind == "split":
            self.add("Split", [self.pick()], [f"{out}a", f"{out}b"], axis=1, num_outputs=2, new=False)
            self.add("Concat", [f"{out}b", f"{out}a"], [out], axis=1)
        elif kind == "constant":
            value = numpy_helper.from_array(self.numbers.standard_normal(WIDTH).astype(np.float32))
            self.add("Constant", [], [f"{out}c"], value=value, new=False)
            self.add("Sub", [self.pick(), f"{out}c"], [out])
        elif kind == "shape":
            self.add("Shape", ["x"], [f"{out}s"], new=False)
            self.add("Reshape", [self.pick(), f"{out}s"], [out])
        else:
            self.add_if(out)

    def add(self, op: str, inputs: list[str], outputs: list[str], *, new: bool = True, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        if new:
            self.values += outputs

    def add_if(self, out: str) -> None:
        """Both branches capture a value from outside; the condition depends on another."""
        one, two, tested = self.pick(), self.pick(), self.pick()
        self.add("ReduceSum", [tested], [f"{out}r"], keepdims=0, new=False)
        self.weights.append(numpy_helper.from_array(np.array(0, np.float32), f"{out}zero"))
        self.add("Greater", [f"{out}r", f"{out}zero"], [f"{out}g"], new=False)
        branches = []
        for op, name in (("Sigmoid", one), ("Neg", two)):
            result = helper.make_tensor_value_info(f"{out}{op}", TensorProto.FLOAT, None)
            branches.append(helper.make_graph([helper.make_node(op, [name], [f"{out}{op}"])], op, [], [result]))
        self.add("If", [f"{out}g"], [out], then_branch=branches[0], else_branch=branches[1])


def random_model(seed: int, most_nodes: int = 14) -> onnx.ModelProto:
    """A valid model; the same seed makes the same one."""
    builder = Builder(seed)
    for _ in range(builder.random.randint(2, most_nodes)):
        builder.grow()
    read = {name for node in builder.nodes for name in node.input}
    ends = [name for name in builder.values if name not in read and name not in builder.inputs] or [builder.values[-1]]
    if builder.random.random() < 0.3:
        inner = [name for name in builder.values if name in read and name not in builder.inputs]
        ends += builder.random.sample(inner, min(1, len(inner)))
    batch = "batch" if builder.random.random() < 0.7 else 3
    graph = helper.make_graph(
        builder.nodes,
        f"random{seed}",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, WIDTH]) for name in builder.inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, WIDTH]) for name in ends],
        builder.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def save(model: onnx.ModelProto, folder: Path) -> Path:
    """The model as a file."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path
