from __future__ import annotations

import pytest

from shardline.core.errors import ModelRejected
from shardline.core.models import BatchingMode, Padding, Stages
from shardline.repository.parameters import TABLE, Settings, parse_parameters, suspicious


@pytest.mark.parametrize(
    ("key", "text", "settings"),
    [
        ("buckets", "1,2,4,8", Settings(buckets=(1, 2, 4, 8))),
        ("buckets", " 3 , 5 ", Settings(buckets=(3, 5))),
        ("pad.ids", "axis=0,value=0,multiple=8", Settings(pad={"ids": Padding(0, 0.0, 8)})),
        ("pad.ids", "axis=1", Settings(pad={"ids": Padding(1, 0.0, 8)})),
        ("pad.a.b/c:0", "value=-1.5, axis=1, multiple=1", Settings(pad={"a.b/c:0": Padding(1, -1.5, 1)})),
        ("pad.ids", "axis=0,value=-inf", Settings(pad={"ids": Padding(0, float("-inf"), 8)})),
        ("trim.out", "axis=0", Settings(trim={"out": 0})),
        ("default_timeout_ms", "500", Settings(default_timeout_ms=500.0)),
        ("default_timeout_ms", "0.5", Settings(default_timeout_ms=0.5)),
        ("queue_rows", "128", Settings(queue_rows=128)),
        ("stages", "auto", Settings(stages=Stages(count=0))),
        ("stages", "1", Settings(stages=Stages(count=1))),
        ("stages", "3", Settings(stages=Stages(count=3))),
        ("stages", "8Gi", Settings(stages=Stages(count=0, memory_bytes=8 << 30))),
        ("stages", "8GiB", Settings(stages=Stages(count=0, memory_bytes=8 << 30))),
        ("stages", "1.5G", Settings(stages=Stages(count=0, memory_bytes=1_500_000_000))),
        ("stages", "500Mi", Settings(stages=Stages(count=0, memory_bytes=500 << 20))),
        ("batching", "off", Settings(batching=BatchingMode.OFF)),
        ("batching", "always", Settings(batching=BatchingMode.ALWAYS)),
        ("batching", "auto", Settings(batching=BatchingMode.AUTO)),
        ("threads", "auto", Settings(threads=0)),
        ("threads", "4", Settings(threads=4)),
        ("micro_batch", "auto", Settings(micro_batch=0)),
        ("micro_batch", "16", Settings(micro_batch=16)),
        ("device", "cpu", Settings(device="cpu")),
        ("device", "cuda:3", Settings(device="cuda:3")),
        ("device", "simulated", Settings(device="simulated")),
    ],
)
def test_a_parameter_becomes_a_setting(key: str, text: str, settings: Settings) -> None:
    assert parse_parameters({f"shardline.{key}": text}) == settings


def test_several_inputs_may_be_padded_and_other_parameters_are_left_alone() -> None:
    found = parse_parameters({"shardline.pad.a": "axis=0", "shardline.pad.b": "axis=1", "mine": "x", "shardlines": "y"})
    assert found == Settings(pad={"a": Padding(0, 0.0), "b": Padding(1, 0.0)})


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("buckets", "", "a whole number from 1"),
        ("buckets", "1,2,2", "ascending"),
        ("buckets", "4,2", "ascending"),
        ("buckets", "0,1", "from 1 to 65536"),
        ("buckets", "1,99999999", "from 1 to 65536"),
        ("buckets", "1;2", "a whole number"),
        ("buckets", "٣", "a whole number"),
        ("buckets", ",".join(map(str, range(1, 100))), "at most 64"),
        ("pad.x", "", "axis=… and value=… and multiple=…"),
        ("pad.x", "value=0", "axis=… is expected"),
        ("pad.x", "axis=0,axis=1", "each at most once"),
        ("pad.x", "axis=0,fill=1", "axis=… and value=… and multiple=…"),
        ("pad.x", "axis=-1", "from 0 to 31"),
        ("pad.x", "axis=0,value=x", "the value must be a number"),
        ("pad.x", "axis=0,value=nan", "the value must be a number"),
        ("pad.x", "axis=0,multiple=0", "from 1"),
        ("trim.x", "axis=0,value=1", "axis=…"),
        ("default_timeout_ms", "0", "milliseconds above 0"),
        ("default_timeout_ms", "-5", "milliseconds above 0"),
        ("default_timeout_ms", "1e3", "milliseconds above 0"),
        ("default_timeout_ms", "999999999", "milliseconds above 0"),
        ("queue_rows", "0", "from 1"),
        ("stages", "0", "from 1"),
        ("stages", "two", "auto, a number of stages, or the memory"),
        ("stages", "0Gi", "auto, a number of stages, or the memory"),
        ("stages", "8 GiB", "auto, a number of stages, or the memory"),
        ("stages", "-1", "auto, a number of stages, or the memory"),
        ("batching", "on", "one of auto, off, always"),
        ("batching", "OFF", "one of auto, off, always"),
        ("threads", "0", "auto or a whole number from 1"),
        ("micro_batch", "-1", "auto or a whole number from 1"),
        ("device", "gpu", "auto, cpu, cuda, cuda:N or simulated"),
        ("device", "cuda:x", "auto, cpu, cuda, cuda:N or simulated"),
    ],
)
def test_a_bad_value_is_refused_with_name_text_and_what_is_expected(key: str, text: str, expected: str) -> None:
    with pytest.raises(ModelRejected) as caught:
        parse_parameters({f"shardline.{key}": text})
    assert f"shardline.{key}" in caught.value.message
    assert expected in caught.value.message


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("shardline.bucket", "shardline.buckets"),
        ("shardline.batchng", "shardline.batching"),
        ("shardline.default_timeout", "shardline.default_timeout_ms"),
        ("shardline.microbatch", "shardline.micro_batch"),
        ("shardline.thread", "shardline.threads"),
    ],
)
def test_an_unknown_parameter_is_refused_with_the_nearest_known_one(key: str, near: str) -> None:
    with pytest.raises(ModelRejected, match=f"unknown parameter '{key}' \\(did you mean '{near}'\\?\\)"):
        parse_parameters({key: "1"})


@pytest.mark.parametrize(
    "key", ["shardline.", "shardline.pad", "shardline.pad.", "shardline.buckets.x", "shardline.xyzzy"]
)
def test_a_parameter_of_the_wrong_shape_is_refused_with_all_that_exist(key: str) -> None:
    with pytest.raises(ModelRejected) as caught:
        parse_parameters({key: "axis=0"})
    for name in TABLE:
        assert f"shardline.{name}" in caught.value.message


def test_every_example_in_the_table_parses() -> None:
    for row in TABLE.values():
        key = f"shardline.{row.name}" + (".x" if row.tensor else "")
        assert parse_parameters({key: row.example}) != Settings()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("shradline.buckets", True),
        ("Shardline.buckets", True),
        ("shardlin.pad.x", True),
        ("shardline.buckets", False),
        ("buckets", False),
        ("other.buckets", False),
        ("shradline.own", False),
    ],
)
def test_a_mistyped_prefix_is_suspicious(key: str, expected: bool) -> None:
    assert suspicious(key) is expected
