"""What the fault tests share: a Redis of their own that may be killed, a repository, clusters that fail in public."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import onnx_models as models
from tests.cluster_process import ClusterProcess
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FRONTS = ("native", "grpcio")
BATCH_S = {"device": "simulated", "simulated_alpha_s": "0.005", "simulated_beta_s": "0.0002"}
"""The real model at the pace of a larger one: at any moment rows are queued, running and on their way."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What the clusters of a test serve; a test may add versions to it."""
    return build(tmp_path / "repository")


def build(folder: Path) -> Path:
    """`versioned` version 1, whose answers say which version they are of."""
    models.save(folder, "versioned", 1, models.versioned(1), "max_batch_size: 8")
    return folder


@pytest.fixture
def start(
    redis: RedisServer, repository: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., ClusterProcess]]:
    """Starts the test's cluster; what it wrote is shown when the test failed."""
    clusters: list[ClusterProcess] = []
    failures = request.session.testsfailed

    def start_one(**options: object) -> ClusterProcess:
        options = {"replica": BATCH_S, "models": ("versioned",), **options}
        cluster = ClusterProcess(redis.url, repository, **options)  # type: ignore[arg-type]
        clusters.append(cluster)
        return cluster.__enter__()

    yield start_one
    for cluster in clusters:
        if request.session.testsfailed > failures:
            print(cluster.logs())
        cluster.stop()
