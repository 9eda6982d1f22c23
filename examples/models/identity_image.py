"""The model that does nothing to an image: what a request costs when the model is free (602,112 bytes in and out).

Input `image` FP32 [batch, 3, 224, 224], output `same` of the same shape and values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

from examples.graph import Graph, Shape

if TYPE_CHECKING:
    import onnx


def build() -> onnx.ModelProto:
    """One Identity node."""
    shape: Shape = ["batch", 3, 224, 224]
    graph = Graph("identity_image")
    graph.op("Identity", graph.input("image", TensorProto.FLOAT, shape), name="same")
    graph.output("same", TensorProto.FLOAT, shape)
    return graph.model()
