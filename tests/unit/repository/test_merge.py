from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from shardline.core.errors import ModelRejected
from shardline.core.models import Batching, BatchingMode, Padding, Stages, default_buckets
from shardline.repository import LoadedModel, LoadOptions, load_spec
from tests import onnx_models

if TYPE_CHECKING:
    from pathlib import Path

    import onnx


def load(folder: Path, proto: onnx.ModelProto, config: str | None = None, **options: int) -> LoadedModel:
    onnx_models.save(folder, "m", 1, proto, config)
    return load_spec(folder, "m", 1, options=LoadOptions(**options))


def parameter(**values: str) -> str:
    rows = (
        f'parameters {{ key: "shardline.{key}" value {{ string_value: "{value}" }} }}' for key, value in values.items()
    )
    return "".join("\n" + row for row in rows)


def without_shape(proto: onnx.ModelProto, *, output: bool = True, inputs: bool = False) -> onnx.ModelProto:
    for value in [*(proto.graph.output if output else ()), *(proto.graph.input if inputs else ())]:
        value.type.tensor_type.ClearField("shape")
    return proto


def test_a_model_without_a_config_is_served_from_its_graph(tmp_path: Path) -> None:
    loaded = load(tmp_path, onnx_models.add_one())
    spec = loaded.spec
    assert (spec.name, spec.version, spec.platform, spec.stages, spec.batched) == ("m", 1, "onnxruntime_onnx", 1, True)
    assert [(t.name, t.datatype.name, t.dims) for t in (*spec.inputs, *spec.outputs)] == [
        ("x", "FP32", (4,)),
        ("y", "FP32", (4,)),
    ]
    assert spec.batching == Batching(max_rows=32, buckets=(1, 2, 4, 8, 16, 32))
    assert loaded.warnings == ()
    config = loaded.config
    assert (config.name, config.platform, config.backend) == ("m", "onnxruntime_onnx", "onnxruntime")
    assert (config.max_batch_size, config.default_model_filename) == (32, "model.onnx")
    assert config.version_policy.latest.num_versions == 1
    assert config.HasField("dynamic_batching")
    assert (config.input[0].data_type, list(config.input[0].dims)) == (11, [4])
    assert type(config).FromString(spec.config) == config


def _symbolic(*dims: int | str) -> onnx.ModelProto:
    return onnx_models.identity("FP32", dims)


MIXED = onnx_models.two_inputs()
MIXED.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 2
SEQUENCE_FIRST = onnx_models.two_inputs()
SEQUENCE_FIRST.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "n"


@pytest.mark.parametrize(
    ("proto", "config", "max_rows"),
    [
        (_symbolic("batch", 4), None, 32),
        (_symbolic(-1, 4), None, 32),
        (_symbolic("batch"), None, 32),
        (_symbolic(2, 4), None, 0),
        (_symbolic(1, 4), None, 0),
        (_symbolic(), None, 0),
        (_symbolic("n", "n"), None, 0),
        (MIXED, None, 0),
        (SEQUENCE_FIRST, None, 0),
        (onnx_models.two_outputs(), None, 32),
        (without_shape(onnx_models.add_one()), 'output { name: "y" dims: 4 }', 32),
        (_symbolic("batch", 4), "max_batch_size: 0", 0),
        (_symbolic("batch", 4), "max_batch_size: 1", 1),
        (_symbolic("batch", 4), "max_batch_size: 7", 7),
        (_symbolic("batch", 4), 'input { name: "x" dims: [ -1, 4 ] }', 0),
        (_symbolic("batch", 4), 'input { name: "x" dims: [ 4 ] }', 32),
        (_symbolic("batch", 4), 'output { name: "y" dims: [ -1, 4 ] }', 0),
        (_symbolic("batch", 4), parameter(buckets="2,6"), 6),
        (_symbolic(2, 4), "max_batch_size: 0", 0),
    ],
)
def test_the_largest_batch_comes_from_the_config_or_the_graphs_first_axes(
    tmp_path: Path, proto: onnx.ModelProto, config: str | None, max_rows: int
) -> None:
    loaded = load(tmp_path, proto, config)
    assert loaded.spec.batching.max_rows == max_rows
    assert loaded.config.max_batch_size == max_rows
    rank = len(proto.graph.input[0].type.tensor_type.shape.dim) - (max_rows > 0)
    assert len(loaded.spec.inputs[0].dims) == rank
    assert len(loaded.config.input[0].dims) == rank


