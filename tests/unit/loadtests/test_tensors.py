"""Requests made from a model's signature."""

import struct
from typing import TYPE_CHECKING

import numpy as np

from loadtests.tensors import SEQUENCE, concrete, grpc_frame, infer_request, raw_body, served_inputs
from shardline.pb.inference import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_free_dimensions_become_rows_and_the_sequence_length() -> None:
    assert concrete(["batch", 3, "length"], rows=4) == (4, 3, SEQUENCE)
    assert concrete([-1, -1], rows=2, sequence=7) == (2, 7)
    assert concrete([1, 10], rows=2) == (1, 10)


def test_a_served_model_is_asked_with_masks_of_ones_and_types_of_zeros() -> None:
    metadata = pb.ModelMetadataResponse(name="m")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        metadata.inputs.add(name=name, datatype="INT64", shape=[-1, -1])
    metadata.inputs.add(name="image", datatype="FP32", shape=[-1, 4])
    made = served_inputs(metadata, rows=2)
    assert made["input_ids"].shape == (2, SEQUENCE)
    assert (made["attention_mask"] == 1).all()
    assert (made["token_type_ids"] == 0).all()
    assert made["image"].dtype == np.float32
    again, other = served_inputs(metadata, rows=2), served_inputs(metadata, rows=2, seed=8)
    assert (again["input_ids"] == made["input_ids"]).all()
    assert (other["input_ids"] != made["input_ids"]).any()


def test_a_request_carries_names_types_shapes_and_raw_bytes_in_order() -> None:
    inputs: dict[str, NDArray[np.generic]] = {"a": np.arange(3, dtype=np.int64)[None], "b": np.ones((1, 2), np.float32)}
    request = infer_request("m", inputs, "7")
    assert (request.model_name, request.id) == ("m", "7")
    assert [(t.name, t.datatype, list(t.shape)) for t in request.inputs] == [
        ("a", "INT64", [1, 3]),
        ("b", "FP32", [1, 2]),
    ]
    assert b"".join(request.raw_input_contents) == raw_body(inputs)


def test_a_grpc_frame_is_a_flag_a_length_and_the_message() -> None:
    assert grpc_frame(b"abc") == struct.pack(">BI", 0, 3) + b"abc"
