from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardline.core.errors import ModelRejected
from shardline.repository import LoadedModel, load_spec
from tests import onnx_models

if TYPE_CHECKING:
    from pathlib import Path


def load(folder: Path, config: str) -> LoadedModel:
    onnx_models.save(folder, "m", 1, onnx_models.add_one(), config)
    return load_spec(folder, "m", 1)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("sequence_batching {}", "sequence_batching is not supported"),
        ("sequence_batching { oldest { max_candidate_sequences: 4 } }", "sequence_batching is not supported"),
        ('ensemble_scheduling { step { model_name: "a" } }', "ensemble_scheduling is not supported"),
        ('platform: "ensemble"', "platform is 'ensemble', but only 'onnxruntime_onnx'"),
        ('backend: "tensorrt"', "backend is 'tensorrt', but only 'onnxruntime'"),
        ('runtime: "libtriton_vllm.so"', "runtime is 'libtriton_vllm.so'"),
        ("model_transaction_policy { decoupled: true }", "decoupled is true"),
        (
            'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_FP32 }',
            "batch_input is not supported",
        ),
        ('batch_output { target_name: "y" }', "batch_output is not supported"),
        ('model_operations { op_library_filename: "evil.so" }', "model_operations is not supported"),
        ('model_repository_agents { agents { name: "checksum" } }', "model_repository_agents is not supported"),
        (
            'input { name: "x" dims: [2, 2] reshape { shape: [4] } }',
            "input 'x': reshape from [2, 2] to [4] is not supported",
        ),
        ('output { name: "y" dims: [4] reshape { shape: [] } }', "output 'y': reshape from [4] to []"),
        ('input { name: "x" is_shape_tensor: true }', "input 'x': shape tensors"),
        ('output { name: "y" is_non_linear_format_io: true }', "output 'y': shape tensors and non-linear formats"),
        ('input { name: "x" allow_ragged_batch: true }', "shardline.pad.x lets rows of different lengths"),
        ('input { name: "x" optional: true }', "input 'x' is optional, but the model cannot run without it"),
    ],
)
def test_a_feature_that_would_change_answers_is_refused(tmp_path: Path, config: str, reason: str) -> None:
    with pytest.raises(ModelRejected) as caught:
        load(tmp_path, config)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("config", "warning"),
    [
        ("instance_group { count: 2 kind: KIND_CPU }", "instance_group is not used"),
        ("instance_group { kind: KIND_GPU gpus: [0, 1] }", "instance_group is not used"),
        ('metric_tags { key: "team" value: "a" }', "metric_tags is not used"),
        ("model_metrics {}", "model_metrics is not used"),
        ('model_warmup { name: "w" batch_size: 1 }', "model_warmup is not used"),
        ('cc_model_filenames { key: "8.0" value: "b.onnx" }', "cc_model_filenames is not used"),
        ("response_cache { enable: true }", "response_cache.enable is not used"),
        ('output { name: "y" label_filename: "labels.txt" }', "output.label_filename is not used"),
        ("optimization { graph { level: 1 } }", "optimization.graph is not used"),
        ("optimization { cuda { graphs: true } }", "optimization.cuda is not used"),
        ("optimization { priority: PRIORITY_MAX }", "optimization.priority is not used"),
        (
            'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }',
            "optimization.execution_accelerators is not used",
        ),
        ("dynamic_batching { preserve_ordering: true }", "preserve_ordering is not used"),
        ("dynamic_batching { priority_queue_policy { key: 1 value {} } }", "priority_queue_policy is not used"),
        ("dynamic_batching { default_queue_policy { timeout_action: DELAY } }", "DELAY is served as REJECT"),
        ('parameters { key: "execution_mode" value { string_value: "1" } }', "parameter 'execution_mode' is not used"),
        ('parameters { key: "shradline.buckets" value { string_value: "1" } }', "did you mean the prefix 'shardline.'"),
    ],
)
def test_a_harmless_feature_is_passed_over_with_a_warning(tmp_path: Path, config: str, warning: str) -> None:
    loaded = load(tmp_path, config)
    assert len(loaded.warnings) == 1
    assert warning in loaded.warnings[0]


@pytest.mark.parametrize(
    "config",
    [
        "",
        'platform: "onnxruntime_onnx"',
        'backend: "onnxruntime"',
        'name: "m"',
        'runtime: "libtriton_onnxruntime.so"',
        "instance_group { count: 1 kind: KIND_CPU }",
        'instance_group { name: "m" count: 1 kind: KIND_AUTO }',
        "optimization { input_pinned_memory { enable: true } output_pinned_memory { enable: true } }",
        "optimization { eager_batching: true }",
        "response_cache { enable: false }",
        "model_transaction_policy { decoupled: false }",
        'input { name: "x" dims: [4] reshape { shape: [4] } }',
        'parameters { key: "mine" value { string_value: "anything" } }',
        "version_policy { all {} }",
    ],
)
def test_what_changes_nothing_is_accepted_in_silence(tmp_path: Path, config: str) -> None:
    assert load(tmp_path, config).warnings == ()
