"""The table of examples against the models themselves."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import onnx
from google.protobuf import text_format
from onnx import helper

from examples import inputs
from examples.catalog import EXAMPLES
from shardline.core.datatypes import BY_CONFIG_NUMBER
from shardline.pb import POOL
from shardline.pb.inference import model_config_pb2

if TYPE_CHECKING:
    import onnxruntime


def parsed(name: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(EXAMPLES[name].config(), model_config_pb2.ModelConfig(), descriptor_pool=POOL)


def test_a_config_names_the_models_inputs_and_outputs_as_the_graph_has_them(
    example_name: str, example_session: onnxruntime.InferenceSession
) -> None:
    config = parsed(example_name)
    assert (config.name, config.platform) == (example_name, "onnxruntime_onnx")
    assert config.HasField("dynamic_batching")
    for declared, actual in (
        (config.input, example_session.get_inputs()),
        (config.output, example_session.get_outputs()),
    ):
        signature = [(t.name, BY_CONFIG_NUMBER[t.data_type].ort, [None, *t.dims]) for t in declared]
        free = {"batch": None, "seq": -1}
        assert signature == [(t.name, t.type, [free.get(dim, dim) for dim in t.shape]) for t in actual]


def test_the_sentence_encoder_says_how_its_rows_are_padded() -> None:
    parameters = parsed("minilm").parameters
    assert {key: value.string_value for key, value in parameters.items()} == {
        f"shardline.pad.{name}": "axis=0,value=0,multiple=8"
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }


def test_every_row_of_a_models_inputs_fits_its_graph(
    example_name: str, example_session: onnxruntime.InferenceSession
) -> None:
    rows = inputs.rows(example_name)
    assert len(rows) >= 4
    outputs = example_session.run(None, rows[0])
    assert all(output.shape[0] == 1 for output in outputs)
    assert [{name: array.shape[0] for name, array in row.items()} for row in rows] == [dict.fromkeys(rows[0], 1)] * len(
        rows
    )


def test_a_builder_makes_the_same_bytes_again(example_name: str, example_model: onnx.ModelProto) -> None:
    assert EXAMPLES[example_name].build().SerializeToString() == example_model.SerializeToString()


def test_a_graph_uses_standard_operators_only(example_model: onnx.ModelProto) -> None:
    assert {node.domain for node in example_model.graph.node} == {""}
    assert [entry.domain for entry in example_model.opset_import] == [""]
    assert helper.find_min_ir_version_for(example_model.opset_import) <= example_model.ir_version


def test_importing_the_examples_loads_nothing_heavy() -> None:
    heavy = ("onnx", "onnxruntime", "sklearn", "tokenizers", "torch", "sentence_transformers", "tritonclient", "grpc")
    script = "import sys, examples, examples.catalog, examples.inputs, examples.serving; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert not set(heavy) & set(loaded.stdout.split())
