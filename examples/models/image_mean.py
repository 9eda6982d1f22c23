"""The model that answers an image with one number: 602,112 bytes in, 4 bytes out.

Input `image` FP32 [batch, 3, 224, 224], output `mean` FP32 [batch, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from examples.graph import Graph

if TYPE_CHECKING:
    import onnx


def build() -> onnx.ModelProto:
    """Flatten, then the mean of each row."""
    graph = Graph("image_mean")
    image = graph.input("image", TensorProto.FLOAT, ["batch", 3, 224, 224])
    axes = graph.constant("item_axis", np.array([1], np.int64))
    graph.op("ReduceMean", graph.op("Flatten", image, axis=1), axes, name="mean", keepdims=1)
    graph.output("mean", TensorProto.FLOAT, ["batch", 1])
    return graph.model()
