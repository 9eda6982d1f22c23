"""What may stand in `--input`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shardline.cli.failure import EXIT_USAGE, Failure
from shardline.cli.inputs import GivenInput, parse_given, read_inputs
from shardline.wire.arrays import datatype_of
from shardline.wire.client import TensorMetadata

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE = {
    "x": TensorMetadata("x", "FP32", (-1, 2)),
    "ids": TensorMetadata("ids", "INT64", (-1,)),
    "text": TensorMetadata("text", "BYTES", (-1,)),
    "half": TensorMetadata("half", "BF16", (-1,)),
    "flag": TensorMetadata("flag", "BOOL", (-1,)),
}


def read(*given: str, stdin: str = "") -> dict[str, np.ndarray]:
    return read_inputs([parse_given(text) for text in given], SIGNATURE, lambda: stdin)


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("x=@a.npy", GivenInput("x", "@a.npy")),
        ("x=[[1, 2]]", GivenInput("x", "[[1, 2]]")),
        ("x=-", GivenInput("x", "-")),
        ("-", GivenInput("", "-")),
        ("@all.json", GivenInput("", "@all.json")),
        ('{"x": [[1, 2]]}', GivenInput("", '{"x": [[1, 2]]}')),
    ],
)
def test_an_input_is_a_file_json_or_standard_input(text: str, given: GivenInput) -> None:
    assert parse_given(text) == given


@pytest.mark.parametrize("text", ["x", "=1", "x="])
def test_an_input_without_name_or_value_is_a_usage_error(text: str) -> None:
    with pytest.raises(Failure, match=r"NAME=@file\.npy") as raised:
        parse_given(text)
    assert raised.value.code == EXIT_USAGE


@pytest.mark.parametrize(
    ("text", "name", "datatype", "values"),
    [
        ("x=[[1, 2.5]]", "x", "FP32", [[1.0, 2.5]]),
        ("ids=[1, 2]", "ids", "INT64", [1, 2]),
        ("ids=[1.0]", "ids", "INT64", [1]),
        ('text=["a", "b"]', "text", "BYTES", ["a", "b"]),
        ("half=[0.5]", "half", "BF16", [0.5]),
        ("flag=[1, 0]", "flag", "BOOL", [True, False]),
        ("flag=[true]", "flag", "BOOL", [True]),
    ],
)
def test_json_becomes_the_type_that_the_signature_names(text: str, name: str, datatype: str, values: list) -> None:
    array = read(text)[name]
    assert datatype_of(array).name == datatype
    assert array.tolist() == values


def test_arrays_come_from_npy_files_json_files_and_standard_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.0, 2.0]]))
    (tmp_path / "ids.json").write_text("[7]")
    arrays = read(f"x=@{tmp_path}/x.npy", f"ids=@{tmp_path}/ids.json", "text=-", stdin='["t"]')
    assert arrays["x"].dtype == np.float32
    assert {name: array.tolist() for name, array in arrays.items()} == {"x": [[1, 2]], "ids": [7], "text": ["t"]}


def test_one_json_object_may_hold_all_inputs() -> None:
    arrays = read("-", stdin=json.dumps({"x": [[1, 2]], "ids": [3]}))
    assert {name: array.tolist() for name, array in arrays.items()} == {"x": [[1, 2]], "ids": [3]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("y=[1]", "no input 'y'; its inputs are x, ids"),
        ("ids=[1.5]", "float64 values do not fit INT64"),
        ("x=[[1, 2], [3]]", "input x: not an array of FP32"),
        ('ids=["a"]', "do not fit INT64"),
        ("x=[[1,", "--input"),
        ("x=@missing.npy", "No such file"),
        ("x=@missing.json", "No such file"),
        ("[1]=", "NAME=@file.npy"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(Failure, match=words):
        read(text)


def test_a_pickle_in_an_npy_file_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(Failure, match="allow_pickle=False"):
        read(f"x=@{tmp_path}/evil.npy")
