"""A local Shardline cluster for a load test, or the one that the caller names."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from loadtests.bench.processes import Tree, free_port, running
from shardline.pb.inference import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_READY = "/inference.GRPCInferenceService/ServerReady"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where it listens. tree: its processes, None where it was not started here."""

    url: str
    tree: Tree | None


def is_ready(url: str, timeout_s: float = 2.0) -> bool:
    """Whether ServerReady says so."""
    with grpc.insecure_channel(url) as channel:
        ask: grpc.UnaryUnaryMultiCallable[pb.ServerReadyRequest, pb.ServerReadyResponse] = channel.unary_unary(
            _READY,
            request_serializer=pb.ServerReadyRequest.SerializeToString,
            response_deserializer=pb.ServerReadyResponse.FromString,
        )
        try:
            return bool(ask(pb.ServerReadyRequest(), timeout=timeout_s).ready)
        except grpc.RpcError:
            return False


@contextmanager
def local_cluster(repository: Path, log: Path, options: Sequence[str] = ()) -> Iterator[Cluster]:
    """Start `shardline serve` on free ports with these further options; ends it at the close. Raises ServerFailed."""
    port = free_port()
    ports = ["--port", str(port), "--metrics-port", str(free_port())]
    url = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "shardline.cli", "serve", str(repository), *ports, *options]
    with running(command, log, lambda: is_ready(url), deadline_s=300.0) as tree:
        yield Cluster(url, tree)
