"""ResNet-50 v1.5 with seeded random weights: the real topology and the real work, no use for its answers.

Input `image` FP32 [batch, 3, 224, 224], output `logits` FP32 [batch, 1000]. Batch normalisations are folded into the
convolutions before them, as every runtime does at load, so each convolution has a bias: 25,530,472 parameters, which
are the published 25,557,032 less one vector per normalisation (26,560 values).

Source: He et al. (arXiv 1512.03385); v1.5 has the stride in the 3 x 3 convolution of a block, as torchvision's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from examples.graph import Graph

if TYPE_CHECKING:
    import onnx

BLOCKS = (3, 4, 6, 3)
"""Bottleneck blocks per stage; stage i is 64 * 2**i channels wide inside and four times that at its end."""

CLASSES = 1000
EXPANSION = 4
SEED = 50

BRANCH_GAIN = 0.25
"""A block's last convolution starts this much smaller than He's: sixteen residual sums then stay of order one."""


class Layers:
    """Writes ResNet's layers into a graph, drawing each weight from one seeded stream in the order of the calls."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph = graph
        self.random = np.random.default_rng(seed)

    def convolution(self, x: str, name: str, channels: tuple[int, int], size: int, stride: int, gain: float) -> str:
        """A size x size convolution from channels[0] to channels[1], padded to keep the image's size at stride 1.

        gain: variance of the output over He's (2 / fan in), as a factor of the standard deviation.
        """
        inner, outer = channels
        fan_in = inner * size * size
        weight = self.random.standard_normal((outer, inner, size, size), np.float32) * np.float32((2 / fan_in) ** 0.5)
        bias = self.random.standard_normal(outer, np.float32) * np.float32(0.01)
        return self.graph.op(
            "Conv",
            x,
            self.graph.constant(f"{name}.weight", weight * np.float32(gain)),
            self.graph.constant(f"{name}.bias", bias),
            name=name,
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
        )

    def rectified(self, x: str) -> str:
        """max(x, 0)."""
        return self.graph.op("Relu", x)

    def bottleneck(self, x: str, name: str, inner: int, width: int, stride: int) -> str:
        """1 x 1, 3 x 3, 1 x 1 convolutions beside the identity, which is a 1 x 1 convolution where shapes differ."""
        outer = width * EXPANSION
        y = self.rectified(self.convolution(x, f"{name}.conv1", (inner, width), 1, 1, 1.0))
        y = self.rectified(self.convolution(y, f"{name}.conv2", (width, width), 3, stride, 1.0))
        y = self.convolution(y, f"{name}.conv3", (width, outer), 1, 1, BRANCH_GAIN)
        if stride != 1 or inner != outer:
            # Without a rectifier before it, the shortcut keeps the variance at 1 / fan in.
            x = self.convolution(x, f"{name}.downsample", (inner, outer), 1, stride, 0.5**0.5)
        return self.rectified(self.graph.op("Add", y, x, name=f"{name}.sum"))

    def head(self, x: str, features: int, out: str) -> None:
        """Mean over the image, then the classes."""
        pooled = self.graph.op("Flatten", self.graph.op("GlobalAveragePool", x), axis=1)
        weight = self.random.standard_normal((features, CLASSES), np.float32) * np.float32(features**-0.5)
        self.graph.op(
            "Gemm",
            pooled,
            self.graph.constant("fc.weight", weight),
            self.graph.constant("fc.bias", np.zeros(CLASSES, np.float32)),
            name=out,
        )


def build() -> onnx.ModelProto:
    """The whole network."""
    graph = Graph("resnet50")
    layers = Layers(graph, SEED)
    x = graph.input("image", TensorProto.FLOAT, ["batch", 3, 224, 224])
    x = layers.rectified(layers.convolution(x, "conv1", (3, 64), 7, 2, 1.0))
    x = graph.op("MaxPool", x, name="maxpool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inner = 64
    for stage, count in enumerate(BLOCKS):
        width = 64 * 2**stage
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            x = layers.bottleneck(x, f"layer{stage + 1}.{block}", inner, width, stride)
            inner = width * EXPANSION
    layers.head(x, inner, "logits")
    graph.output("logits", TensorProto.FLOAT, ["batch", CLASSES])
    return graph.model()
