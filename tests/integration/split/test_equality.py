"""A split model is the whole model to its clients: the same answers, the same signature, a receipt that names every stage."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shardline.wire.client import CallFailed, InferenceClient
from tests.integration.split.graphs import CASES
from tests.integration.split.staged_cluster import ask

if TYPE_CHECKING:
    from tests.integration.split.staged_cluster import StagedCluster

pytestmark = pytest.mark.timeout(400)

WIDE = [name for name, case in CASES.items() if case.wide]


def close(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    """Equal within the tolerance of the data type, relative to the largest value."""
    tolerance = {np.dtype(np.float16): 4e-3}.get(left.dtype, 1e-5)
    scale = float(np.max(np.abs(right), initial=0.0)) or 1.0
    return left.shape == right.shape and bool(np.max(np.abs(left - right), initial=0.0) <= tolerance * scale)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [1, 3, 16])
def test_stages_answer_as_the_whole_model_does(cluster: StagedCluster, name: str, count: int) -> None:
    feeds = CASES[name].feeds(count)
    split, whole = ask(cluster.url, name, feeds), ask(cluster.url, f"{name}-whole", feeds)
    assert list(split) == list(whole)
    for output in whole:
        assert close(split[output], whole[output]), output
    assert split.version == whole.version == "1"


@pytest.mark.parametrize("name", CASES)
def test_the_receipt_has_an_entry_for_each_stage_in_order(cluster: StagedCluster, name: str) -> None:
    answer = ask(cluster.url, name, CASES[name].feeds(1))
    assert [entry["stage"] for entry in answer.receipt] == [str(stage) for stage in range(CASES[name].stages)]
    assert len({entry["replica"] for entry in answer.receipt}) == CASES[name].stages


@pytest.mark.parametrize("name", CASES)
def test_metadata_and_config_do_not_tell_a_split_model_from_a_whole_one(cluster: StagedCluster, name: str) -> None:
    async def read(model: str) -> tuple[Any, Any]:
        async with InferenceClient(cluster.url) as client:
            return await client.model_metadata(model), await client.model_config(model)

    metadata, config = asyncio.run(read(name))
    whole_metadata, whole_config = asyncio.run(read(f"{name}-whole"))
    assert (metadata.versions, metadata.platform) == (whole_metadata.versions, whole_metadata.platform)
    assert (metadata.inputs, metadata.outputs) == (whole_metadata.inputs, whole_metadata.outputs)
    whole_config.name = config.name
    assert config == whole_config


@pytest.mark.parametrize("name", WIDE)
def test_more_rows_than_the_largest_batch_come_back_whole_and_in_order(cluster: StagedCluster, name: str) -> None:
    feeds = CASES[name].feeds(50)
    split, whole = ask(cluster.url, name, feeds), ask(cluster.url, f"{name}-whole", feeds)
    for output in whole:
        assert close(split[output], whole[output]), output


def test_a_request_of_very_many_rows_is_answered_with_a_receipt_that_clients_take(cluster: StagedCluster) -> None:
    feeds = CASES["half"].feeds(2000)
    split, whole = ask(cluster.url, "half", feeds), ask(cluster.url, "half-whole", feeds)
    assert close(split["y"], whole["y"])
    assert "left_out" in split.receipt[-1]


@pytest.mark.parametrize("name", WIDE)
def test_rows_of_many_callers_never_change_places(cluster: StagedCluster, name: str) -> None:
    counts = [1 + at % 7 for at in range(40)]
    feeds = {count: CASES[name].feeds(count) for count in set(counts)}
    expected = {count: ask(cluster.url, f"{name}-whole", feeds[count]) for count in feeds}
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda count: ask(cluster.url, name, feeds[count]), counts))
    for count, answer in zip(counts, answers, strict=True):
        for output in answer:
            assert close(answer[output], expected[count][output]), (count, output)


@pytest.mark.parametrize("name", ["branches", "half"])
def test_statistics_count_a_row_once_however_many_stages_it_passes(cluster: StagedCluster, name: str) -> None:
    async def counts() -> tuple[int, int]:
        async with InferenceClient(cluster.url) as client:
            (found,) = await client.statistics(name)
        return found.inference_count, found.inference_stats.success.count

    rows, requests = asyncio.run(counts())
    for count in (1, 2, 3):
        ask(cluster.url, name, CASES[name].feeds(count))
    assert asyncio.run(counts())[0] == rows + 6
    assert asyncio.run(counts())[1] >= requests + 3


def test_only_the_outputs_that_are_asked_for_come_back(cluster: StagedCluster) -> None:
    feeds = CASES["ends"].feeds(2)
    whole = ask(cluster.url, "ends-whole", feeds)
    for wanted in (["early"], ["late"], ["early", "late"]):
        answer = ask(cluster.url, "ends", feeds, outputs=wanted)
        assert list(answer) == wanted
        assert all(close(answer[name], whole[name]) for name in wanted)


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({"x": np.zeros((1, 9), np.float32)}, "shape"),
        ({"x": np.zeros((1, 8), np.float64)}, "FP64"),
        ({"z": np.zeros((1, 8), np.float32)}, "'z'"),
    ],
)
def test_bad_input_is_refused_in_the_same_words(
    cluster: StagedCluster, feeds: dict[str, np.ndarray[Any, Any]], says: str
) -> None:
    errors = []
    for model in ("skips", "skips-whole"):
        with pytest.raises(CallFailed) as caught:
            ask(cluster.url, model, feeds)
        errors.append(caught.value)
    assert errors[0].status == "INVALID_ARGUMENT"
    assert says in errors[0].message
    assert errors[0].message == errors[1].message.replace("skips-whole", "skips")