def test_the_default_largest_batch_is_an_option(tmp_path: Path) -> None:
    assert load(tmp_path, onnx_models.add_one(), default_max_batch=5).spec.batching.buckets == (1, 2, 4, 5)
    assert load(tmp_path, onnx_models.add_one(), default_max_batch=0).spec.inputs[0].dims == ("batch", 4)


X, Y = 'input { name: "x" %s }', 'output { name: "y" %s }'


@pytest.mark.parametrize(
    ("proto", "config", "told"),
    [
        (_symbolic("batch", 4), 'name: "other"', ["name", "'other'", "'m'"]),
        (
            _symbolic("batch", 4),
            'platform: "tensorflow_savedmodel"',
            ["platform", "'tensorflow_savedmodel'", "'onnxruntime_onnx'"],
        ),
        (_symbolic("batch", 4), 'backend: "python"', ["backend", "'python'", "'onnxruntime'"]),
        (_symbolic("batch", 4), X % "data_type: TYPE_INT64", ["'x'", "data_type", "TYPE_INT64", "TYPE_FP32"]),
        (_symbolic("batch", 4), Y % "data_type: TYPE_FP16", ["output 'y'", "TYPE_FP16", "TYPE_FP32"]),
        (_symbolic("batch", 4), 'input { name: "z" }', ["'z' is not in the model", "'x'"]),
        (_symbolic("batch", 4), 'output { name: "yy" }', ["'yy' is not in the model", "did you mean 'y'"]),
        (_symbolic("batch", 4), "input { data_type: TYPE_FP32 }", ["input[0] has no name"]),
        (_symbolic("batch", 4), 'input { name: "x" } input { name: "x" }', ["'x' stands in the config twice"]),
        (_symbolic("batch", 4), X % "dims: 5", ["'x'", "dims are [5]", "[4]", "[batch, 4]"]),
        (_symbolic("batch", 4), X % "dims: -1", ["'x'", "dims are [-1]", "[4]"]),
        (_symbolic("batch", 4), X % "dims: [1, 2, 3]", ["dims are [1, 2, 3]", "[4]"]),
        (_symbolic("batch", 4), "max_batch_size: 8 " + X % "dims: [-1, 4]", ["[-1, 4]", "[4]", "leaves out"]),
        (_symbolic("batch", 4), "max_batch_size: 0 " + X % "dims: [4]", ["dims are [4]", "[batch, 4]"]),
        (_symbolic("batch", 4), X % "dims: -2", ["dims are [-2]"]),
        (_symbolic("batch", 4), "max_batch_size: -1", ["max_batch_size is -1", "65536"]),
        (_symbolic("batch", 4), "max_batch_size: 99999", ["max_batch_size is 99999", "65536"]),
        (_symbolic(2, 4), "max_batch_size: 8", ["max_batch_size is 8", "'x'", "fixed first dimension of 2"]),
        (_symbolic(), "max_batch_size: 8", ["max_batch_size is 8", "'x' has no axes"]),
        (MIXED, "max_batch_size: 8", ["max_batch_size is 8", "'b' has a fixed first dimension of 2"]),
        (_symbolic("n", "n"), "max_batch_size: 8", ["max_batch_size is 8", "'n' at axis 1", "first of 'x'"]),
        (without_shape(onnx_models.add_one()), None, ["output 'y' has no shape in the model", "give its dims"]),
        (without_shape(onnx_models.add_one()), "max_batch_size: 8", ["max_batch_size is 8", "'y' has no shape"]),
        (
            onnx_models.two_inputs(),
            'input { name: "a" dims: 5 } input { name: "b" dims: 6 }',
            ["'n' is one dimension", "5 in 'a'", "6 in 'b'"],
        ),
        (_symbolic("batch", 4), 'default_model_filename: "../x"', ["default_model_filename is '../x'"]),
        (_symbolic("batch", 4), 'default_model_filename: "other.onnx"', ["'other.onnx' cannot be read"]),
    ],
)
def test_a_contradiction_is_refused_with_the_field_and_both_values(
    tmp_path: Path, proto: onnx.ModelProto, config: str | None, told: list[str]
) -> None:
    with pytest.raises(ModelRejected) as caught:
        load(tmp_path, proto, config)
    for each in told:
        assert each in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "config",
    [
        'input { name: "a\\nb" allow_ragged_batch: true }',
        'input { name: "a\\nb" }',
        parameter(**{"pad.a\\nb": "axis=0"}),
        parameter(**{"pad.a\\nb": "axis"}),
        parameter(**{"a\\nb": "axis"}),
        'name: "a\\nb"',
    ],
)
def test_a_name_from_outside_cannot_break_the_line_of_an_error(tmp_path: Path, config: str) -> None:
    with pytest.raises(ModelRejected) as caught:
        load(tmp_path, onnx_models.add_one(), config)
    assert "a\\nb" in caught.value.message
    assert "\n" not in caught.value.message


