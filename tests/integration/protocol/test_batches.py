"""What happens to rows that share a batch, and to rows that nobody wants any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from tests.cluster_process import eventually
from tests.integration.protocol.calls import ROW, TIMEOUT_S, keep_busy, output, raw_request, statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cluster_process import ClusterProcess


def receipt_of(call: Any) -> dict[str, str]:
    """The receipt of a call that ended."""
    return dict(item.split("=") for item in dict(call.trailing_metadata())["shardline-receipt"].split(";"))


def together(stub: Any, requests: Sequence[Any]) -> list[Any]:
    """Send requests while the executor is busy, so that they wait for it together; returns the ended calls."""
    busy = keep_busy(stub)
    calls = [stub.ModelInfer.future(request, timeout=TIMEOUT_S) for request in requests]
    busy.result()
    for call in calls:
        call.exception()
    return calls


def grown(stub: Any, model: str, before: Any) -> dict[int, int]:
    """Batches by size since `before`."""
    counts = {item.batch_size: item.compute_infer.count for item in statistics(stub, model).batch_stats}
    for item in before.batch_stats:
        counts[item.batch_size] -= item.compute_infer.count
    return {size: count for size, count in counts.items() if count}


def test_rows_that_wait_together_are_executed_together_and_everyone_gets_their_own(stub: Any) -> None:
    before = statistics(stub, "add")
    requests = [raw_request("add", {"x": np.repeat(ROW + index, 1 + index % 3, axis=0)}) for index in range(12)]
    calls = together(stub, requests)
    for index, call in enumerate(calls):
        assert output(call.result()).tolist() == [(ROW[0] + index + 1).tolist()] * (1 + index % 3)
    sizes = grown(stub, "add", before)
    assert sum(size * count for size, count in sizes.items()) == 24
    assert max(sizes) > 3
    assert max(sizes) <= 8


def test_a_request_larger_than_the_largest_batch_is_cut_and_put_together_in_order(stub: Any) -> None:
    before = statistics(stub, "add")
    array = np.arange(37 * 4, dtype=np.float32).reshape(37, 4)
    assert output(stub.ModelInfer(raw_request("add", {"x": array}), timeout=TIMEOUT_S)).tolist() == (array + 1).tolist()
    sizes = grown(stub, "add", before)
    assert sum(size * count for size, count in sizes.items()) == 37
    assert max(sizes) <= 8
    words = np.empty((11, 4), dtype=object)
    words[:] = [[f"{row}-{column}".encode() * row for column in range(4)] for row in range(11)]
    found = output(stub.ModelInfer(raw_request("identity_bytes", {"x": words}), timeout=TIMEOUT_S))
    assert found.tolist() == words.tolist()


def test_rows_of_different_shapes_do_not_meet(stub: Any) -> None:
    requests = [
        raw_request("pair", {"a": np.full((1, width), index, np.float32), "b": np.ones((1, width), np.float32)})
        for index, width in enumerate((2, 3, 2, 3, 5))
    ]
    for index, (call, width) in enumerate(zip(together(stub, requests), (2, 3, 2, 3, 5), strict=True)):
        assert output(call.result()).tolist() == [[index + 1.0] * width]


def test_rows_of_different_lengths_share_a_padded_batch(stub: Any) -> None:
    before = statistics(stub, "pad")
    lengths = (5, 7, 8, 6)
    calls = together(stub, [raw_request("pad", {"x": np.full((1, length), 2, np.float32)}) for length in lengths])
    assert [output(call.result()).tolist() for call in calls] == [[[2.0 * length]] for length in lengths]
    sizes = grown(stub, "pad", before)
    assert sum(size * count for size, count in sizes.items()) == len(lengths)
    assert max(sizes) > 1


def test_answers_of_padded_rows_are_cut_back_to_their_own_length(stub: Any) -> None:
    arrays = [np.arange(length, dtype=np.float32)[None] + length for length in (5, 7, 8, 6)]
    for array, call in zip(
        arrays, together(stub, [raw_request("trim", {"x": array}) for array in arrays]), strict=True
    ):
        assert output(call.result()).tolist() == (2 * array).tolist()


@pytest.mark.parametrize("model", ["fixed", "alone", "mean"])
def test_what_is_not_to_be_batched_runs_each_request_alone(stub: Any, model: str) -> None:
    before = statistics(stub, model)
    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3) + index
        if model == "fixed"
        else np.arange(8, dtype=np.float32).reshape(2, 4) * (index + 1)
        for index in range(5)
    ]
    calls = together(stub, [raw_request(model, {"x": array}) for array in arrays])
    for array, call in zip(arrays, calls, strict=True):
        expected = array - array.mean(axis=0) if model == "mean" else array + 1
        assert np.allclose(output(call.result()), expected)
    assert grown(stub, model, before) == {1 if model == "fixed" else 2: 5}


def test_a_model_that_is_unsafe_to_batch_says_why(cluster: ClusterProcess) -> None:
    assert "a row's output 'y' changes by" in cluster.logs(["replica"])


def test_a_row_that_fails_fails_alone(stub: Any) -> None:
    before = statistics(stub, "gather")
    indices = [[0], [1, 2], [99], [3], [4], [-1000], [5, 6]]
    calls = together(stub, [raw_request("gather", {"index": np.array(index)}) for index in indices])
    for index, call in zip(indices, calls, strict=True):
        if min(index) < 0 or max(index) > 7:
            assert call.code() is grpc.StatusCode.INTERNAL
            assert call.details().startswith("model failed")
        else:
            table = np.arange(32, dtype=np.float32).reshape(8, 4)
            assert output(call.result()).tolist() == table[index].tolist()
    after = statistics(stub, "gather")
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 2
    assert after.inference_count - before.inference_count == 7


def test_a_passed_deadline_is_told_and_the_rows_are_not_executed(stub: Any) -> None:
    before = statistics(stub, "add").inference_count
    busy = keep_busy(stub)
    late = raw_request("add", {"x": ROW})
    late.parameters["timeout"].int64_param = 20_000  # microseconds
    by_parameter = stub.ModelInfer.future(late, timeout=None)
    by_grpc = stub.ModelInfer.future(raw_request("add", {"x": ROW}), timeout=0.02)
    assert by_parameter.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "deadline passed" in by_parameter.details()
    assert by_grpc.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
    busy.result()
    stub.ModelInfer(raw_request("add", {"x": ROW}), timeout=TIMEOUT_S)
    assert statistics(stub, "add").inference_count == before + 1


def test_cancelled_rows_are_not_executed_and_neighbours_are_right(stub: Any) -> None:
    before = statistics(stub, "add").inference_count
    busy = keep_busy(stub)
    calls = [stub.ModelInfer.future(raw_request("add", {"x": ROW * index}), timeout=TIMEOUT_S) for index in range(9)]
    for call in calls[::2]:
        call.cancel()
    busy.result()
    for index, call in list(enumerate(calls))[1::2]:
        assert output(call.result()).tolist() == (ROW * index + 1).tolist()
    stub.ModelInfer(raw_request("add", {"x": ROW}), timeout=TIMEOUT_S)
    assert statistics(stub, "add").inference_count == before + 4 + 1


def test_a_run_that_nobody_waits_for_is_ended(stub: Any, cluster: ClusterProcess) -> None:
    (replica,) = cluster.role("replica")
    before = statistics(stub, "slow").execution_count
    busy = keep_busy(stub)
    eventually(lambda: not busy.done() and replica.value('shardline_queue_rows{model="slow"') == 0, "it runs")
    busy.cancel()
    stub.ModelInfer(raw_request("add", {"x": ROW}), timeout=TIMEOUT_S)
    assert statistics(stub, "slow").execution_count == before


def test_urgent_rows_overtake_those_that_wait(stub: Any, cluster: ClusterProcess) -> None:
    order: list[str] = []
    (router,) = cluster.role("router")
    busy = keep_busy(stub)
    eventually(lambda: router.value("shardline_bytes_in_flight") > 0, "the router has taken the slow request")
    calls = []
    for name, priority in (("default", 0), ("low", 2), ("default", 0), ("urgent", 1)):
        request = raw_request("ranked", {"x": ROW})
        if priority:
            request.parameters["priority"].uint64_param = priority
        call = stub.ModelInfer.future(request, timeout=TIMEOUT_S)
        call.add_done_callback(lambda _call, name=name: order.append(name))
        calls.append(call)
    busy.result()
    for call in calls:
        call.result()
    eventually(lambda: len(order) == 4, "all callbacks ran")
    # The others are of one level; which of them comes first is a matter of their deadlines, microseconds apart.
    assert order[0] == "urgent"
    assert sorted(order[1:]) == ["default", "default", "low"]


def test_the_metrics_pages_tell_what_was_served(stub: Any, cluster: ClusterProcess) -> None:
    stub.ModelInfer(raw_request("add", {"x": ROW}), timeout=TIMEOUT_S)
    (router,), (replica,) = cluster.role("router"), cluster.role("replica")
    assert 'model="add"' in router.metrics()
    page = replica.metrics()
    for name in ("nv_inference_request_success", "nv_inference_count", "nv_inference_exec_count"):
        assert f"# TYPE {name} counter" in page
        assert any(line.startswith(f"{name}{{") and 'model="add"' in line for line in page.splitlines())
    assert replica.value('nv_inference_count{model="add"') == statistics(stub, "add").inference_count
