"""A model's config and its graph, merged into what is served.

The config wins where the graph leaves room (a dynamic dimension, the largest batch); where the two contradict each other
the model is refused, naming the field and both values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardline.core.errors import ModelRejected
from shardline.core.models import Batching, BatchingMode, Execution, Stages, TensorSpec, default_buckets
from shardline.pb.inference import model_config_pb2
from shardline.repository.features import BACKEND, PLATFORM, check_features
from shardline.repository.layout import DEFAULT_MODEL_FILENAME, one_line, shown
from shardline.repository.padding import check_padding, check_trimming
from shardline.repository.parameters import MAX_ROWS, PREFIX, Settings, parse_parameters
from shardline.repository.tensors import can_batch, merge_tensors, seems_unbatched

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from shardline.repository.config_text import ParsedConfig
    from shardline.repository.signature import Signature

DEFAULT_MAX_BATCH = 32
"""Largest batch of a model that can batch and whose config does not say how much. Six buckets to warm."""
_MAX_FILENAME_BYTES = 255
_MAX_PRIORITIES = 1024
_MAX_DELAY_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Merged:
    """What one version's config and graph say together. config: the complete message, as ModelConfig answers it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batching: Batching
    execution: Execution
    config: model_config_pb2.ModelConfig
    warnings: tuple[str, ...]


def merge(model: str, parsed: ParsedConfig, signature: Signature, *, default_max_batch: int) -> Merged:
    """Fill a config from the graph and check the two against each other.

    default_max_batch: rows, for a model that can batch and a config that is silent.
    Raises ModelRejected, beginning with the config's source.
    """
    try:
        return _merge(model, parsed, signature, default_max_batch)
    except ModelRejected as error:
        raise ModelRejected(f"{parsed.source}: {one_line(error.message)}") from error


def _merge(model: str, parsed: ParsedConfig, signature: Signature, default_max_batch: int) -> Merged:
    written = parsed.message
    if written.name not in ("", model):
        raise ModelRejected(f"name is {shown(written.name)} in the config, but the model's folder is {model!r}")
    warnings = check_features(written)
    settings = parse_parameters({key: value.string_value for key, value in written.parameters.items()})
    max_rows = _max_rows(parsed, signature, settings, default_max_batch)
    inputs, outputs = merge_tensors(signature, written, batched=max_rows > 0)
    batching, more = _batching(written, settings, max_rows)
    check_padding(settings.pad, inputs, batched=max_rows > 0)
    check_trimming(settings.trim, outputs, batched=max_rows > 0)
    execution = Execution(
        device=settings.device or "auto",
        threads=_threads(written, settings),
        micro_batch=settings.micro_batch or 0,
        stages=settings.stages or Stages(),
    )
    config = _complete(model, written, inputs, outputs, batching)
    return Merged(inputs, outputs, batching, execution, config, warnings + more)


def _max_rows(parsed: ParsedConfig, signature: Signature, settings: Settings, default_max_batch: int) -> int:
    """The largest batch in rows, 0 for a model without a batch axis."""
    written = parsed.message
    obstacle = can_batch(signature, written)
    if parsed.max_batch_size_given:
        if not 0 <= written.max_batch_size <= MAX_ROWS:
            raise ModelRejected(
                f"max_batch_size is {written.max_batch_size}; 0 (no batch axis) to {MAX_ROWS} are possible"
            )
        if written.max_batch_size and obstacle:
            raise ModelRejected(
                f"max_batch_size is {written.max_batch_size} in the config, but {obstacle} in the model; "
                "set it to 0 (with whole shapes in dims), or export the model with a dynamic batch axis"
            )
        return written.max_batch_size
    if obstacle or seems_unbatched(signature, written):
        return 0
    return settings.buckets[-1] if settings.buckets else default_max_batch


def _batching(
    written: model_config_pb2.ModelConfig, settings: Settings, max_rows: int
) -> tuple[Batching, tuple[str, ...]]:
    dynamic = written.dynamic_batching
    policy = dynamic.default_queue_policy
    if settings.buckets and max_rows != settings.buckets[-1]:
        raise ModelRejected(
            f"{PREFIX}buckets end with {settings.buckets[-1]}, but max_batch_size is {max_rows}; they must be equal"
        )
    _check_priorities(dynamic)
    timeout_s = _timeout_s(policy, settings)
    queue_rows, warnings = _queue_rows(policy, settings, max_rows)
    _check_delay(dynamic.max_queue_delay_microseconds, timeout_s)
    batching = Batching(
        max_rows=max_rows,
        buckets=_buckets(dynamic, settings, max_rows),
        queue_delay_s=dynamic.max_queue_delay_microseconds / 1e6,
        queue_rows=queue_rows,
        default_timeout_s=timeout_s,
        priority_levels=dynamic.priority_levels,
        default_priority=dynamic.default_priority_level,
        pad_inputs=dict(settings.pad),
        trim_outputs=dict(settings.trim),
        mode=settings.batching or BatchingMode.AUTO,
    )
    return batching, warnings


