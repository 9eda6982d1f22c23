"""Write an ONNX graph as one reads it: every call adds a node and returns the name of its output."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
"""First opset with Gelu (20) and LayerNormalization (17); ONNX Runtime >= 1.17 runs it."""

IR_VERSION = 9
"""What came with opset 20, so that runtimes as old as the opset load the file."""

Array = NDArray[Any]
Shape = list[int | str | None]


class Graph:
    """An ONNX graph under construction.

    Names of values are unique: a node's output is called as the caller says, else by the operator and a counter.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._counts: dict[str, int] = {}

    def input(self, name: str, element: TensorProto.DataType, shape: Shape) -> str:
        """Declare an input. A string in shape is a symbolic dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def output(self, name: str, element: TensorProto.DataType, shape: Shape) -> None:
        """Declare that the value of that name is an output."""
        self._outputs.append(helper.make_tensor_value_info(name, element, shape))

    def constant(self, name: str, array: Array | np.generic) -> str:
        """Add an initializer; the same name twice means the same array."""
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def op(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output and return the output's name. An empty input is an optional one left out."""
        if name is None:
            count = self._counts[operator] = self._counts.get(operator, 0) + 1
            name = f"{operator.lower()}_{count}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=f"{name}.node", **attributes))
        return name

    def split(self, value: str, names: tuple[str, ...], axis: int = -1) -> tuple[str, ...]:
        """Cut a value into equal parts along an axis; names are the parts' names."""
        node = helper.make_node("Split", [value], list(names), f"{names[0]}.node", axis=axis, num_outputs=len(names))
        self._nodes.append(node)
        return names

    def model(self) -> onnx.ModelProto:
        """The finished model, checked. Raises onnx.checker.ValidationError where the graph is wrong."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, initializer=list(self._initializers.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="shardline-examples",
        )
        onnx.checker.check_model(model)
        return model
