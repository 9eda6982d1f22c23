"""A new version of a model is loaded, while callers go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tritonclient.grpc as triton

from tests import onnx_models as models
from tests.faults.load import Load, wholly_one_version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cluster_process import ClusterProcess

LARGEST = 8
"""Rows of the largest batch: a request of more is cut, and its parts run on both replicas."""


def test_while_versions_roll_every_answer_is_wholly_of_one(
    start: Callable[..., ClusterProcess], repository: Path
) -> None:
    cluster = start(front="grpcio", replicas=2)
    with (
        triton.InferenceServerClient(cluster.url) as client,
        Load(cluster.url, "versioned", wholly_one_version, rows=(1, 3, 3 * LARGEST)) as load,
    ):
        for version in (2, 3):
            models.save(repository, "versioned", version, models.versioned(version))
            client.load_model("versioned", client_timeout=60.0)
            load.more_answers(100)
            assert load.seen.last_version == version
        load.at_least()
    print(load.seen, dict(load.seen.by_version))
    assert (load.seen.errors, load.seen.wrong) == ({}, [])
    assert set(load.seen.by_version) == {1, 2, 3}
