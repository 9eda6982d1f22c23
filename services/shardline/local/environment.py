"""The processes of a local cluster and their settings."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from shardline.core.cluster import PoolKey
from shardline.local.budget import threads_per_replica
from shardline.local.child import ChildSpec
from shardline.ops.settings import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shardline.local.layout import Layout, StagedModel
    from shardline.local.options import ClusterOptions

_QUIET_LEVEL = "warning"
_QUIET_LIBRARIES = {"ORT_DISABLE_TELEMETRY": "1"}
"""ONNX Runtime reports its use to its maker (from 1.32 on Linux, too). What a user serves is nobody's business
unless they say so; it also leaves a file `.ses` among the temporary ones."""


def metrics_ports(options: ClusterOptions) -> tuple[int, ...]:
    """The routers' metrics ports, in their order; empty where the system picks them or nobody listens."""
    first = options.settings.metrics_port
    return tuple(range(first, first + options.settings.routers)) if first > 0 else ()


def children(
    options: ClusterOptions, layout: Layout, redis_url: str, folder: Path, cores: int
) -> tuple[ChildSpec, ...]:
    """Replicas, then routers: a router starts in no time, a replica loads and warms models.

    folder: for their sockets. cores: shared among the replicas.
    """
    shared = _shared(options, redis_url, folder)
    replica = shared | _replica(options, layout, cores)
    limit = options.settings.replica_memory_bytes
    return (
        *(_python_child("replica", f"replica {at}", replica, limit) for at in range(layout.whole)),
        *(
            _python_child("replica", name, replica | settings, limit)
            for model in layout.staged
            for name, settings in _stages(model)
        ),
        *(
            _python_child("router", f"router {at}", shared | _router(options, at))
            for at in range(options.settings.routers)
        ),
    )


def _python_child(role: str, name: str, settings: dict[str, str], memory_bytes: int = 0) -> ChildSpec:
    named = {f"{PREFIX}{key}": value for key, value in settings.items()}
    # What else stands in the environment holds too: any SHARDLINE_ setting without a flag is set this way.
    environment = {**_QUIET_LIBRARIES, **os.environ, **named}
    argv = (sys.executable, "-m", f"shardline.{role}")
    return ChildSpec(name, role, argv, environment, memory_bytes=memory_bytes)


def _stages(model: StagedModel) -> Iterator[tuple[str, dict[str, str]]]:
    """Name and settings of each replica of each stage."""
    for stage, count in enumerate(model.replicas):
        for at in range(count):
            pool = PoolKey(model.model, model.version, stage)
            name = f"replica {pool}" + (f" ({at})" if count > 1 else "")
            yield name, {"MODELS": model.model, "STAGE": f"{model.folder}#{stage}"}


def _shared(options: ClusterOptions, redis_url: str, folder: Path) -> dict[str, str]:
    given = options.settings
    return {
        "CLUSTER": given.cluster,
        "REDIS_URL": redis_url,
        "RUN_DIR": str(folder),
        "PARENT_PID": str(os.getpid()),
        "LOG_FORMAT": "json",
        "LOG_LEVEL": given.log_level if options.all_lines else max(_QUIET_LEVEL, given.log_level, key=_severity),
        "METRICS_HOST": given.metrics_host,
        "DRAIN_S": str(given.drain_s),
    }


def _router(options: ClusterOptions, at: int) -> dict[str, str]:
    given = options.settings
    return {
        "HOST": given.host,
        "PORT": str(given.port),
        "FRONT": given.front,
        "REUSE_PORT": "true",
        "METRICS_PORT": str(given.metrics_port + at if given.metrics_port > 0 else given.metrics_port),
    }


def _replica(options: ClusterOptions, layout: Layout, cores: int) -> dict[str, str]:
    given = options.settings
    return {
        "REPOSITORY": given.repository,
        "MODELS": ",".join(layout.models),
        "STAGE": "",
        "DEVICE": given.device,
        "THREADS": str(given.threads or threads_per_replica(cores, layout.processes)),
        # Any free one: `shardline status` shows it. The flag's port and its successors belong to the routers.
        "METRICS_PORT": "-1" if given.metrics_port < 0 else "0",
    }


def _severity(level: str) -> int:
    return ("debug", "info", "warning", "error").index(level)
