from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TensorHead(_message.Message):
    __slots__ = ("name", "datatype", "dims")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    DIMS_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    dims: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., dims: _Optional[_Iterable[int]] = ...) -> None: ...

class Hop(_message.Message):
    __slots__ = ("stage", "replica", "link")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    stage: int
    replica: str
    link: str
    def __init__(self, stage: _Optional[int] = ..., replica: _Optional[str] = ..., link: _Optional[str] = ...) -> None: ...

class Itinerary(_message.Message):
    __slots__ = ("plan", "hops", "reply_to", "micro_rows")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    MICRO_ROWS_FIELD_NUMBER: _ClassVar[int]
    plan: str
    hops: _containers.RepeatedCompositeFieldContainer[Hop]
    reply_to: bytes
    micro_rows: int
    def __init__(self, plan: _Optional[str] = ..., hops: _Optional[_Iterable[_Union[Hop, _Mapping]]] = ..., reply_to: _Optional[bytes] = ..., micro_rows: _Optional[int] = ...) -> None: ...

class RowHead(_message.Message):
    __slots__ = ("model", "version", "stage", "inputs", "outputs", "itinerary")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ITINERARY_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    stage: int
    inputs: _containers.RepeatedCompositeFieldContainer[TensorHead]
    outputs: _containers.RepeatedScalarFieldContainer[str]
    itinerary: Itinerary
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., stage: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[TensorHead, _Mapping]]] = ..., outputs: _Optional[_Iterable[str]] = ..., itinerary: _Optional[_Union[Itinerary, _Mapping]] = ...) -> None: ...

class RowGroup(_message.Message):
    __slots__ = ("head", "calls", "rows", "deadline_ms", "priority", "columns", "receipt", "in_flight", "joined")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    head: bytes
    calls: _containers.RepeatedScalarFieldContainer[int]
    rows: _containers.RepeatedScalarFieldContainer[int]
    deadline_ms: _containers.RepeatedScalarFieldContainer[int]
    priority: _containers.RepeatedScalarFieldContainer[int]
    columns: _containers.RepeatedScalarFieldContainer[bytes]
    receipt: _containers.RepeatedCompositeFieldContainer[StageReceipt]
    in_flight: int
    joined: bool
    def __init__(self, head: _Optional[bytes] = ..., calls: _Optional[_Iterable[int]] = ..., rows: _Optional[_Iterable[int]] = ..., deadline_ms: _Optional[_Iterable[int]] = ..., priority: _Optional[_Iterable[int]] = ..., columns: _Optional[_Iterable[bytes]] = ..., receipt: _Optional[_Iterable[_Union[StageReceipt, _Mapping]]] = ..., in_flight: _Optional[int] = ..., joined: _Optional[bool] = ...) -> None: ...

class ToReplica(_message.Message):
    __slots__ = ("protocol", "groups", "cancelled", "cancelled_by")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_BY_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    groups: _containers.RepeatedCompositeFieldContainer[RowGroup]
    cancelled: _containers.RepeatedScalarFieldContainer[int]
    cancelled_by: bytes
    def __init__(self, protocol: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[RowGroup, _Mapping]]] = ..., cancelled: _Optional[_Iterable[int]] = ..., cancelled_by: _Optional[bytes] = ...) -> None: ...

class ResultHead(_message.Message):
    __slots__ = ("model", "version", "outputs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    outputs: _containers.RepeatedCompositeFieldContainer[TensorHead]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[TensorHead, _Mapping]]] = ...) -> None: ...

class StageReceipt(_message.Message):
    __slots__ = ("stage", "queue_us", "input_us", "compute_us", "output_us", "batch_rows", "bucket", "replica")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    INPUT_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_US_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    stage: int
    queue_us: int
    input_us: int
    compute_us: int
    output_us: int
    batch_rows: int
    bucket: int
    replica: str
    def __init__(self, stage: _Optional[int] = ..., queue_us: _Optional[int] = ..., input_us: _Optional[int] = ..., compute_us: _Optional[int] = ..., output_us: _Optional[int] = ..., batch_rows: _Optional[int] = ..., bucket: _Optional[int] = ..., replica: _Optional[str] = ...) -> None: ...

class ResultGroup(_message.Message):
    __slots__ = ("head", "calls", "rows", "columns", "receipt", "joined")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    head: bytes
    calls: _containers.RepeatedScalarFieldContainer[int]
    rows: _containers.RepeatedScalarFieldContainer[int]
    columns: _containers.RepeatedScalarFieldContainer[bytes]
    receipt: _containers.RepeatedCompositeFieldContainer[StageReceipt]
    joined: bool
    def __init__(self, head: _Optional[bytes] = ..., calls: _Optional[_Iterable[int]] = ..., rows: _Optional[_Iterable[int]] = ..., columns: _Optional[_Iterable[bytes]] = ..., receipt: _Optional[_Iterable[_Union[StageReceipt, _Mapping]]] = ..., joined: _Optional[bool] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("calls", "reason", "message", "retry_after_ms")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedScalarFieldContainer[int]
    reason: str
    message: str
    retry_after_ms: int
    def __init__(self, calls: _Optional[_Iterable[int]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class PoolLoad(_message.Message):
    __slots__ = ("pool", "queue_rows", "running_rows", "busy_ms", "alpha_ms", "beta_ms")
    POOL_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ROWS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_ROWS_FIELD_NUMBER: _ClassVar[int]
    BUSY_MS_FIELD_NUMBER: _ClassVar[int]
    ALPHA_MS_FIELD_NUMBER: _ClassVar[int]
    BETA_MS_FIELD_NUMBER: _ClassVar[int]
    pool: str
    queue_rows: int
    running_rows: int
    busy_ms: float
    alpha_ms: float
    beta_ms: float
    def __init__(self, pool: _Optional[str] = ..., queue_rows: _Optional[int] = ..., running_rows: _Optional[int] = ..., busy_ms: _Optional[float] = ..., alpha_ms: _Optional[float] = ..., beta_ms: _Optional[float] = ...) -> None: ...

class FromReplica(_message.Message):
    __slots__ = ("protocol", "results", "refusals", "loads", "sequence", "reply_to")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    results: _containers.RepeatedCompositeFieldContainer[ResultGroup]
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    loads: _containers.RepeatedCompositeFieldContainer[PoolLoad]
    sequence: int
    reply_to: bytes
    def __init__(self, protocol: _Optional[int] = ..., results: _Optional[_Iterable[_Union[ResultGroup, _Mapping]]] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., loads: _Optional[_Iterable[_Union[PoolLoad, _Mapping]]] = ..., sequence: _Optional[int] = ..., reply_to: _Optional[bytes] = ...) -> None: ...
