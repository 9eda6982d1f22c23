"""A model's shell: what it takes and gives, without nodes and weights.

Where each stage runs in a pod of its own, no pod holds the whole model, but each must know its signature. The shell is a
valid repository's model file for that; nobody executes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from shardline.partition.graph import Graph


def shell_of(graph: Graph) -> bytes:
    """The shell as the bytes of an ONNX file, always the same ones for the same model."""
    whole = graph.model
    weights = {tensor.name for tensor in whole.graph.initializer}
    weights.update(tensor.values.name for tensor in whole.graph.sparse_initializer)
    shell = onnx.ModelProto(ir_version=whole.ir_version, producer_name="shardline", doc_string="signature only")
    shell.opset_import.extend(whole.opset_import)
    shell.graph.name = whole.graph.name
    shell.graph.input.extend(value for value in whole.graph.input if value.name not in weights)
    shell.graph.output.extend(whole.graph.output)
    return shell.SerializeToString(deterministic=True)
