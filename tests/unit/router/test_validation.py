"""Every way in which a request can contradict a model's signature: refused with the field and both values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shardline.core.datatypes import BY_NAME
from shardline.core.errors import InvalidRequest, ServingError, ShapeMismatch, Unsupported
from shardline.router.validation import (
    Template,
    asked_version,
    check_elements,
    check_raw,
    typed_contents,
    validate,
)
from shardline.wire.codec import encode_bytes
from tests.unit.router.messages import model, request, set_parameter, tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardline.core.models import ModelSpec
    from shardline.pb.inference import grpc_service_pb2 as pb

LONGEST_MESSAGE = 1000
"""Statuses travel in HTTP/2 headers, of which clients take 8 KiB; no text of a caller may make them longer."""

X = ("x", "FP32", [3, 2])
TWO = model([tensor("ids", "INT64", ("length",)), tensor("mask", "INT64", ("length",))])
SCALARS = model([tensor("a", dims=()), tensor("b", dims=())])
OPTIONAL = model([tensor("x"), tensor("scale", dims=(1,), optional=True)])
WHOLE = model([tensor("x", dims=(2, -1))], max_rows=0)


def validated(*inputs: tuple[str, str, Sequence[int]], spec: ModelSpec | None = None, **fields: object) -> Template:
    return validate(request(*inputs, **fields), spec or model())  # type: ignore[arg-type]


def test_a_good_request_becomes_a_template() -> None:
    template = validated(X, outputs=["y"], model_version="7", parameters={"timeout": 2_500_000})
    assert (template.model, template.version, template.rows) == ("m", 7, 3)
    (x,) = template.tensors
    assert (x.name, x.datatype, x.dims, x.size_bytes) == ("x", BY_NAME["FP32"], (2,), 24)
    assert (template.order, template.outputs, template.timeout_s, template.priority) == ((0,), ("y",), 2.5, 0)


def test_inputs_may_come_in_any_order() -> None:
    template = validated(("mask", "INT64", [2, 5]), ("ids", "INT64", [2, 5]), spec=TWO)
    assert [tensor.name for tensor in template.tensors] == ["ids", "mask"]
    assert template.order == (1, 0)


def test_an_optional_input_may_be_left_out() -> None:
    assert [tensor.name for tensor in validated(X, spec=OPTIONAL).tensors] == ["x"]
    both = validated(("scale", "FP32", [3, 1]), X, spec=OPTIONAL)
    assert [tensor.name for tensor in both.tensors] == ["x", "scale"]
    assert both.order == (1, 0)


def test_a_model_without_a_batch_axis_has_one_row() -> None:
    template = validated(("x", "FP32", [2, 9]), spec=WHOLE)
    assert (template.rows, template.tensors[0].dims, template.tensors[0].size_bytes) == (1, (2, 9), 72)


def test_rows_without_elements_are_rows_all_the_same() -> None:
    template = validated(("x", "FP32", [4, 0]), spec=model([tensor("x", dims=(-1,))]))
    assert (template.rows, template.tensors[0].size_bytes) == (4, 0)


def test_text_has_no_size_that_can_be_known() -> None:
    assert validated(("x", "BYTES", [2, 2]), spec=model([tensor("x", "BYTES")])).tensors[0].size_bytes == -1


REFUSED = [
    ("missing input", TWO, [("ids", "INT64", [1, 4])], InvalidRequest, ["'mask'", "'m'", "'ids', 'mask'"]),
    ("unknown input", model(), [("xx", "FP32", [1, 2])], InvalidRequest, ["'xx'", "expected 'x'", "did you mean 'x'?"]),
    ("far from any", model(), [("image", "FP32", [1, 2])], InvalidRequest, ["'image'", "expected 'x'"]),
    ("given twice", model(), [X, X], InvalidRequest, ["'x'", "given twice", "expected once"]),
    ("data type", model(), [("x", "FP64", [1, 2])], InvalidRequest, ["'x'", "'FP64'", "expected FP32"]),
    ("no data type", model(), [("x", "", [1, 2])], InvalidRequest, ["'x'", "''", "not a data type of the protocol"]),
    ("false type", model(), [("x", "float32", [1, 2])], InvalidRequest, ["'float32'", "not a data type", "FP32"]),
    ("no shape", model(), [("x", "FP32", [])], ShapeMismatch, ["[]", "0 dimensions", "expected 2: [-1, 2]"]),
    ("a rank too many", model(), [("x", "FP32", [1, 1, 2])], ShapeMismatch, ["3 dimensions", "expected 2: [-1, 2]"]),
    ("wrong size", model(), [("x", "FP32", [1, 3])], ShapeMismatch, ["[1, 3]", "3 at dimension 1", "[-1, 2]"]),
    ("below zero", WHOLE, [("x", "FP32", [2, -4])], ShapeMismatch, ["[2, -4]", "-4 at dimension 1", "[2, -1]"]),
    ("rows below zero", model(), [("x", "FP32", [-1, 2])], ShapeMismatch, ["[-1, 2]", "-1 at dimension 0"]),
    ("no rows", model(), [("x", "FP32", [0, 2])], ShapeMismatch, ["[0, 2]", "0 rows", "at least 1"]),
    ("too many", WHOLE, [("x", "FP32", [2, 1 << 60])], ShapeMismatch, [str(1 << 60), str(1 << 61), "more than"]),
    ("rows differ", SCALARS, [("a", "FP32", [2]), ("b", "FP32", [3])], ShapeMismatch, ["'b'", "3", "'a'", "2"]),
    (
        "symbols differ",
        TWO,
        [("ids", "INT64", [1, 4]), ("mask", "INT64", [1, 5])],
        ShapeMismatch,
        ["'length'", "'mask'", "5", "'ids'", "4"],
    ),
    (
        "symbols differ within one input",
        model([tensor("x", dims=("n", "n"))]),
        [("x", "FP32", [1, 2, 3])],
        ShapeMismatch,
        ["'n'", "2", "3"],
    ),
]


@pytest.mark.parametrize(("spec", "inputs", "kind", "says"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED])
def test_an_input_that_contradicts_the_signature_is_refused_with_both_values(
    spec: ModelSpec, inputs: list[tuple[str, str, list[int]]], kind: type[ServingError], says: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validated(*inputs, spec=spec)
    assert type(caught.value) is kind
    assert [text for text in says if text not in caught.value.message] == []


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        (["z"], ["'z'", "'m'", "expected 'y'"]),
        (["yy"], ["'yy'", "did you mean 'y'?"]),
        (["y", "y"], ["'y'", "requested twice", "expected once"]),
    ],
)
def test_an_output_that_the_model_does_not_have_once_is_refused(outputs: list[str], says: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validated(X, outputs=outputs)
    assert [text for text in says if text not in caught.value.message] == []


@pytest.mark.parametrize(("text", "version"), [("", 0), ("1", 1), ("007", 7), ("9" * 18, int("9" * 18))])
def test_a_version_is_a_positive_whole_number_or_left_out(text: str, version: int) -> None:
    assert asked_version(text) == version


@pytest.mark.parametrize("text", ["0", "00", "-1", "+1", "1.0", "latest", " 1", "1_0", "²", "٣", "9" * 19])
def test_a_version_that_is_no_number_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="model_version") as caught:
        asked_version(text)
    assert f"'{text}'" in caught.value.message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0, None), ("0", None), (1, 1e-6), (1_500_000, 1.5), ("250000", 0.25), ((1 << 63) - 1, ((1 << 63) - 1) / 1e6)],
)
def test_the_timeout_is_microseconds(value: int | str, seconds: float | None) -> None:
    assert validated(X, parameters={"timeout": value}).timeout_s == seconds


@pytest.mark.parametrize("value", [-1, "-1", 1.5, "1.5", True, "", "soon", "²", "٣", "9" * 400, "9" * 5000])
def test_a_timeout_that_is_no_number_of_microseconds_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="parameter 'timeout'") as caught:
        validated(X, parameters={"timeout": value})
    assert repr(value)[:30] in caught.value.message
    assert len(caught.value.message) < LONGEST_MESSAGE


def test_a_timeout_without_a_value_is_refused() -> None:
    message = request(X)
    message.parameters["timeout"].SetInParent()
    with pytest.raises(InvalidRequest, match="parameter 'timeout': None"):
        validate(message, model())


@pytest.mark.parametrize(("levels", "value", "priority"), [(0, 0, 0), (0, 9, 0), (3, 0, 0), (3, 1, 1), (3, 3, 3)])
def test_a_priority_counts_where_the_model_has_levels(levels: int, value: int, priority: int) -> None:
    spec = model(priority_levels=levels)
    assert validated(X, spec=spec, parameters={"priority": value}).priority == priority


@pytest.mark.parametrize("value", [-1, 4, 1.0, "1", True, "9" * 5000])
def test_a_priority_that_the_model_does_not_have_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="parameter 'priority'") as caught:
        validated(X, spec=model(priority_levels=3), parameters={"priority": value})
    assert "3" in caught.value.message
    assert len(caught.value.message) < LONGEST_MESSAGE


def test_a_priority_given_as_unsigned_counts_too() -> None:
    message = request(X)
    message.parameters["priority"].uint64_param = 2
    assert validate(message, model(priority_levels=3)).priority == 2


def unsupported(name: str, *, on: str) -> pb.ModelInferRequest:
    message = request(X, outputs=["y"])
    parameters = {
        "input": message.inputs[0].parameters,
        "output": message.outputs[0].parameters,
        "request": message.parameters,
    }
    set_parameter(parameters[on][name], "region" if "shared" in name else 2)
    return message


@pytest.mark.parametrize(
    ("name", "on"),
    [
        ("shared_memory_region", "input"),
        ("shared_memory_region", "output"),
        ("shared_memory_byte_size", "input"),
        ("classification", "output"),
        ("sequence_id", "request"),
        ("sequence_start", "request"),
        ("sequence_end", "request"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(name: str, on: str) -> None:
    with pytest.raises(Unsupported, match=f"parameter '{name}'"):
        validate(unsupported(name, on=on), model())


@pytest.mark.parametrize("name", ["sequence_id", "sequence_start", "sequence_end"])
def test_a_sequence_that_is_none_is_let_through(name: str) -> None:
    assert validated(X, parameters={name: 0 if name == "sequence_id" else False}).rows == 3


def test_unknown_parameters_are_left_to_whoever_knows_them() -> None:
    assert validated(X, parameters={"binary_data": True, "mine": "yes"}).rows == 3


LONG = "ä" * 100_000
LONG_WORDS = {
    "input": request((LONG, "FP32", [1, 2])),
    "data type": request(("x", LONG, [1, 2])),
    "shape": request(("x", "FP32", [1] * 100_000)),
    "output": request(X, outputs=[LONG]),
    "version": request(X, model_version=LONG),
    "timeout": request(X, parameters={"timeout": LONG}),
    "priority": request(X, parameters={"priority": LONG}),
}


def named(on: str, parameter: str) -> pb.ModelInferRequest:
    message = request((LONG, "FP32", [1, 2]), outputs=[LONG])
    set_parameter((message.inputs if on == "input" else message.outputs)[0].parameters[parameter], "1")
    return message


LONG_WORDS["shared memory"] = named("input", "shared_memory_region" + LONG)
LONG_WORDS["classification"] = named("output", "classification")


@pytest.mark.parametrize("message", LONG_WORDS.values(), ids=LONG_WORDS)
def test_no_text_of_a_caller_makes_the_status_too_long_to_be_sent(message: pb.ModelInferRequest) -> None:
    with pytest.raises(ServingError) as caught:
        validate(message, model())
    assert len(caught.value.message.encode()) < 2 * LONGEST_MESSAGE


def test_raw_contents_must_have_the_size_of_their_shape() -> None:
    template = validated(X)
    check_raw(template, [24])
    with pytest.raises(InvalidRequest, match=r"'x'.* 20 bytes, expected 24 for shape \[3, 2\] of FP32"):
        check_raw(template, [20])


def test_raw_sizes_are_compared_in_the_requests_order() -> None:
    template = validated(("scale", "FP32", [3, 1]), X, spec=OPTIONAL)
    check_raw(template, [12, 24])
    with pytest.raises(InvalidRequest, match=r"'x'.* 12 bytes, expected 24"):
        check_raw(template, [24, 12])


@pytest.mark.parametrize("sizes", [[], [24, 24]])
def test_raw_contents_are_for_all_inputs_or_for_none(sizes: list[int]) -> None:
    with pytest.raises(InvalidRequest, match=f"{len(sizes)} contents for 1 inputs"):
        check_raw(validated(X), sizes)


TEXT = validated(("x", "BYTES", [2, 2]), spec=model([tensor("x", "BYTES")]))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (encode_bytes([b"a"] * 3), r"'x': 3 BYTES elements, expected 4 for shape \[2, 2\]"),
        (encode_bytes([b"a"] * 9), "'x': more than 4 BYTES elements, expected 4"),
        (encode_bytes([b"a"] * 3) + b"\x05\x00\x00\x00ab", "'x': BYTES content is cut off.* 5 bytes, 2 are left"),
        (encode_bytes([b"a"] * 4) + b"\x01", "'x': BYTES content is cut off.*1 bytes are left"),
        (encode_bytes([b"a", b"\xff"]), "'x': BYTES element 1 is not UTF-8"),
        (b"", "'x': 0 BYTES elements, expected 4"),
    ],
)
def test_text_that_is_not_what_its_shape_says_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_elements(TEXT, TEXT.tensors[0], data)


def test_text_of_any_length_passes() -> None:
    check_elements(TEXT, TEXT.tensors[0], encode_bytes(["", "ä", "x" * 300, "\0"]))
    check_elements(TEXT, TEXT.tensors[0], memoryview(encode_bytes(["a", "b", "c", "d"])))


FIELDS = sorted({row.contents for row in BY_NAME.values() if row.contents})
VALUES: dict[str, list[object]] = {"bool_contents": [True, False], "bytes_contents": [b"a", b"b"]}


def typed(datatype: str, field: str, values: Sequence[object]) -> list[bytes]:
    message = request(("x", datatype, [1, 2]))
    getattr(message.inputs[0].contents, field).extend(values)
    return typed_contents(message, validate(message, model([tensor("x", datatype)])))


@pytest.mark.parametrize("datatype", [row.name for row in BY_NAME.values() if row.contents])
def test_typed_contents_of_every_type_become_the_same_bytes_as_raw_ones(datatype: str) -> None:
    row = BY_NAME[datatype]
    assert row.contents is not None
    values = VALUES.get(row.contents, [1, 2])
    (raw,) = typed(datatype, row.contents, values)
    expected = encode_bytes(values) if datatype == "BYTES" else np.array(values, row.numpy).tobytes()
    assert raw == expected


@pytest.mark.parametrize("datatype", [row.name for row in BY_NAME.values()])
def test_contents_in_another_types_field_are_refused(datatype: str) -> None:
    own = BY_NAME[datatype].contents
    for field in FIELDS:
        if field == own:
            continue
        values = VALUES.get(field, [1, 2])
        with pytest.raises(InvalidRequest) as caught:
            typed(datatype, field, values)
        expected = f"contents.{field} is filled, {datatype} belongs into {own}" if own else "send raw_input_contents"
        assert expected in caught.value.message


@pytest.mark.parametrize("count", [0, 1, 3])
def test_typed_contents_must_fill_the_shape(count: int) -> None:
    with pytest.raises(InvalidRequest, match=f"'x': contents.fp32_contents has {count} elements, expected 2"):
        typed("FP32", "fp32_contents", [1.0] * count)


@pytest.mark.parametrize(
    ("datatype", "values", "bad", "limits"),
    [
        ("INT8", [0, 128], 128, "-128 to 127"),
        ("INT8", [-129, 0], -129, "-128 to 127"),
        ("INT16", [0, 40_000], 40_000, "-32768 to 32767"),
        ("UINT8", [256, 0], 256, "0 to 255"),
        ("UINT16", [65_536, 0], 65_536, "0 to 65535"),
    ],
)
def test_a_number_that_its_type_cannot_hold_is_refused(datatype: str, values: list[int], bad: int, limits: str) -> None:
    field = BY_NAME[datatype].contents
    assert field is not None
    with pytest.raises(InvalidRequest, match=re.escape(f"'x': {bad} is outside {datatype} ({limits})")):
        typed(datatype, field, values)


def test_typed_text_must_be_text() -> None:
    with pytest.raises(InvalidRequest, match="'x': BYTES element 1 is not UTF-8"):
        typed("BYTES", "bytes_contents", [b"a", b"\xff"])
