"""One cluster for all tests of equality: every model of graphs.py whole, and in stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import onnx_models
from tests.integration.split.graphs import CASES
from tests.integration.split.staged_cluster import Split, StagedCluster, cut
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    for name, case in CASES.items():
        for model in (name, f"{name}-whole"):
            onnx_models.save(folder, model, 1, case.build(), case.config)
    return folder


@pytest.fixture(scope="session")
def cluster(redis_url: str, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StagedCluster]:
    plans = tmp_path_factory.mktemp("plans")
    splits = []
    for name, case in CASES.items():
        cut(repository, name, case.stages, plans / name)
        splits.append(Split(name, plans / name, (1,) * case.stages))
    wholes = tuple(f"{name}-whole" for name in CASES)
    with StagedCluster(
        redis_url,
        repository,
        front="native",
        name="split",
        models=(*CASES, *wholes),
        replica={"models": ",".join(wholes)},
        splits=splits,
        start_s=300.0,
    ) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _logs_of_a_failure(request: pytest.FixtureRequest) -> Iterator[None]:
    """Show what the cluster wrote when a test failed."""
    failures = request.session.testsfailed
    yield
    if request.session.testsfailed > failures and "cluster" in request.fixturenames:
        print(request.getfixturevalue("cluster").logs())
