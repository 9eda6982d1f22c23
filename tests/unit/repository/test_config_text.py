from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shardline.core.errors import ModelRejected
from shardline.repository.config_text import MAX_CONFIG_BYTES, ParsedConfig, read_config, read_override

if TYPE_CHECKING:
    from pathlib import Path

PBTXT = """
# A comment: max_batch_size: 4
name: "m"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
parameters { key: "shardline.batching" value: { string_value: "off" } }
"""
YAML = """
# The same
name: m
max_batch_size: 8
input:
  - name: x
    data_type: TYPE_FP32
    dims: [3, -1]
dynamic_batching:
  preferred_batch_size: [4, 8]
  maxQueueDelayMicroseconds: 100
parameters:
  shardline.batching: {string_value: "off"}
"""


def parse(folder: Path, text: str | bytes, name: str = "config.pbtxt") -> ParsedConfig:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(path)


def test_text_yaml_and_json_are_the_same_config(tmp_path: Path) -> None:
    text = parse(tmp_path, PBTXT)
    assert text.message.dynamic_batching.preferred_batch_size == [4, 8]
    assert parse(tmp_path, YAML, "config.yaml").message == text.message
    assert parse(tmp_path, YAML, "config.yml").message == text.message
    sent = {
        "name": "m",
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3", "-1"]}],
        "dynamic_batching": {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": 100},
        "parameters": {"shardline.batching": {"string_value": "off"}},
    }
    assert read_override(json.dumps(sent)).message == text.message
    assert read_override(json.dumps(sent).encode()).message == text.message
    assert read_override(PBTXT).message == text.message


@pytest.mark.parametrize(
    ("text", "name", "given"),
    [
        ("max_batch_size: 0", "config.pbtxt", True),
        ("max_batch_size: 8", "config.pbtxt", True),
        ("# max_batch_size: 0", "config.pbtxt", False),
        ("", "config.pbtxt", False),
        ("max_batch_size: 0", "config.yaml", True),
        ("maxBatchSize: 0", "config.yaml", True),
        ("max_batch_size: null", "config.yaml", False),
        ("", "config.yaml", False),
        ("\ufeffmax_batch_size: 0", "config.pbtxt", True),
    ],
)
def test_a_batch_size_of_zero_is_told_from_none(tmp_path: Path, text: str, name: str, given: bool) -> None:
    assert parse(tmp_path, text, name).max_batch_size_given is given


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('name: "m"\nmax_batchsize: 8', 2, "no field named \"max_batchsize\". (did you mean 'max_batch_size'?)"),
        ('\ninput { name: "x"\n  dtype: TYPE_FP32 }', 3, "no field named \"dtype\". (did you mean 'data_type'?)"),
        ("input {\n data_type: TYPE_FP33 }", 2, "no value named TYPE_FP33"),
        ('input {\n dims: "a" }', 2, "Couldn't parse integer"),
        ('name: "m', 1, "missing ending quote"),
        ("max_batch_size: 99999999999", 1, "out of range"),
        ('name: "a"\nname: "b"', 2, 'multiple "name" fields'),
        ("dynamic_batching {}\nsequence_batching {}", 2, "sequence_batching"),
        ("input {", 1, "Expected"),
        ('name: "\\377"', 1, "utf-8"),
    ],
)
def test_an_error_in_protobuf_text_names_file_line_and_field(tmp_path: Path, text: str, line: int, reason: str) -> None:
    with pytest.raises(ModelRejected) as caught:
        parse(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path}/config.pbtxt:{line}: ")
    assert reason.lower() in caught.value.message.lower()
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("name: m\nmax_batchsize: 8", 2, "max_batchsize: no such field (did you mean 'max_batch_size'?)"),
        ("input:\n- name: x\n  dtype: TYPE_FP32", 3, "input[0].dtype: no such field (did you mean 'data_type'?)"),
        (
            "input:\n- {name: x}\n- name: y\n  data_type: TYPE_FP33",
            4,
            "input[1].data_type: 'TYPE_FP33' is not one of TYPE_",
        ),
        ("input:\n- dims:\n  - 1\n  - a", 4, "input[0].dims[1]: 'a' is not a whole number (64 bits)"),
        ("input:\n  name: x", 1, "input: a mapping where a list is expected"),
        ("input: [x]", 1, "input[0]: 'x' where a mapping of fields is expected"),
        ("max_batch_size: [1]", 1, "max_batch_size: [1] is not a whole number (32 bits)"),
        ("max_batch_size: 99999999999", 1, "99999999999 is not a whole number (32 bits)"),
        ("max_batch_size: 1.5", 1, "1.5 is not a whole number"),
        ("name: 4", 1, "name: 4 is not text (in quotes)"),
        ("name: 2020-01-01", 1, "is not text"),
        ("response_cache:\n  enable: perhaps", 2, "response_cache.enable: 'perhaps' is not true or false"),
        ("parameters:\n  a: 4", 2, "parameters.a: 4 where a mapping of fields is expected"),
        ("parameters:\n  a: {string_value: 4}", 2, "parameters.a.string_value: 4 is not text (in quotes)"),
        ("parameters: [a]", 1, "parameters: a list where a mapping is expected"),
        ("metric_tags:\n  a: b\n  c: [1]", 3, "metric_tags.c: [1] is not text"),
        (
            "dynamic_batching:\n  priority_queue_policy:\n    x: {}",
            3,
            "priority_queue_policy.x: the key is not a whole number",
        ),
        ("name: a\nname: b", 2, "the key 'name' stands here twice"),
        ("a: &x [1]\nb: *x", 2, "aliases are not accepted"),
        ("? [a]\n: b", 1, "a key must be plain text"),
        ("name: !!python/object/apply:os.system [id]", 1, "could not determine a constructor"),
        ("---\nname: a\n---\nname: b", 3, "another document"),
        ("name: [", 1, ""),
    ],
)
def test_an_error_in_yaml_names_file_line_and_field(tmp_path: Path, text: str, line: int, reason: str) -> None:
    with pytest.raises(ModelRejected) as caught:
        parse(tmp_path, text, "config.yaml")
    assert caught.value.message.startswith(f"{tmp_path}/config.yaml:{line}: ")
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1]", "a list where a mapping of fields is expected"),
        ("text", "'text' where a mapping of fields is expected"),
        ("[" * 5000, "nested too deeply"),
        ("dynamic_batching: {}\nsequence_batching: {}", "scheduling_choice"),
        (b"name: \xff", "not UTF-8 text at byte 6"),
        ("name: \x01", "not YAML"),
    ],
)
def test_yaml_that_is_no_config_is_refused(tmp_path: Path, text: str | bytes, reason: str) -> None:
    with pytest.raises(ModelRejected) as caught:
        parse(tmp_path, text, "config.yaml")
    assert caught.value.message.startswith(f"{tmp_path}/config.yaml")
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"name": "a", "name": "b"}', "the key 'name' stands in one object twice"),
        ('{"name": ', "config of the load request:1: not JSON"),
        ("[]", "a list where a mapping of fields is expected"),
        ('{"max_batch_size": NaN}', "max_batch_size: nan is not a whole number"),
        ('{"max_batch_size": 1, "maxBatchSize": 2}', "max_batch_size"),
        ('{"input":' * 3000, "nested too deeply"),
        ('{"name": "\\ud800"}', "is not text"),
        ('{"name": "\ud800"}', "not UTF-8 text at byte"),
        (b"\xff", "not UTF-8 text at byte 0"),
        ("nonsense", "config of the load request:1"),
        (" " * (MAX_CONFIG_BYTES + 1), f"larger than the limit of {MAX_CONFIG_BYTES} bytes"),
    ],
)
def test_a_bad_config_in_a_load_request_is_refused(content: str | bytes, reason: str) -> None:
    with pytest.raises(ModelRejected) as caught:
        read_override(content)
    assert caught.value.message.startswith("config of the load request")
    assert reason in caught.value.message


def test_a_config_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match=r"larger than the limit .* \(max_config_bytes\)"):
        parse(tmp_path, "#" * (MAX_CONFIG_BYTES + 1))


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").mkdir()
    with pytest.raises(ModelRejected, match=r"config\.pbtxt: cannot be read: Is a directory"):
        read_config(tmp_path / "config.pbtxt")
