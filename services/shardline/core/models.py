"""What the cluster knows about a model version: its signature and how it is batched."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardline.core.datatypes import DataType

Dim = int | str
"""A dimension: a size, -1 (any), or a symbolic name (any, but the same wherever the name stands)."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. dims leave out the batch axis where the model has one."""

    name: str
    datatype: DataType
    dims: tuple[Dim, ...]
    optional: bool = False

    @property
    def wire_dims(self) -> tuple[int, ...]:
        """dims as the protocol shows them: -1 for whatever is not fixed."""
        return tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in self.dims)


@dataclass(frozen=True, slots=True)
class Padding:
    """How one variable axis of a row is padded so that rows of different lengths share a batch.

    axis: index into the item's dims (the batch axis not counted). value: what fills the end.
    multiple: lengths are rounded up to a multiple of it.
    """

    axis: int
    value: float
    multiple: int = 8


class BatchingMode(StrEnum):
    """Whether rows of different requests may share a batch."""

    AUTO = "auto"
    """Where the batch-safety probe finds that they do not change each other's answers."""
    OFF = "off"
    """Never: each request runs alone."""
    ALWAYS = "always"
    """Without asking the probe: the operator vouches for the model."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How rows are batched. All bounds are in rows, all durations in seconds.

    max_rows: the largest batch; 0 where the model has no batch axis.
    buckets: the batch sizes that are warmed, ascending, the last is max_rows.
    queue_delay_s: how long a batch may wait for more rows (0: greedy).
    queue_rows: bound of the queue; beyond it rows are refused.
    default_timeout_s: deadline of a request that brings none; 0 leaves it to the router's setting.
    priority_levels: 0 where there are none; 1 is the most urgent. default_priority: of requests that name none.
    pad_inputs / trim_outputs: per input or output name, how variable axes are padded and trimmed.
    mode: whether rows of different requests may share a batch.
    """

    max_rows: int = 0
    buckets: tuple[int, ...] = ()
    queue_delay_s: float = 0.0
    queue_rows: int = 4096
    default_timeout_s: float = 0.0
    priority_levels: int = 0
    default_priority: int = 0
    pad_inputs: dict[str, Padding] = field(default_factory=dict)
    trim_outputs: dict[str, int] = field(default_factory=dict)
    mode: BatchingMode = BatchingMode.AUTO


@dataclass(frozen=True, slots=True)
class Stages:
    """Into how many stages a model's config asks to cut it.

    count: a number, or 0 for as many as the planner finds best.
    memory_bytes: the most that one stage may take, 0 for no bound.
    """

    count: int = 1
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Execution:
    """How a model's config asks to execute it; "auto" and 0 leave the choice to the replica.

    device: auto, cpu, cuda, cuda:N or simulated. threads: of ONNX Runtime within one operator.
    micro_batch: rows that travel together through the stages of a split model.
    """

    device: str = "auto"
    threads: int = 0
    micro_batch: int = 0
    stages: Stages = Stages()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model version as it is served.

    config: the serialised inference.ModelConfig that ModelConfig answers with.
    digest: of the files it was read from; the same digest means the same model.
    stages: 1 for a model that one process executes.
    execution: what the model's config asks of the process that executes it.
    """

    name: str
    version: int
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batching: Batching
    config: bytes
    digest: str
    stages: int = 1
    execution: Execution = Execution()

    @property
    def batched(self) -> bool:
        """Whether inputs and outputs have a batch axis."""
        return self.batching.max_rows > 0


def default_buckets(max_rows: int) -> tuple[int, ...]:
    """1, 2, 4, 8 … max_rows, the last one max_rows itself whatever it is.

    >>> default_buckets(12)
    (1, 2, 4, 8, 12)
    """
    sizes = []
    size = 1
    while size < max_rows:
        sizes.append(size)
        size *= 2
    return (*sizes, max_rows) if max_rows > 0 else ()
