"""Every setting of every process, in one table per process.

A setting comes from the environment variable `SHARDLINE_<NAME>` or, before it, from an override (a command-line
flag). Nothing is read at import: `load(RouterSettings, port=9001)` reads the environment then and there.
`docs/configuration.md` is generated from this file by `make docs`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "SHARDLINE_"

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Names = Annotated[tuple[str, ...], NoDecode]
Device = Literal["auto", "cpu", "cuda", "simulated"]
Front = Literal["auto", "grpcio", "native"]


class SettingsError(Exception):
    """Settings that cannot be used; one line that names each variable and what is wrong with its value."""


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)


class ProcessSettings(_Settings):
    """What each process has."""

    cluster: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Name of the cluster: the prefix of all its Redis keys, so that several share one Redis.",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,
        description="Redis or Valkey: redis://[user:password@]host:port/db, rediss:// for TLS, unix:// for a socket.",
    )
    run_dir: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / f"shardline-{os.getuid()}",
        description="Folder for Unix sockets; short, since a socket's path may have 107 bytes.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe level logged."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Form of log lines; auto: text on a terminal, else JSON."
    )
    access_log_per_s: Seconds = Field(
        10.0, description="Access lines of successful requests per second at most; errors are always logged."
    )
    accounting: bool = Field(True, description="Whether requests are counted (metrics) and logged (access lines).")
    metrics_host: str = Field("0.0.0.0", description="Address that /metrics and /healthz listen on.")  # noqa: S104
    metrics_port: int = Field(
        8002, ge=-1, le=65535, description="Port of /metrics and /healthz; 0: any free one, -1: none."
    )
    parent_pid: int = Field(
        0, ge=0, description="Process whose death ends this one (set by the local supervisor); 0: none is watched."
    )
    allocator: bool = Field(
        True, description="Whether glibc keeps large buffers instead of returning each one to the system (mallopt)."
    )

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return value

    @field_validator("run_dir")
    @classmethod
    def _short_enough_for_sockets(cls, value: Path) -> Path:
        if len(os.fsencode(value)) > 70:
            raise ValueError("is longer than 70 bytes; the sockets in it would not fit the system's limit")
        return value


class _Edge(_Settings):
    """How clients reach a router."""

    host: str = Field("0.0.0.0", description="Address that the router listens on.")  # noqa: S104
    port: Port = Field(8001, description="Port of the gRPC service; 0: any free one.")
    front: Front = Field(
        "auto", description="Server at the edge; auto: native where it can do all that is asked, else grpcio."
    )
    max_message_bytes: int = Field(
        128 << 20, ge=1 << 10, le=(1 << 31) - 1, description="Largest message that is received or sent, in bytes."
    )
    reuse_port: bool = Field(True, description="Whether several routers may share the port (SO_REUSEPORT).")


class RouterSettings(ProcessSettings, _Edge):
    """A router."""

    rows_in_flight: Count = Field(8192, description="Rows of one model in flight at most; more are refused.")
    bytes_in_flight: Count = Field(
        2 << 30, description="Bytes of requests in flight in this process at most; more are refused."
    )
    default_timeout_s: Positive = Field(
        60.0, description="Deadline, in seconds, of a request that brings none and whose model sets none."
    )
    retry_ratio: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Retries of refused rows as a share of requests, saved up to 256; bounds retry storms. Lost links do not count.",
    )
    linger_s: Seconds = Field(
        0.0,
        description="Time in seconds after SIGTERM in which new connections are still taken, while health says that the "
        "router is not ready: for load balancers that hear of its end late.",
    )
    drain_s: Seconds = Field(30.0, description="Longest time in seconds that requests in flight get to end on SIGTERM.")
    max_connection_age_s: Seconds = Field(
        0.0, description="Connections are asked to reconnect after so many seconds (grpcio front); 0: never."
    )
    max_connection_age_grace_s: Seconds = Field(
        30.0, description="Time in seconds that calls on an aged connection get to end (grpcio front)."
    )
    keepalive_s: Positive = Field(30.0, description="A silent connection is probed after so many seconds.")
    max_concurrent_streams: Count = Field(1024, description="Calls at once on one connection at most.")


class ReplicaSettings(ProcessSettings):
    """A replica."""

    repository: str = Field(description="Model repository: a folder.")
    models: Names = Field((), description="Models to serve, separated by commas; empty: all of the repository.")
    version: int = Field(
        0, ge=0, description="The one version of them to serve; 0: those that each model's version policy asks for."
    )
    require_models: bool = Field(
        False,
        description="Whether the process ends, with the reason, when one of models cannot be served at its start; else it is "
        "reported and left out.",
    )
    stage: str = Field(
        "",
        description="Execute one stage of the one model in models: the folder that `shardline plan --out` wrote, `#`, the "
        "stage's number; empty: whole models.",
    )
    device: Device = Field("auto", description="Where models run; auto: cuda if there is a usable one, else cpu.")
    device_index: int = Field(0, ge=0, description="Which CUDA device.")
    threads: int = Field(
        0, ge=0, description="Threads for one execution on the CPU; 0: as many as the cgroup and affinity allow."
    )
    control_address: str = Field(
        "", description="Where control calls are taken: host:port or unix:path; empty: a Unix socket in run_dir."
    )
    link_address: str = Field(
        "", description="Where rows are taken: tcp://host:port or ipc://path; empty: an ipc socket in run_dir."
    )
    advertise_host: str = Field(
        "", description="Host name or address under which others reach tcp addresses; empty: this host's own."
    )
    heartbeat_s: Positive = Field(1.0, description="The lease in Redis is renewed every so many seconds.")
    lease_s: Positive = Field(4.0, description="The lease ends so many seconds after its last renewal.")
    report_s: Positive = Field(0.01, description="Least time in seconds between two load reports.")
    drain_s: Seconds = Field(30.0, description="Longest time in seconds that the queue gets to end on SIGTERM.")
    prefetch: int = Field(1, ge=0, le=1, description="Batches made ready while another one runs.")
    executors: int = Field(1, ge=1, le=16, description="Executions at once on the device.")
    cuda_memory_bytes: int = Field(
        0, ge=0, description="Device memory that one model's arena may take, in bytes; 0: no limit."
    )
    simulated_alpha_s: Seconds = Field(
        0.005, description="Device `simulated`: fixed time of a batch, in seconds (α of α + β·rows)."
    )
    simulated_beta_s: Seconds = Field(0.0005, description="Device `simulated`: time per row, in seconds (β).")

    @field_validator("models", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @model_validator(mode="after")
    def _stage_is_of_one_model(self) -> ReplicaSettings:
        folder, _, index = self.stage.rpartition("#")
        if self.stage and not (folder and index.isdecimal() and index.isascii()):
            raise ValueError(f"stage={self.stage} must be a plan's folder, #, and the stage's number")
        if self.stage and len(self.models) != 1:
            raise ValueError(f"stage={self.stage} needs exactly one model in models, not {len(self.models)}")
        return self

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> ReplicaSettings:
        if self.lease_s < 2 * self.heartbeat_s:
            raise ValueError(
                f"lease_s={self.lease_s} must be at least twice heartbeat_s={self.heartbeat_s}, "
                "or one late heartbeat loses the replica"
            )
        return self


class ClusterSettings(ProcessSettings, _Edge):
    """The cluster on one machine (`shardline serve`): what its supervisor starts."""

    repository: str = Field(description="Model repository: a folder.")
    redis_url: str = Field(
        "",
        repr=False,
        description="Redis or Valkey to use, as for the other processes; empty: the supervisor starts one of its own.",
    )
    replicas: int = Field(2, ge=1, le=256, description="Replica processes.")
    routers: int = Field(1, ge=1, le=64, description="Router processes; they share the port.")
    device: Device = Field("auto", description="Device of the replicas, as for a replica.")
    threads: int = Field(0, ge=0, description="CPU threads per execution; 0: the CPUs shared among the replicas.")
    replica_memory_bytes: int = Field(
        0,
        ge=0,
        description="Memory that one replica may map (RLIMIT_DATA), in bytes: a model that needs more fails to load, and "
        "`--stages MODEL=auto` cuts it so that it fits; 0: no limit.",
    )
    start_s: Positive = Field(300.0, description="Longest time in seconds until every model is ready.")
    drain_s: Seconds = Field(30.0, description="Longest time in seconds that requests in flight get to end on SIGTERM.")


AnySettings = TypeVar("AnySettings", bound=_Settings)


def load(kind: type[AnySettings], **overrides: Any) -> AnySettings:
    """Read the environment; overrides that are not None go first. Raises SettingsError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    unknown = sorted(given.keys() - kind.model_fields.keys())
    if unknown:
        raise SettingsError(f"{kind.__name__} has no setting {', '.join(unknown)}")
    try:
        return kind(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item, given) for item in error.errors())) from None


def to_environment(settings: _Settings) -> dict[str, str]:
    """The variables that make a child process load the same settings; those at their default are left out."""
    return {
        PREFIX + name.upper(): _as_text(getattr(settings, name))
        for name in sorted(settings.model_fields_set & type(settings).model_fields.keys())
    }


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)


def _explain(item: Mapping[str, Any], overrides: Mapping[str, object]) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    name = str(item["loc"][0])
    source = f"--{name.replace('_', '-')}" if name in overrides else PREFIX + name.upper()
    if item["type"] == "missing":
        return f"{source} is not set"
    shown = "…" if name == "redis_url" else item["input"]  # it may hold a password
    return f"{source}={shown}: {message[:1].lower()}{message[1:]}"
