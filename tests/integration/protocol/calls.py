"""Requests as tests write them, and what the server counted of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb

from shardline.core.datatypes import BF16, BY_NAME, BYTES
from shardline.wire.arrays import encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tritonclient.grpc import service_pb2_grpc

TIMEOUT_S = 15.0
ROW = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
SLOW_ROW = ROW


def tensor(name: str, array: np.ndarray[Any, Any], datatype: str = "FP32") -> triton.InferInput:
    """An input of tritonclient."""
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def raw_request(
    model: str, inputs: Mapping[str, np.ndarray[Any, Any]], outputs: Sequence[str] = (), **fields: Any
) -> pb.ModelInferRequest:
    """A request with raw contents; data types follow the arrays."""
    from shardline.wire.arrays import datatype_of

    request = pb.ModelInferRequest(model_name=model, **fields)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=datatype_of(array).name, shape=array.shape)
        request.raw_input_contents.append(encode(array))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def typed_request(model: str, name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> Any:
    """A request with typed contents."""
    request = pb.ModelInferRequest(model_name=model)
    item = request.inputs.add(name=name, datatype=datatype, shape=shape)
    field = BY_NAME[datatype].contents
    assert field is not None
    getattr(item.contents, field).extend(values)
    return request


def output(response: pb.ModelInferResponse, index: int = 0) -> np.ndarray[Any, Any]:
    """A raw output as an array: BF16 as bit patterns, BYTES as bytes."""
    from shardline.wire.arrays import decode

    item = response.outputs[index]
    return decode(response.raw_output_contents[index], BY_NAME[item.datatype], tuple(item.shape))


def sample(datatype: str, rows: int = 2) -> np.ndarray[Any, Any]:
    """Telling values of a data type, [rows, 4]; BF16 as ml_dtypes has it."""
    row = BY_NAME[datatype]
    if row is BYTES:
        words = [b"", b"a", "h\u00e4\u00df".encode(), b"x" * 300]
        made = np.empty((rows, 4), dtype=object)
        for index in range(rows):
            made[index] = words
        return made
    if row is BF16:
        import ml_dtypes

        return np.arange(rows * 4).reshape(rows, 4).astype(ml_dtypes.bfloat16)
    if row.numpy.kind in "iu":
        limits = np.iinfo(row.numpy)  # type: ignore[type-var]
        return np.array([[limits.min, limits.max, 1, 0]] * rows, row.numpy)
    if row.numpy.kind == "b":
        return np.array([[True, False, True, True]] * rows)
    return np.array([[0.5, -1.25, 1024.0, 0.0]] * rows, row.numpy)


def statistics(stub: service_pb2_grpc.GRPCInferenceServiceStub, model: str) -> pb.ModelStatistics:
    """What the server counted of a model so far."""
    answer = stub.ModelStatistics(pb.ModelStatisticsRequest(name=model), timeout=TIMEOUT_S)
    return answer.model_stats[0]


def keep_busy(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> Any:
    """Occupy the replica's one executor; returns the call. What is sent on the same channel after it waits for it."""
    return stub.ModelInfer.future(raw_request("slow", {"x": SLOW_ROW}), timeout=TIMEOUT_S)