def test_an_error_begins_with_the_config_file(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match=re.escape(f"{tmp_path}/m/config.pbtxt: name is 'n'")):
        load(tmp_path, onnx_models.add_one(), 'name: "n"')


def test_a_config_fixes_a_symbol_wherever_it_stands(tmp_path: Path) -> None:
    spec = load(tmp_path, onnx_models.two_inputs(), 'input { name: "a" dims: 5 }').spec
    assert [tensor.dims for tensor in (*spec.inputs, *spec.outputs)] == [(5,), (5,), (5,)]


def test_a_dynamic_dimension_in_the_config_keeps_its_name(tmp_path: Path) -> None:
    loaded = load(tmp_path, onnx_models.two_inputs(), 'input { name: "a" dims: -1 }')
    assert [tensor.dims for tensor in loaded.spec.inputs] == [("n",), ("n",)]
    assert [list(tensor.dims) for tensor in loaded.config.input] == [[-1], [-1]]


def test_a_shape_that_the_graph_lacks_comes_from_the_config(tmp_path: Path) -> None:
    proto = without_shape(onnx_models.add_one(), inputs=True)
    config = 'input { name: "x" dims: [4] } output { name: "y" dims: [-1] }'
    spec = load(tmp_path, proto, "max_batch_size: 8 " + config).spec
    assert [tensor.dims for tensor in (*spec.inputs, *spec.outputs)] == [(4,), (-1,)]


def test_inputs_keep_the_graphs_order_and_what_was_written_about_them(tmp_path: Path) -> None:
    config = 'input { name: "b" format: FORMAT_NHWC } output { name: "y" label_filename: "labels.txt" }'
    loaded = load(tmp_path, onnx_models.two_inputs(), config)
    assert [tensor.name for tensor in loaded.config.input] == ["a", "b"]
    assert loaded.config.input[1].format == 1
    assert loaded.config.output[0].label_filename == "labels.txt"


DYNAMIC = "max_batch_size: 8 dynamic_batching { %s }"


def test_dynamic_batching_becomes_batching(tmp_path: Path) -> None:
    config = DYNAMIC % (
        "preferred_batch_size: [3, 8] max_queue_delay_microseconds: 1500 priority_levels: 3 default_priority_level: 2 "
        "default_queue_policy { default_timeout_microseconds: 250000 max_queue_size: 64 }"
    )
    assert load(tmp_path, onnx_models.add_one(), config).spec.batching == Batching(
        max_rows=8,
        buckets=(1, 2, 3, 4, 8),
        queue_delay_s=0.0015,
        queue_rows=64,
        default_timeout_s=0.25,
        priority_levels=3,
        default_priority=2,
    )


