"""Who is in the cluster, in values: pools, replicas and their load."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, order=True)
class PoolKey:
    """All replicas of one stage of one model version. Written `model:version/stage`."""

    model: str
    version: int
    stage: int = 0

    def __str__(self) -> str:
        return f"{self.model}:{self.version}/{self.stage}"

    @classmethod
    def parse(cls, text: str) -> PoolKey:
        """Inverse of str(). Raises ValueError on any other text."""
        head, _, stage = text.rpartition("/")
        model, _, version = head.rpartition(":")
        if not model:
            raise ValueError(f"a pool is written model:version/stage, not {text!r}")
        return cls(model, int(version), int(stage))


class ReplicaState(StrEnum):
    """A replica's life: it takes rows only while READY."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """A replica as it announces itself.

    id: unique per incarnation. control: address of its gRPC control service, link: of its ZeroMQ ROUTER socket.
    pools: what it is ready to execute now. started_at: Unix seconds by its own clock (for display only).
    host, pid, device, labels: for people. pod: its pod's name on Kubernetes, else "".
    """

    id: str
    control: str
    link: str
    state: ReplicaState
    pools: tuple[PoolKey, ...]
    device: str
    host: str
    pid: int
    started_at: float
    pod: str = ""
    metrics: str = ""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a pool member says about its queue.

    queue_rows: rows waiting. running_rows: rows in the batch that runs now.
    busy_ms: milliseconds from the report until the running batch is expected to end.
    alpha_ms, beta_ms: fit of l(b) = alpha + beta·b; 0 until measured. executions, rows: totals since start.
    sequence: grows with each report of one replica; a smaller one is older.
    """

    queue_rows: int = 0
    running_rows: int = 0
    busy_ms: float = 0.0
    alpha_ms: float = 0.0
    beta_ms: float = 0.0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class RouterInfo:
    """A router as it announces itself.

    id: unique per incarnation. address: where clients call it. front: the edge server it runs (grpcio, native).
    state: it takes calls while READY. host, pid, started_at (Unix seconds by its own clock): for people.
    """

    id: str
    address: str
    state: ReplicaState
    front: str
    host: str
    pid: int
    started_at: float
    pod: str = ""
    metrics: str = ""
