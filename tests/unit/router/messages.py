"""Model specs and requests, as short as the tests need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shardline.core.cluster import PoolKey
from shardline.core.datatypes import BY_NAME
from shardline.core.models import Batching, ModelSpec, TensorSpec, default_buckets
from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.wire.descriptions import Description

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shardline.core.models import Dim


def tensor(name: str, datatype: str = "FP32", dims: Sequence[Dim] = (2,), *, optional: bool = False) -> TensorSpec:
    return TensorSpec(name, BY_NAME[datatype], tuple(dims), optional)


def model(
    inputs: Sequence[TensorSpec] = (tensor("x"),),
    outputs: Sequence[TensorSpec] = (tensor("y"),),
    *,
    name: str = "m",
    version: int = 1,
    max_rows: int = 8,
    **batching: Any,
) -> ModelSpec:
    """A model from x FP32 [batch, 2] to y FP32 [batch, 2], unless told otherwise; max_rows 0: without a batch axis."""
    rules = Batching(max_rows=max_rows, buckets=default_buckets(max_rows), **batching)
    return ModelSpec(name, version, "onnx", tuple(inputs), tuple(outputs), rules, b"", "")


def description(spec: ModelSpec | None = None, **fields: Any) -> Description:
    spec = spec or model()
    return Description(PoolKey(spec.name, spec.version), spec, **fields)


def request(
    *inputs: tuple[str, str, Sequence[int]],
    outputs: Sequence[str] = (),
    parameters: Mapping[str, bool | float | str] | None = None,
    raw: Sequence[bytes] = (),
    **fields: Any,
) -> pb.ModelInferRequest:
    """A request for model m; inputs: (name, data type, shape)."""
    message = pb.ModelInferRequest(**{"model_name": "m", **fields})
    for name, datatype, shape in inputs:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    for name in outputs:
        message.outputs.add(name=name)
    for name, value in (parameters or {}).items():
        set_parameter(message.parameters[name], value)
    message.raw_input_contents.extend(raw)
    return message


def set_parameter(parameter: pb.InferParameter, value: bool | float | str) -> None:
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    setattr(parameter, kinds[type(value)], value)


def rows(*values: float, width: int = 2) -> bytes:
    """FP32 rows, each filled with one value."""
    return np.repeat(np.array(values, np.float32), width).tobytes()


def infer(*values: float, **fields: Any) -> bytes:
    """A serialised request of one row per value to the model of `model()`."""
    return request(("x", "FP32", [len(values), 2]), raw=[rows(*values)], **fields).SerializeToString()
