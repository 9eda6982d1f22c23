"""The whole path on the device: `shardline serve`, real clients, real models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests import onnx_models
from tests.integration.local.local_cluster import LocalCluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)
WIDTH = 256


@pytest.fixture(scope="module")
def cluster(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder: Path = tmp_path_factory.mktemp("repository")
    onnx_models.save(folder, "product", 1, onnx_models.matmul(WIDTH, WIDTH, seed=5), "max_batch_size: 32")
    onnx_models.save(folder, "text", 1, onnx_models.string_identity())
    arguments = ("--replicas", "2", "--device", kind)
    with LocalCluster(folder, tmp_path_factory.mktemp("serving"), *arguments) as cluster:
        yield cluster.start_ready()


def test_the_table_and_status_name_the_device(cluster: LocalCluster, kind: str) -> None:
    named = "cuda:0" if kind == "cuda" else "cpu"
    assert named in cluster.out
    assert named in cluster.command("status").stdout


def test_many_callers_get_their_own_rows(cluster: LocalCluster) -> None:
    client = triton.InferenceServerClient(cluster.url)
    weights = onnx_models.weights_of(WIDTH, WIDTH, seed=5)
    generator = np.random.default_rng(2)
    sent = [generator.standard_normal((1 + index % 5, WIDTH), dtype=np.float32) for index in range(100)]

    def ask(rows: np.ndarray) -> np.ndarray:
        entry = triton.InferInput("x", list(rows.shape), "FP32")
        entry.set_data_from_numpy(rows)
        answer: np.ndarray = client.infer("product", [entry], client_timeout=60).as_numpy("y")
        return answer

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, sent))
    for rows, answer in zip(sent, answers, strict=True):
        expected = rows @ weights
        assert float(np.abs(answer - expected).max()) <= 2e-3 * float(np.abs(expected).max())


def test_text_is_served_beside_it(cluster: LocalCluster) -> None:
    done = cluster.command("infer", "text")
    assert done.returncode == 0, done.stderr