def _buckets(dynamic: model_config_pb2.ModelDynamicBatching, settings: Settings, max_rows: int) -> tuple[int, ...]:
    """The default or given buckets, with the preferred batch sizes among them."""
    for size in dynamic.preferred_batch_size:
        if not 1 <= size <= max_rows:
            raise ModelRejected(
                f"dynamic_batching.preferred_batch_size has {size}, but max_batch_size is {max_rows}"
                + ("" if max_rows else ": the model has no batch axis")
            )
    sizes = {*(settings.buckets or default_buckets(max_rows)), *dynamic.preferred_batch_size}
    return tuple(sorted(sizes))


def _check_delay(delay_us: int, timeout_s: float) -> None:
    """timeout_s: the model's own, 0 where the router's setting decides."""
    what = f"dynamic_batching.max_queue_delay_microseconds is {delay_us}"
    if delay_us > _MAX_DELAY_US:
        raise ModelRejected(f"{what}, longer than {_MAX_DELAY_US // 1_000_000} s")
    if timeout_s and delay_us > timeout_s * 1e6:
        raise ModelRejected(f"{what}, longer than the default time-out of {timeout_s:g} s")


def _check_priorities(dynamic: model_config_pb2.ModelDynamicBatching) -> None:
    levels, default = dynamic.priority_levels, dynamic.default_priority_level
    if levels > _MAX_PRIORITIES:
        raise ModelRejected(f"dynamic_batching.priority_levels is {levels}, more than {_MAX_PRIORITIES}")
    if (levels and not 1 <= default <= levels) or (default and not levels):
        raise ModelRejected(
            f"dynamic_batching.default_priority_level is {default}, but priority_levels is {levels}; "
            "it is 1 (the most urgent) to priority_levels"
        )


def _timeout_s(policy: model_config_pb2.ModelQueuePolicy, settings: Settings) -> float:
    given = policy.default_timeout_microseconds
    own = settings.default_timeout_ms
    if given and own and given != round(own * 1000):
        raise ModelRejected(
            f"{PREFIX}default_timeout_ms is {own:g}, but default_timeout_microseconds is {given}; keep one"
        )
    if given > 24 * 3600 * 1_000_000:
        raise ModelRejected(f"default_timeout_microseconds is {given}, longer than a day")
    if own:
        return own / 1000
    return given / 1e6 if given else Batching().default_timeout_s


def _queue_rows(
    policy: model_config_pb2.ModelQueuePolicy, settings: Settings, max_rows: int
) -> tuple[int, tuple[str, ...]]:
    given, own = policy.max_queue_size, settings.queue_rows
    if given and own and given != own:
        raise ModelRejected(f"{PREFIX}queue_rows is {own}, but max_queue_size is {given}; keep one")
    if own and own < max_rows:
        raise ModelRejected(f"{PREFIX}queue_rows is {own}, but max_batch_size is {max_rows}: a full batch does not fit")
    if given and given < max_rows:
        warning = (
            f"max_queue_size {given} is taken as {max_rows} rows: the queue is bounded in rows and holds a full batch"
        )
        return max_rows, (warning,)
    return own or given or max(4096, max_rows), ()


def _threads(written: model_config_pb2.ModelConfig, settings: Settings) -> int:
    """shardline.threads, else intra_op_thread_count as Triton's ONNX Runtime backend reads it (0: auto)."""
    text = (
        written.parameters["intra_op_thread_count"].string_value
        if "intra_op_thread_count" in written.parameters
        else "0"
    )
    if not (text.isascii() and text.isdecimal() and int(text) <= 1024):
        raise ModelRejected(
            f"parameters: intra_op_thread_count is {shown(text)}; a whole number from 0 to 1024 is expected"
        )
    return int(text) if settings.threads is None else settings.threads


def model_filename(written: model_config_pb2.ModelConfig) -> str:
    """The name of the model's file within its version's folder. Raises ModelRejected when it is a path."""
    name = written.default_model_filename or DEFAULT_MODEL_FILENAME
    if "/" in name or "\0" in name or name in (".", "..") or len(name.encode()) > _MAX_FILENAME_BYTES:
        raise ModelRejected(
            f"default_model_filename is {shown(name)}; the name of a file in the version's folder is expected"
        )
    return name


def _complete(
    model: str,
    written: model_config_pb2.ModelConfig,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    batching: Batching,
) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig()
    config.CopyFrom(written)
    config.name, config.platform, config.backend = model, PLATFORM, BACKEND
    config.max_batch_size = batching.max_rows
    config.default_model_filename = model_filename(written)
    if not config.HasField("version_policy"):
        config.version_policy.latest.num_versions = 1
    if batching.max_rows > 1 and batching.mode is not BatchingMode.OFF and not config.HasField("dynamic_batching"):
        config.dynamic_batching.SetInParent()
    old_inputs, old_outputs = {t.name: t for t in written.input}, {t.name: t for t in written.output}
    del config.input[:], config.output[:]
    for spec in inputs:
        known = model_config_pb2.ModelInput(name=spec.name, data_type=spec.datatype.config, dims=spec.wire_dims)
        _add(config.input.add(), old_inputs.get(spec.name), known)
    for spec in outputs:
        answer = model_config_pb2.ModelOutput(name=spec.name, data_type=spec.datatype.config, dims=spec.wire_dims)
        _add(config.output.add(), old_outputs.get(spec.name), answer)
    return config


def _add(target: Message, written: Message | None, known: Message) -> None:
    """What was written (format, label file), with name, data type and dims as they are now known."""
    if written is not None:
        target.CopyFrom(written)
        target.ClearField("dims")
    target.MergeFrom(known)
