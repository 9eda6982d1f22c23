"""Inputs and messages for any model of the benchmark, made from the model's own signature."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from shardline.core.datatypes import BY_NAME, BY_ORT
from shardline.pb.inference import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnxruntime as ort
    from numpy.typing import NDArray

ELEMENT_TYPES = BY_ORT
SEQUENCE = 32
"""Length that stands in for every symbolic dimension but the first."""


def concrete(shape: Sequence[int | str | None], rows: int, sequence: int = SEQUENCE) -> tuple[int, ...]:
    """A model's shape with its batch axis and its symbolic dimensions filled in."""
    first, *rest = shape
    head = first if isinstance(first, int) and first > 0 else rows
    return (head, *(size if isinstance(size, int) and size > 0 else sequence for size in rest))


def sample_inputs(session: ort.InferenceSession, rows: int = 1, seed: int = 7) -> dict[str, NDArray[np.generic]]:
    """Seeded inputs of `rows` rows for a model in this process."""
    random = np.random.default_rng(seed)
    specs = [(spec.name, spec.shape, ELEMENT_TYPES[spec.type].numpy) for spec in session.get_inputs()]
    return {name: _sample(name, concrete(shape, rows), dtype, random) for name, shape, dtype in specs}


def served_inputs(metadata: pb.ModelMetadataResponse, rows: int = 1, seed: int = 7) -> dict[str, NDArray[np.generic]]:
    """Seeded inputs of `rows` rows for a model behind a server, by its ModelMetadata."""
    random = np.random.default_rng(seed)
    specs = [(spec.name, list(spec.shape), BY_NAME[spec.datatype].numpy) for spec in metadata.inputs]
    return {name: _sample(name, concrete(shape, rows), dtype, random) for name, shape, dtype in specs}


def _sample(
    name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic], random: np.random.Generator
) -> NDArray[np.generic]:
    """Integers are token numbers, except that masks are ones and types zeros."""
    if dtype.kind == "f":
        return random.random(shape).astype(dtype)
    if "mask" in name:
        return np.ones(shape, dtype)
    if "type" in name:
        return np.zeros(shape, dtype)
    return random.integers(1000, 20000, shape).astype(dtype)


def infer_request(name: str, inputs: Mapping[str, NDArray[np.generic]], request_id: str = "") -> pb.ModelInferRequest:
    """An Open Inference request with raw contents."""
    request = pb.ModelInferRequest(model_name=name, id=request_id)
    datatypes = {row.numpy: row.name for row in ELEMENT_TYPES.values() if row.name != "BF16"}
    for tensor, array in inputs.items():
        request.inputs.add(name=tensor, datatype=datatypes[array.dtype], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def grpc_frame(message: bytes) -> bytes:
    """A message as it stands in an HTTP/2 body: not compressed, length, bytes."""
    return struct.pack(">BI", 0, len(message)) + message


def raw_body(inputs: Mapping[str, NDArray[np.generic]]) -> bytes:
    """All inputs' bytes one after the other: the cheapest body for a server that knows the shapes."""
    return b"".join(array.tobytes() for array in inputs.values())