def test_a_delay_needs_no_time_out_beside_it(tmp_path: Path) -> None:
    batching = load(tmp_path, onnx_models.add_one(), DYNAMIC % "max_queue_delay_microseconds: 500").spec.batching
    assert (batching.queue_delay_s, batching.default_timeout_s) == (0.0005, 0.0)


def test_parameters_become_batching_and_execution(tmp_path: Path) -> None:
    config = parameter(
        buckets="1,4",
        default_timeout_ms="100",
        queue_rows="16",
        batching="always",
        stages="2Gi",
        threads="3",
        micro_batch="2",
        device="cpu",
    )
    config += parameter(**{"pad.x": "axis=0,value=1,multiple=4", "trim.y": "axis=0"})
    spec = load(tmp_path, onnx_models.double_each(), config).spec
    assert spec.batching == Batching(
        max_rows=4,
        buckets=(1, 4),
        queue_rows=16,
        default_timeout_s=0.1,
        pad_inputs={"x": Padding(0, 1.0, 4)},
        trim_outputs={"y": 0},
        mode=BatchingMode.ALWAYS,
    )
    execution = spec.execution
    assert (execution.device, execution.threads, execution.micro_batch) == ("cpu", 3, 2)
    assert execution.stages == Stages(count=0, memory_bytes=2 << 30)


def test_batching_off_keeps_the_batch_axis_and_says_nothing_of_dynamic_batching(tmp_path: Path) -> None:
    loaded = load(tmp_path, onnx_models.add_one(), parameter(batching="off"))
    assert loaded.spec.batching.mode is BatchingMode.OFF
    assert loaded.spec.batching.max_rows == 32
    assert not loaded.config.HasField("dynamic_batching")


def test_a_large_batch_makes_the_default_queue_as_large(tmp_path: Path) -> None:
    assert load(tmp_path, onnx_models.add_one(), "max_batch_size: 5000").spec.batching.queue_rows == 5000


def test_a_queue_bound_in_requests_holds_a_full_batch_and_says_so(tmp_path: Path) -> None:
    loaded = load(tmp_path, onnx_models.add_one(), DYNAMIC % "default_queue_policy { max_queue_size: 2 }")
    assert loaded.spec.batching.queue_rows == 8
    assert loaded.warnings == (
        "max_queue_size 2 is taken as 8 rows: the queue is bounded in rows and holds a full batch",
    )


