"""docs/models.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shardline.core.errors import ModelRejected
from shardline.repository import config_text, load, onnx_skeleton, signature
from shardline.repository.parameters import MAX_ROWS, PREFIX, TABLE
from tests import onnx_models

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_parameter_stands_in_the_page_with_its_example_and_meaning() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{PREFIX}")]
    expected = [
        f"| `{PREFIX}{row.name}{f'.<{row.tensor}>' if row.tensor else ''}` | `{row.example}` | {row.meaning} |"
        for row in TABLE.values()
    ]
    assert rows == expected


def test_the_example_configs_are_the_same_and_are_served(tmp_path: Path) -> None:
    (text,), (plain,) = examples("pbtxt"), examples("yaml")
    (tmp_path / "config.yaml").write_text(plain)
    read = config_text.read_config(tmp_path / "config.yaml")
    assert read.message == config_text.read_override(text).message
    proto = onnx_models.identity("INT64", ("batch", "seq"))
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "input_ids"
    onnx_models.save(tmp_path, "m", 1, proto, text)
    assert load.load_spec(tmp_path, "m", 1).spec.batching.buckets == (1, 2, 4, 8, 16)


def test_the_example_errors_are_what_is_said(tmp_path: Path) -> None:
    for config in ('input { name: "x" data_type: TYPE_INT64 }', "\n\nmax_batchsize: 8"):
        onnx_models.save(tmp_path, "m", 1, onnx_models.add_one(), config)
        with pytest.raises(ModelRejected) as caught:
            load.load_spec(tmp_path, "m", 1)
        assert caught.value.message.replace(str(tmp_path), "models") in PAGE


def test_the_bounds_and_defaults_are_those_of_the_code() -> None:
    assert f"| {signature.MAX_MODEL_BYTES >> 30} GiB |" in PAGE
    fields = onnx_skeleton._MAX_FIELDS // 1_000_000
    graph = f"{signature.MAX_GRAPH_BYTES >> 20} MiB, {fields} million fields, {onnx_skeleton._MAX_DEPTH} levels"
    assert f"| {graph} |" in PAGE
    assert f"| {config_text.MAX_CONFIG_BYTES >> 10} KiB |" in PAGE
    assert f"| {signature._MAX_TENSORS} each, {signature._MAX_RANK} dimensions |" in PAGE
    assert f"batch is {load.DEFAULT_OPTIONS.default_max_batch}, or the last" in PAGE
    assert f"at most {MAX_ROWS}" in PAGE
