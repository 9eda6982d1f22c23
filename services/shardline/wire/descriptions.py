"""Model specs as control messages: what a replica tells a router before the first row."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shardline.core.cluster import PoolKey
from shardline.core.datatypes import BY_NAME
from shardline.core.models import Batching, Dim, ModelSpec, TensorSpec
from shardline.pb.inference import model_config_pb2
from shardline.pb.shardline.v1 import control_pb2 as pb


@dataclass(frozen=True, slots=True)
class StageLink:
    """A stage of a split model as the router needs it: what it takes of the request, what it gives of the answer."""

    stage: int
    request_inputs: tuple[str, ...]
    answer_outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """A pool member as it describes itself.

    unbatched_because: "" where rows of different requests share batches. plan: digest of the plan, "" for one stage.
    micro_batch_rows: how many rows travel together through the stages; 0 for one stage.
    """

    pool: PoolKey
    spec: ModelSpec
    unbatched_because: str = ""
    plan: str = ""
    micro_batch_rows: int = 0
    stages: tuple[StageLink, ...] = ()


def encode(description: Description) -> pb.ModelDescription:
    """A description as a message."""
    spec = description.spec
    batching = spec.batching
    message = pb.ModelDescription(
        name=spec.name,
        version=spec.version,
        stage=description.pool.stage,
        stages=spec.stages,
        platform=spec.platform,
        inputs=[_tensor(tensor) for tensor in spec.inputs],
        outputs=[_tensor(tensor) for tensor in spec.outputs],
        max_rows=batching.max_rows,
        buckets=batching.buckets,
        queue_rows=batching.queue_rows,
        default_timeout_ms=math.ceil(round(batching.default_timeout_s * 1e3, 6)),
        priority_levels=batching.priority_levels,
        default_priority=batching.default_priority,
        digest=spec.digest,
        config=model_config_pb2.ModelConfig.FromString(spec.config),
        unbatched_because=description.unbatched_because,
        plan=description.plan,
        micro_batch_rows=description.micro_batch_rows,
    )
    for link in description.stages:
        message.stage_graph.add(
            stage=link.stage, request_inputs=link.request_inputs, answer_outputs=link.answer_outputs
        )
    return message


def decode(message: pb.ModelDescription) -> Description:
    """Inverse of encode, but for what only the replica needs (padding). Raises KeyError on an unknown data type."""
    batching = Batching(
        max_rows=message.max_rows,
        buckets=tuple(message.buckets),
        queue_rows=message.queue_rows,
        default_timeout_s=message.default_timeout_ms / 1e3,
        priority_levels=message.priority_levels,
        default_priority=message.default_priority,
    )
    spec = ModelSpec(
        name=message.name,
        version=message.version,
        platform=message.platform,
        inputs=tuple(_spec(tensor) for tensor in message.inputs),
        outputs=tuple(_spec(tensor) for tensor in message.outputs),
        batching=batching,
        config=message.config.SerializeToString(),
        digest=message.digest,
        stages=message.stages,
    )
    return Description(
        pool=PoolKey(message.name, message.version, message.stage),
        spec=spec,
        unbatched_because=message.unbatched_because,
        plan=message.plan,
        micro_batch_rows=message.micro_batch_rows,
        stages=tuple(
            StageLink(item.stage, tuple(item.request_inputs), tuple(item.answer_outputs))
            for item in message.stage_graph
        ),
    )


def _tensor(tensor: TensorSpec) -> pb.TensorSpec:
    return pb.TensorSpec(
        name=tensor.name,
        datatype=tensor.datatype.name,
        dims=tensor.wire_dims,
        symbols=[dim if isinstance(dim, str) else "" for dim in tensor.dims],
        optional=tensor.optional,
    )


def _spec(message: pb.TensorSpec) -> TensorSpec:
    dims: list[Dim] = [symbol or dim for dim, symbol in zip(message.dims, message.symbols, strict=True)]
    return TensorSpec(message.name, BY_NAME[message.datatype], tuple(dims), message.optional)
