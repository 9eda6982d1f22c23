"""The sentence encoder all-MiniLM-L6-v2 as an ONNX graph, written from its safetensors.

Inputs `input_ids`, `attention_mask`, `token_type_ids` INT64 [batch, seq], seq <= 512. Output `embedding` FP32
[batch, 384]: the mean of the token vectors under the mask, scaled to length 1. A row without any token gives zeros.

The graph uses standard operators only. Formulations were measured with ONNX Runtime 1.32 on two AVX2 cores, sequence
32, milliseconds per batch of 1 / 8 / 32 with one thread: this one (query, key and value in one product) 10.1 / 67 / 270;
three products 10.5 / 68 / 266; ONNX Runtime's own Attention operator 10.7 / 69 / 270, with SkipLayerNormalization
10.8 / 72 / 291, MultiHeadAttention 11.2 / 73 / 297. The matrix products are the time, so the contributed operators,
which not every runtime has, buy nothing. Gelu with the bias before it is fused by the runtime.

Source: Devlin et al., BERT (arXiv 1810.04805); the tensor names are those of the published file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from examples.graph import Array, Graph
from examples.minilm_package import model_folder

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

MASKED = -1e9
"""Added to the attention score of a masked token: exp() of it is exactly 0 in FP32."""

SHORTEST = 1e-12
"""Vectors are divided by at least this, so that a row without tokens gives zeros and not NaN."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a BERT encoder, from its config.json."""

    layers: int
    heads: int
    hidden: int
    epsilon: float

    @property
    def head(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


class Encoder:
    """Writes the encoder's layers into a graph. Values are [batch, seq, hidden] where nothing else is said."""

    def __init__(self, graph: Graph, shape: Shape, weights: dict[str, Array]) -> None:
        self.graph = graph
        self.shape = shape
        self.weights = weights

    def integers(self, name: str, *values: int) -> str:
        """An INT64 vector."""
        return self.graph.constant(name, np.array(values, np.int64))

    def weight(self, name: str) -> str:
        """A tensor of the file, as it stands."""
        return self.graph.constant(name, self.weights[name])

    def dense(self, x: str, name: str) -> str:
        """x @ W + b. The file holds W as [out, in]."""
        product = self.graph.op("MatMul", x, self.graph.constant(f"{name}.weight", self.weights[f"{name}.weight"].T))
        return self.graph.op("Add", product, self.weight(f"{name}.bias"))

    def normalized(self, x: str, name: str, out: str) -> str:
        """Layer normalisation over the last axis."""
        return self.graph.op(
            "LayerNormalization",
            x,
            self.weight(f"{name}.weight"),
            self.weight(f"{name}.bias"),
            name=out,
            axis=-1,
            epsilon=self.shape.epsilon,
        )

    def embeddings(self) -> str:
        """Word, token type and position vectors of the input, added and normalised."""
        op = self.graph.op
        words = op("Gather", self.weight("embeddings.word_embeddings.weight"), "input_ids")
        types = op("Gather", self.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
        length = op("Shape", "input_ids", name="length", start=1, end=2)
        table = self.weight("embeddings.position_embeddings.weight")
        positions = op("Slice", table, self.integers("first", 0), length, name="positions")
        return self.normalized(op("Add", op("Add", words, types), positions), "embeddings.LayerNorm", "embedded")

    def attention_bias(self, mask: str) -> str:
        """[batch, 1, 1, seq]: 0 for a token, MASKED for padding, from the mask FP32 [batch, seq]."""
        op = self.graph.op
        wide = op("Unsqueeze", mask, self.integers("head_and_query_axes", 1, 2))
        away = op("Sub", self.graph.constant("one", np.float32(1)), wide)
        return op("Mul", away, self.graph.constant("masked", np.float32(MASKED)), name="attention_bias")

    def projections(self, x: str, layer: str) -> tuple[str, str, str]:
        """Query (scaled by 1/sqrt(head)), key and value of all heads, from one product with [hidden, 3 * hidden]."""
        names = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        scales = (self.shape.head**-0.5, 1.0, 1.0)
        packed = [self.weights[f"{n}.weight"].T * s for n, s in zip(names, scales, strict=True)]
        biases = [self.weights[f"{n}.bias"] * s for n, s in zip(names, scales, strict=True)]
        weight = self.graph.constant(f"{layer}.attention.qkv.weight", np.concatenate(packed, 1).astype(np.float32))
        bias = self.graph.constant(f"{layer}.attention.qkv.bias", np.concatenate(biases).astype(np.float32))
        qkv = self.graph.op("Add", self.graph.op("MatMul", x, weight), bias)
        query, key, value = self.graph.split(qkv, tuple(f"{layer}.{part}" for part in ("query", "key", "value")))
        return query, key, value

    def per_head(self, x: str, order: tuple[int, ...]) -> str:
        """[batch, seq, heads, head], transposed by order."""
        split = self.integers("split_heads", 0, 0, self.shape.heads, self.shape.head)
        return self.graph.op("Transpose", self.graph.op("Reshape", x, split), perm=list(order))

    def attention(self, x: str, bias: str, layer: str) -> str:
        """Softmax(q @ k^T + bias) @ v over all heads, heads side by side again."""
        op = self.graph.op
        query, key, value = self.projections(x, layer)
        scores = op("MatMul", self.per_head(query, (0, 2, 1, 3)), self.per_head(key, (0, 2, 3, 1)))
        shares = op("Softmax", op("Add", scores, bias), axis=-1)
        mixed = op("MatMul", shares, self.per_head(value, (0, 2, 1, 3)))
        joined = self.integers("join_heads", 0, 0, self.shape.hidden)
        return op("Reshape", op("Transpose", mixed, perm=[0, 2, 1, 3]), joined)

    def layer(self, x: str, bias: str, index: int) -> str:
        """One transformer layer: attention, then the feed-forward part, each added to its input and normalised."""
        op, name = self.graph.op, f"encoder.layer.{index}"
        attended = self.dense(self.attention(x, bias, name), f"{name}.attention.output.dense")
        x = self.normalized(op("Add", attended, x), f"{name}.attention.output.LayerNorm", f"{name}.attended")
        wide = op("Gelu", self.dense(x, f"{name}.intermediate.dense"))
        narrow = self.dense(wide, f"{name}.output.dense")
        return self.normalized(op("Add", narrow, x), f"{name}.output.LayerNorm", f"{name}.out")

    def pooled(self, x: str, mask: str, out: str) -> str:
        """[batch, hidden] of length 1. The mean needs no division: scaling to length 1 cancels it."""
        op = self.graph.op
        query_axis = self.integers("query_axis", 1)
        total = op("Squeeze", op("MatMul", op("Unsqueeze", mask, query_axis), x), query_axis)
        length = op("ReduceL2", total, query_axis, keepdims=1)
        return op("Div", total, op("Max", length, self.graph.constant("shortest", np.float32(SHORTEST))), name=out)


def read_shape(folder: Path) -> Shape:
    """Sizes from config.json. Raises ValueError for an encoder of another kind."""
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
        raise ValueError(f"not a BERT encoder with gelu: {config['model_type']}, {config['hidden_act']}")
    return Shape(
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        hidden=config["hidden_size"],
        epsilon=config["layer_norm_eps"],
    )


def express(shape: Shape, weights: dict[str, Array]) -> onnx.ModelProto:
    """The whole encoder as ONNX."""
    graph = Graph("minilm")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        graph.input(name, TensorProto.INT64, ["batch", "seq"])
    encoder = Encoder(graph, shape, weights)
    x = encoder.embeddings()
    mask = graph.op("Cast", "attention_mask", name="mask", to=TensorProto.FLOAT)
    bias = encoder.attention_bias(mask)
    for index in range(shape.layers):
        x = encoder.layer(x, bias, index)
    encoder.pooled(x, mask, "embedding")
    graph.output("embedding", TensorProto.FLOAT, ["batch", shape.hidden])
    return graph.model()


def build() -> onnx.ModelProto:
    """Read the installed package's weights and express them. Raises ModuleNotFoundError where it is not installed."""
    from safetensors.numpy import load_file

    folder = model_folder()
    return express(read_shape(folder), load_file(folder / "model.safetensors"))
