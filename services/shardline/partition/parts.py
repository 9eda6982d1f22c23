"""Parts of a model as model files of their own, each with its own weights only.

Large weights are copied from file to file in blocks, never through a protobuf message, so a model of any size is split in
little memory (onnx's `extract_model` fails above 2 GB: onnx#5249, #6172, #6352).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from shardline.core.errors import ModelRejected
from shardline.partition.graph import Graph, Node, Value, names_read
from shardline.partition.skeleton import graphs_of, inline, point_to, source_of, tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from shardline.partition.skeleton import Source

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
EXTERNAL_FROM_BYTES = 64 * 2**20
"""Stages with more weights than this keep them in a file of their own."""
_BLOCK = 8 * 2**20
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """What one file is to hold. nodes: ordinary nodes; inputs, outputs: value names in the order of the file's signature."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file as written. sha256: hexadecimal."""

    name: str
    bytes: int
    sha256: str


def stage_part(graph: Graph, nodes: Sequence[Node], *, last: bool) -> Part:
    """The signature of a stage: what it takes from outside, and what others or the router need of it.

    last: constant outputs of the model are given by the last stage.
    """
    inside = {node.index for node in nodes}
    made = dict.fromkeys(name for node in nodes for name in node.writes)
    reads = dict.fromkeys(name for node in nodes for name in node.reads if name not in made)
    wanted = {name for node in graph.nodes if node.index not in inside for name in node.reads} | set(graph.outputs)
    ordered = [name for name in graph.inputs if name in reads]
    ordered += [name for name in reads if name not in graph.inputs and name not in graph.defaults]
    outputs = [name for name in made if name in wanted]
    if last:
        outputs += graph.constant_outputs
        passed = [name for name in graph.outputs if name in graph.inputs]
        ordered += [name for name in passed if name not in ordered]
        outputs += passed
    return Part(tuple(nodes), tuple(ordered), tuple(outputs))


def part_model(graph: Graph, part: Part, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """The part as a model whose large weights are still references into the whole model's files."""
    indices = sorted({node.index for node in part.nodes}.union(*(node.copies for node in part.nodes)))
    whole = graph.model
    model = onnx.ModelProto(
        ir_version=whole.ir_version,
        producer_name=whole.producer_name,
        producer_version=whole.producer_version,
        domain=whole.domain,
        model_version=whole.model_version,
        doc_string=whole.doc_string,
        opset_import=whole.opset_import,
        metadata_props=whole.metadata_props,
    )
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    model.graph.name = whole.graph.name
    model.graph.node.extend(whole.graph.node[index] for index in indices)
    used = {name for node in model.graph.node for name in names_read(node)} | set(part.outputs)
    _add_weights(model, whole, used)
    _add_signature(model, graph, part, used)
    inner = {name for node in model.graph.node for name in node.output} - set(part.outputs)
    model.graph.value_info.extend(item for item in whole.graph.value_info if item.name in inner)
    everything = used | inner
    model.graph.quantization_annotation.extend(
        item for item in whole.graph.quantization_annotation if item.tensor_name in everything
    )
    model.functions.extend(_functions_used(model, whole))
    return model


def _add_weights(model: onnx.ModelProto, whole: onnx.ModelProto, used: set[str]) -> None:
    model.graph.initializer.extend(tensor for tensor in whole.graph.initializer if tensor.name in used)
    model.graph.sparse_initializer.extend(
        tensor for tensor in whole.graph.sparse_initializer if tensor.values.name in used
    )


def _add_signature(model: onnx.ModelProto, graph: Graph, part: Part, used: set[str]) -> None:
    for name in part.inputs:
        model.graph.input.append(_value_info(graph, name))
    for name in graph.defaults:
        if name in used:
            model.graph.input.append(_value_info(graph, name))
    for name in part.outputs:
        model.graph.output.append(_value_info(graph, name))


def _value_info(graph: Graph, name: str) -> onnx.ValueInfoProto:
    for item in (*graph.model.graph.input, *graph.model.graph.output):
        if item.name == name and item.type.WhichOneof("value") and _has_shape(item):
            return item
    value = graph.values.get(name, Value(name))
    if not value.onnx_type:
        return onnx.ValueInfoProto(name=name)
    if value.shape is None:
        return onnx.helper.make_tensor_value_info(name, value.onnx_type, None)
    return onnx.helper.make_tensor_value_info(name, value.onnx_type, list(value.shape))


def _has_shape(item: onnx.ValueInfoProto) -> bool:
    return not item.type.HasField("tensor_type") or item.type.tensor_type.HasField("shape")


def _functions_used(model: onnx.ModelProto, whole: onnx.ModelProto) -> list[onnx.FunctionProto]:
    """Model-local functions that the nodes call, those that they call in turn included, in the whole model's order."""
    known = {(item.domain, item.name): item for item in whole.functions}
    used: set[tuple[str, str]] = set()
    pending = list(model.graph.node)
    while pending:
        node = pending.pop()
        key = (node.domain, node.op_type)
        if key in known and key not in used:
            used.add(key)
            pending.extend(known[key].node)
        for body in graphs_of(node):
            pending.extend(body.node)
    return [item for item in whole.functions if (item.domain, item.name) in used]


def write_model(model: onnx.ModelProto, source: Path, folder: Path) -> tuple[WrittenFile, ...]:
    """Write a model made by `part_model` as `model.onnx` into `folder`, its weights beside it where they are many.

    source: the whole model's file, to which references are relative. Raises ModelRejected where they lead nowhere.
    """
    for node in model.graph.node:
        for tensor in tensors_of(node):
            inline(tensor, source)
    sources = [(tensor, source_of(tensor, source)) for tensor in model.graph.initializer]
    large = [(tensor, origin) for tensor, origin in sources if origin is not None]
    files = []
    if sum(origin.length for _, origin in large) > EXTERNAL_FROM_BYTES:
        files.append(_write_data(large, folder / DATA_FILE))
    else:
        for tensor, _ in large:
            inline(tensor, source)
    data = model.SerializeToString()
    (folder / MODEL_FILE).write_bytes(data)
    return WrittenFile(MODEL_FILE, len(data), hashlib.sha256(data).hexdigest()), *files


def _write_data(weights: Iterable[tuple[onnx.TensorProto, Source]], target: Path) -> WrittenFile:
    """Copy weights into one file, each on a page of its own so that the runtime can map it."""
    digest = hashlib.sha256()
    at = 0
    with target.open("wb") as out:
        for tensor, origin in weights:
            padding = b"\0" * (-at % _PAGE)
            out.write(padding)
            digest.update(padding)
            at += len(padding)
            _copy(origin, out, digest)
            point_to(tensor, target.name, at, origin.length)
            at += origin.length
    return WrittenFile(target.name, at, digest.hexdigest())


def _copy(origin: Source, out: BinaryIO, digest: hashlib._Hash) -> None:
    with origin.path.open("rb") as file:
        file.seek(origin.offset)
        left = origin.length
        while left:
            block = file.read(min(left, _BLOCK))
            if not block:
                raise ModelRejected(f"{origin.path} ends early: it was changed while it was read")
            out.write(block)
            digest.update(block)
            left -= len(block)


def files_of(graph: Graph) -> list[Path]:
    """The model's file and every file that its weights lie in, the model's first."""
    others = {weight.source.path for weight in graph.weights.values() if weight.source} - {graph.path}
    return [graph.path, *sorted(others)]


def digest_of(paths: Sequence[Path]) -> str:
    """SHA-256 over the files' contents, in order: the same digest means the same model. Reads them in blocks."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            for block in iter(lambda: file.read(_BLOCK), b""):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"