@pytest.mark.parametrize(
    ("config", "threads"),
    [
        ('parameters { key: "intra_op_thread_count" value { string_value: "2" } }', 2),
        ('parameters { key: "intra_op_thread_count" value { string_value: "0" } }', 0),
        ('parameters { key: "intra_op_thread_count" value { string_value: "2" } }' + parameter(threads="5"), 5),
    ],
)
def test_tritons_thread_count_is_honoured(tmp_path: Path, config: str, threads: int) -> None:
    assert load(tmp_path, onnx_models.add_one(), config).spec.execution.threads == threads


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (DYNAMIC % "preferred_batch_size: 9", ["preferred_batch_size has 9", "max_batch_size is 8"]),
        (DYNAMIC % "preferred_batch_size: 0", ["preferred_batch_size has 0"]),
        (DYNAMIC % "priority_levels: 3", ["default_priority_level is 0", "priority_levels is 3"]),
        (
            DYNAMIC % "priority_levels: 3 default_priority_level: 4",
            ["default_priority_level is 4", "priority_levels is 3"],
        ),
        (DYNAMIC % "default_priority_level: 1", ["default_priority_level is 1", "priority_levels is 0"]),
        (DYNAMIC % "priority_levels: 9999 default_priority_level: 1", ["priority_levels is 9999", "1024"]),
        (DYNAMIC % "max_queue_delay_microseconds: 99000000", ["99000000", "60 s"]),
        (
            DYNAMIC % "max_queue_delay_microseconds: 2000 default_queue_policy { default_timeout_microseconds: 1000 }",
            ["max_queue_delay_microseconds is 2000", "0.001 s"],
        ),
        (DYNAMIC % "default_queue_policy { default_timeout_microseconds: 99999999999 }", ["longer than a day"]),
        (
            DYNAMIC % "default_queue_policy { default_timeout_microseconds: 1000 }" + parameter(default_timeout_ms="2"),
            ["default_timeout_ms is 2", "default_timeout_microseconds is 1000", "keep one"],
        ),
        (
            DYNAMIC % "default_queue_policy { max_queue_size: 64 }" + parameter(queue_rows="65"),
            ["queue_rows is 65", "max_queue_size is 64", "keep one"],
        ),
        ("max_batch_size: 8" + parameter(queue_rows="7"), ["queue_rows is 7", "max_batch_size is 8"]),
        ("max_batch_size: 8" + parameter(buckets="1,4"), ["buckets end with 4", "max_batch_size is 8"]),
        ("max_batch_size: 0" + parameter(buckets="1,4"), ["buckets end with 4", "max_batch_size is 0"]),
        ("max_batch_size: 0" + parameter(**{"pad.x": "axis=0"}), ["shardline.pad.x", "max_batch_size is 0"]),
        (parameter(**{"pad.z": "axis=0"}), ["shardline.pad.z", "no input 'z'", "'x'"]),
        (parameter(**{"pad.y": "axis=0"}), ["shardline.pad.y", "no input 'y'"]),
        (parameter(**{"trim.x": "axis=0"}), ["shardline.trim.x", "no output 'x'"]),
        (parameter(**{"pad.x": "axis=2"}), ["axis is 2", "'x' has 2 axes"]),
        (parameter(**{"pad.x": "axis=1"}), ["axis 1 of 'x' is fixed to 4"]),
        (parameter(**{"trim.y": "axis=1"}), ["axis 1 of 'y' is fixed to 4"]),
        (parameter(**{"pad.x": "axis=0,value=300"}), ["value is 300", "'x' is INT8"]),
        (parameter(**{"pad.x": "axis=0,value=0.5"}), ["value is 0.5", "'x' is INT8"]),
        ('parameters { key: "intra_op_thread_count" value { string_value: "-2" } }', ["intra_op_thread_count is '-2'"]),
    ],
)
def test_batching_that_contradicts_itself_or_the_model_is_refused(tmp_path: Path, config: str, told: list[str]) -> None:
    with pytest.raises(ModelRejected) as caught:
        load(tmp_path, onnx_models.identity("INT8", ("batch", "n", 4)), config)
    for each in told:
        assert each in caught.value.message


@pytest.mark.parametrize(
    ("datatype", "value", "fits"),
    [
        ("FP32", "-inf", True),
        ("FP32", "1e38", True),
        ("FP32", "1e39", False),
        ("FP16", "65504", True),
        ("FP16", "70000", False),
        ("BF16", "1e38", True),
        ("BF16", "1e39", False),
        ("FP64", "1e300", True),
        ("BOOL", "1", True),
        ("BOOL", "2", False),
        ("UINT8", "255", True),
        ("UINT8", "-1", False),
        ("INT8", "-128", True),
        ("INT8", "128", False),
        ("INT64", "-1", True),
        ("INT64", "inf", False),
        ("BYTES", "0", False),
    ],
)
def test_a_padding_value_must_fit_its_data_type(tmp_path: Path, datatype: str, value: str, fits: bool) -> None:
    proto, config = onnx_models.identity(datatype, ("batch", "n")), parameter(**{"pad.x": f"axis=0,value={value}"})
    if fits:
        assert load(tmp_path, proto, config).spec.batching.pad_inputs["x"].value == float(value)
    else:
        with pytest.raises(ModelRejected, match=datatype):
            load(tmp_path, proto, config)


def test_default_buckets_double_up_to_the_largest_batch(tmp_path: Path) -> None:
    for rows in (1, 2, 3, 12, 32):
        buckets = load(tmp_path, onnx_models.add_one(), f"max_batch_size: {rows}").spec.batching.buckets
        assert buckets == default_buckets(rows)
