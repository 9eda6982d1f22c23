"""Which fields of Triton's model config this server honours, passes over with a warning, or refuses.

A field that would change answers or the protocol is refused; one that only tunes another server is passed over.
Source: Triton's model_config.proto and model_configuration.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.core.errors import ModelRejected
from shardline.pb.inference.model_config_pb2 import ModelInstanceGroup
from shardline.repository.layout import shown
from shardline.repository.parameters import PREFIX, suspicious

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shardline.pb.inference.model_config_pb2 import ModelConfig, ModelDynamicBatching, ModelOptimizationPolicy

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"

_REFUSED = {
    "sequence_batching": "state between requests is not kept",
    "ensemble_scheduling": "ensembles are not served; call the models one after the other, or join them into one graph",
    "batch_input": "inputs that the server makes up are not offered",
    "batch_output": "outputs that the server splits by another tensor's shape are not offered",
    "model_operations": "libraries of custom operators are code and are not loaded from a model repository",
    "model_repository_agents": "repository agents are not run",
}
_PASSED_OVER = {
    "cc_model_filenames": "the same file is used on every device",
    "metric_tags": "metrics carry no tags of the model",
    "model_metrics": "histograms have their own buckets",
    "model_warmup": "every bucket is warmed with generated input before a replica is ready",
}
_PLACED = (ModelInstanceGroup.KIND_GPU, ModelInstanceGroup.KIND_MODEL)
_ORT_PARAMETERS = (
    "inter_op_thread_count",
    "execution_mode",
    "enable_mem_arena",
    "enable_mem_pattern",
    "memory.enable_memory_arena_shrinkage",
    "session.",
)


def check_features(config: ModelConfig) -> tuple[str, ...]:
    """Warnings about fields that are passed over. Raises ModelRejected for a field that cannot be honoured."""
    _check_backend(config)
    for name, why in _REFUSED.items():
        if _is_set(config, name):
            raise ModelRejected(f"{name} is not supported: {why}")
    if config.model_transaction_policy.decoupled:
        raise ModelRejected("model_transaction_policy.decoupled is true, but an ONNX model answers each request once")
    _check_tensors(config)
    return tuple(_warnings(config))


def _check_backend(config: ModelConfig) -> None:
    for name, ours in (("platform", PLATFORM), ("backend", BACKEND)):
        value = getattr(config, name)
        if value not in ("", ours):
            raise ModelRejected(f"{name} is {shown(value)}, but only {ours!r} is served here")
    if config.runtime not in ("", "libtriton_onnxruntime.so"):
        raise ModelRejected(
            f"runtime is {shown(config.runtime)}, but models run in ONNX Runtime and no other library is loaded"
        )


def _check_tensors(config: ModelConfig) -> None:
    for kind, tensors in (("input", config.input), ("output", config.output)):
        for tensor in tensors:
            what = f"{kind} {shown(tensor.name)}"
            if tensor.HasField("reshape") and list(tensor.reshape.shape) != list(tensor.dims):
                raise ModelRejected(
                    f"{what}: reshape from {list(tensor.dims)} to {list(tensor.reshape.shape)} is not supported; "
                    "give the dims that the model has, or reshape inside the model"
                )
            if tensor.is_shape_tensor or tensor.is_non_linear_format_io:
                raise ModelRejected(
                    f"{what}: shape tensors and non-linear formats belong to TensorRT, not to ONNX models"
                )
    for tensor in config.input:
        if tensor.allow_ragged_batch:
            raise ModelRejected(
                f"input {shown(tensor.name)}: allow_ragged_batch is not supported; "
                f"{PREFIX}pad.{tensor.name} lets rows of different lengths share a batch"
            )
        if tensor.optional:
            raise ModelRejected(f"input {shown(tensor.name)} is optional, but the model cannot run without it")


def _warnings(config: ModelConfig) -> Iterator[str]:
    for name, why in _PASSED_OVER.items():
        if _is_set(config, name):
            yield f"{name} is not used: {why}"
    if any(group.count > 1 or group.gpus or group.kind in _PLACED for group in config.instance_group):
        yield f"instance_group is not used: replicas and devices are set with --replicas and --device, or {PREFIX}device"
    if config.response_cache.enable:
        yield "response_cache.enable is not used: every request is executed"
    if any(output.label_filename for output in config.output):
        yield "output.label_filename is not used: answers carry no labels"
    if config.HasField("optimization"):
        yield from _optimization(config.optimization)
    if config.HasField("dynamic_batching"):
        yield from _dynamic_batching(config.dynamic_batching)
    yield from _parameters(config)


def _parameters(config: ModelConfig) -> Iterator[str]:
    for key in sorted(config.parameters):
        if suspicious(key):
            yield f"parameter {shown(key)} is not used: did you mean the prefix {PREFIX!r}?"
        elif key.startswith(_ORT_PARAMETERS):
            yield f"parameter {shown(key)} is not used"


def _optimization(optimization: ModelOptimizationPolicy) -> Iterator[str]:
    if optimization.HasField("execution_accelerators"):
        yield f"optimization.execution_accelerators is not used: choose the device by {PREFIX}device"
    tuned = {field.name for field, _ in optimization.ListFields()}
    for name in sorted(tuned & {"graph", "priority", "cuda", "gather_kernel_buffer_threshold"}):
        yield f"optimization.{name} is not used: the replica chooses for its device"


def _dynamic_batching(batching: ModelDynamicBatching) -> Iterator[str]:
    if batching.preserve_ordering:
        yield "dynamic_batching.preserve_ordering is not used: answers leave as they are ready"
    if batching.priority_queue_policy:
        yield "dynamic_batching.priority_queue_policy is not used: all priorities share default_queue_policy"
    if batching.default_queue_policy.timeout_action == batching.default_queue_policy.DELAY:
        yield "default_queue_policy.timeout_action DELAY is served as REJECT: late work is refused, not run late"


def _is_set(config: ModelConfig, name: str) -> bool:
    return any(field.name == name for field, _ in config.ListFields())
