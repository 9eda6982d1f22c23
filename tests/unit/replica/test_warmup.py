"""Batch safety: a model whose rows change each other's answers is found out before it is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from shardline.batching.latency import LatencyFit
from shardline.core.datatypes import BY_NAME
from shardline.core.errors import ModelFailed
from shardline.core.models import Batching, BatchingMode, ModelSpec, TensorSpec, default_buckets
from shardline.replica.warmup import warm_up

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def spec(datatype: str = "FP32", mode: BatchingMode = BatchingMode.AUTO) -> ModelSpec:
    """x [batch, 4] to y [batch, 4]."""
    tensor = BY_NAME[datatype]
    batching = Batching(max_rows=4, buckets=default_buckets(4), mode=mode)
    return ModelSpec(
        "m", 1, "onnx", (TensorSpec("x", tensor, (4,)),), (TensorSpec("y", tensor, (4,)),), batching, b"", ""
    )


def same(x: np.ndarray) -> np.ndarray:
    return x


def less_mean(x: np.ndarray) -> np.ndarray:
    return (100 * x - (100 * x).mean(axis=0)).astype(x.dtype)


def scaled_by_largest(x: np.ndarray) -> np.ndarray:
    return x * (12 // np.max(x).astype(x.dtype))


def one_row_only(x: np.ndarray) -> np.ndarray:
    if len(x) > 1:
        raise ModelFailed("cannot reshape")
    return x


def first_row(x: np.ndarray) -> np.ndarray:
    return x[:1]


def only_ones(x: np.ndarray) -> np.ndarray:
    if (x != 1).any():
        raise ModelFailed("index out of range")
    return x


@pytest.mark.parametrize(
    ("datatype", "model", "because"),
    [
        ("FP32", same, ""),
        ("INT64", same, ""),
        ("BF16", same, ""),
        ("INT64", only_ones, ""),
        ("FP32", less_mean, "random rows"),
        ("INT64", less_mean, "rows"),
        ("INT64", scaled_by_largest, "other values"),
        ("FP32", one_row_only, "cannot reshape"),
        ("FP32", first_row, "shape [1, 4] for a batch of 2 rows"),
    ],
)
def test_rows_share_batches_only_where_they_leave_each_other_alone(datatype: str, model: object, because: str) -> None:
    def execute(feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
        return [model(feeds["x"])]  # type: ignore[operator]

    found = warm_up(spec(datatype), execute, (1, 2, 4), LatencyFit()).unbatched_because
    assert because in found
    assert bool(found) == bool(because)


def test_an_operator_who_vouches_for_a_model_is_believed() -> None:
    found = warm_up(
        spec(mode=BatchingMode.ALWAYS), lambda feeds, _names: [less_mean(feeds["x"])], (1, 2, 4), LatencyFit()
    )
    assert found.unbatched_because == ""


def test_a_model_that_takes_no_generated_input_is_served_cold() -> None:
    def refuse(_feeds: object, _names: object) -> list[np.ndarray]:
        raise ModelFailed("not like this")

    assert "not like this" in warm_up(spec(), refuse, (1, 2, 4), LatencyFit()).skipped
