"""The protocol's data types, in one table.

Source: Open Inference Protocol (tensor data types), Triton's model_config.proto (`DataType`),
ONNX TensorProto.DataType.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class DataType:
    """One tensor data type under all its names.

    name: as on the wire (`FP32`). config: as in a model config (`TYPE_FP32`) with its number.
    onnx: TensorProto.DataType number; ort: ONNX Runtime's name of the element type.
    item_bytes: bytes per element; 0 for BYTES, whose elements vary.
    numpy: element type of arrays in this project. BF16 has none in numpy: its arrays are uint16 bit patterns.
    contents: the field of InferTensorContents that may carry it typed, None where only raw is allowed.
    """

    name: str
    config: str
    config_number: int
    onnx: int
    ort: str
    item_bytes: int
    numpy: np.dtype[np.generic]
    contents: str | None


def _row(
    name: str, config: str, number: int, onnx: int, ort: str, size: int, kind: str, contents: str | None
) -> DataType:
    return DataType(name, config, number, onnx, ort, size, np.dtype(kind), contents)


_TABLE = (
    _row("BOOL", "TYPE_BOOL", 1, 9, "tensor(bool)", 1, "?", "bool_contents"),
    _row("UINT8", "TYPE_UINT8", 2, 2, "tensor(uint8)", 1, "u1", "uint_contents"),
    _row("UINT16", "TYPE_UINT16", 3, 4, "tensor(uint16)", 2, "<u2", "uint_contents"),
    _row("UINT32", "TYPE_UINT32", 4, 12, "tensor(uint32)", 4, "<u4", "uint_contents"),
    _row("UINT64", "TYPE_UINT64", 5, 13, "tensor(uint64)", 8, "<u8", "uint64_contents"),
    _row("INT8", "TYPE_INT8", 6, 3, "tensor(int8)", 1, "i1", "int_contents"),
    _row("INT16", "TYPE_INT16", 7, 5, "tensor(int16)", 2, "<i2", "int_contents"),
    _row("INT32", "TYPE_INT32", 8, 6, "tensor(int32)", 4, "<i4", "int_contents"),
    _row("INT64", "TYPE_INT64", 9, 7, "tensor(int64)", 8, "<i8", "int64_contents"),
    _row("FP16", "TYPE_FP16", 10, 10, "tensor(float16)", 2, "<f2", None),
    _row("FP32", "TYPE_FP32", 11, 1, "tensor(float)", 4, "<f4", "fp32_contents"),
    _row("FP64", "TYPE_FP64", 12, 11, "tensor(double)", 8, "<f8", "fp64_contents"),
    _row("BYTES", "TYPE_STRING", 13, 8, "tensor(string)", 0, "O", "bytes_contents"),
    _row("BF16", "TYPE_BF16", 14, 16, "tensor(bfloat16)", 2, "<u2", None),
)

BY_NAME: dict[str, DataType] = {row.name: row for row in _TABLE}
BY_CONFIG: dict[str, DataType] = {row.config: row for row in _TABLE}
BY_CONFIG_NUMBER: dict[int, DataType] = {row.config_number: row for row in _TABLE}
BY_ONNX: dict[int, DataType] = {row.onnx: row for row in _TABLE}
BY_ORT: dict[str, DataType] = {row.ort: row for row in _TABLE}

BYTES = BY_NAME["BYTES"]
BF16 = BY_NAME["BF16"]
