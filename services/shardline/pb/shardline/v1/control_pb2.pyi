from shardline.pb.inference import grpc_service_pb2 as _grpc_service_pb2
from shardline.pb.inference import model_config_pb2 as _model_config_pb2
from shardline.pb.shardline.v1 import replica_pb2 as _replica_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "datatype", "dims", "symbols", "optional")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    DIMS_FIELD_NUMBER: _ClassVar[int]
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    dims: _containers.RepeatedScalarFieldContainer[int]
    symbols: _containers.RepeatedScalarFieldContainer[str]
    optional: bool
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., dims: _Optional[_Iterable[int]] = ..., symbols: _Optional[_Iterable[str]] = ..., optional: _Optional[bool] = ...) -> None: ...

class ModelDescription(_message.Message):
    __slots__ = ("name", "version", "stage", "stages", "platform", "inputs", "outputs", "max_rows", "buckets", "queue_rows", "default_timeout_ms", "priority_levels", "default_priority", "digest", "config", "unbatched_because", "plan", "entry_stages", "micro_batch_rows", "stage_graph")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ROWS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_LEVELS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    UNBATCHED_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ENTRY_STAGES_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    STAGE_GRAPH_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    stage: int
    stages: int
    platform: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    max_rows: int
    buckets: _containers.RepeatedScalarFieldContainer[int]
    queue_rows: int
    default_timeout_ms: int
    priority_levels: int
    default_priority: int
    digest: str
    config: _model_config_pb2.ModelConfig
    unbatched_because: str
    plan: str
    entry_stages: _containers.RepeatedScalarFieldContainer[int]
    micro_batch_rows: int
    stage_graph: _containers.RepeatedCompositeFieldContainer[StageDescription]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., stage: _Optional[int] = ..., stages: _Optional[int] = ..., platform: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., max_rows: _Optional[int] = ..., buckets: _Optional[_Iterable[int]] = ..., queue_rows: _Optional[int] = ..., default_timeout_ms: _Optional[int] = ..., priority_levels: _Optional[int] = ..., default_priority: _Optional[int] = ..., digest: _Optional[str] = ..., config: _Optional[_Union[_model_config_pb2.ModelConfig, _Mapping]] = ..., unbatched_because: _Optional[str] = ..., plan: _Optional[str] = ..., entry_stages: _Optional[_Iterable[int]] = ..., micro_batch_rows: _Optional[int] = ..., stage_graph: _Optional[_Iterable[_Union[StageDescription, _Mapping]]] = ...) -> None: ...

class StageDescription(_message.Message):
    __slots__ = ("stage", "request_inputs", "answer_outputs")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_INPUTS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    stage: int
    request_inputs: _containers.RepeatedScalarFieldContainer[str]
    answer_outputs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, stage: _Optional[int] = ..., request_inputs: _Optional[_Iterable[str]] = ..., answer_outputs: _Optional[_Iterable[str]] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("replica", "state", "device", "models", "loads")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    replica: str
    state: str
    device: str
    models: _containers.RepeatedCompositeFieldContainer[ModelDescription]
    loads: _containers.RepeatedCompositeFieldContainer[_replica_pb2.PoolLoad]
    def __init__(self, replica: _Optional[str] = ..., state: _Optional[str] = ..., device: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelDescription, _Mapping]]] = ..., loads: _Optional[_Iterable[_Union[_replica_pb2.PoolLoad, _Mapping]]] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("model", "config")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    model: str
    config: str
    def __init__(self, model: _Optional[str] = ..., config: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("versions", "superseded")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    superseded: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, versions: _Optional[_Iterable[int]] = ..., superseded: _Optional[_Iterable[int]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("model", "versions")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, model: _Optional[str] = ..., versions: _Optional[_Iterable[int]] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatisticsRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class StatisticsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_grpc_service_pb2.ModelStatistics]
    def __init__(self, models: _Optional[_Iterable[_Union[_grpc_service_pb2.ModelStatistics, _Mapping]]] = ...) -> None: ...

class IndexRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IndexResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_grpc_service_pb2.RepositoryIndexResponse.ModelIndex]
    def __init__(self, models: _Optional[_Iterable[_Union[_grpc_service_pb2.RepositoryIndexResponse.ModelIndex, _Mapping]]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
