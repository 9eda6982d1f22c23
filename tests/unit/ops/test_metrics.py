"""The metrics' table, the numbers behind it, and what a scrape shows of them."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shardline.core.errors import Status
from shardline.ops.exposition import render
from shardline.ops.metrics import BY_NAME, MAX_MODELS, OTHER, UNKNOWN, Histogram, Metrics


def scrape(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each sample by its name and labels, read by Prometheus's own parser (which calls every counter `…_total`)."""
    return {
        (_as_written(sample.name), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(render(metrics).decode())
        for sample in family.samples
    }


def _as_written(name: str) -> str:
    return name.removesuffix("_total") if name.startswith("nv_") else name


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


DIGITS = {"model": "digits", "version": "1"}


def served() -> Metrics:
    """Two batches: three requests of 1, 2 and 1 rows padded to 8, and one of 4 rows."""
    metrics = Metrics("replica", "0.1.0", "cpu")
    counters = metrics.of_batches("digits", 1)
    counters.observe_batch(4, 8, [0.001, 0.002, 0.003], 0.01, 0.1, 0.02)
    counters.observe_batch(4, 4, [0.0], 0.01, 0.1, 0.02)
    return metrics


def test_batches_are_counted_as_rows_requests_and_executions() -> None:
    found = scrape(served())
    assert found["shardline_rows_total", labels(**DIGITS)] == 8
    assert found["shardline_padded_rows_total", labels(**DIGITS)] == 4
    assert found["nv_inference_count", labels(**DIGITS)] == 8
    assert found["nv_inference_exec_count", labels(**DIGITS)] == 2
    assert found["nv_inference_request_success", labels(**DIGITS)] == 4


def test_tritons_durations_count_a_batch_once_for_each_of_its_requests() -> None:
    found = scrape(served())
    expected = {
        "queue": 6_000,
        "compute_input": 4 * 10_000,
        "compute_infer": 4 * 100_000,
        "compute_output": 4 * 20_000,
        "request": 6_000 + 4 * 130_000,
    }
    for name, microseconds in expected.items():
        value = found[f"nv_inference_{name}_duration_us", labels(**DIGITS)]
        assert value == pytest.approx(microseconds, abs=1)


def test_histograms_count_a_batch_once_and_a_wait_for_each_request() -> None:
    found = scrape(served())
    assert found["shardline_queue_seconds_count", labels(**DIGITS)] == 4
    assert found["shardline_queue_seconds_sum", labels(**DIGITS)] == pytest.approx(0.006)
    assert found["shardline_queue_seconds_bucket", labels(**DIGITS, le="0.0025")] == 3
    assert found["shardline_queue_seconds_bucket", labels(**DIGITS, le="+Inf")] == 4
    assert found["shardline_compute_infer_seconds_count", labels(**DIGITS)] == 2
    assert found["shardline_batch_rows_bucket", labels(**DIGITS, le="2.0")] == 0
    assert found["shardline_batch_rows_bucket", labels(**DIGITS, le="4.0")] == 2


def test_statistics_per_batch_size_are_totals_of_whole_batches() -> None:
    counters = served().of_batches("digits", 1)
    size = counters.sizes[4]
    assert size.count == 2
    assert size.infer_s == pytest.approx(0.2)
    assert counters.last_ms > 0


def test_failures_and_dropped_rows_are_counted_by_reason() -> None:
    metrics = served()
    counters = metrics.of_batches("digits", 1)
    counters.observe_failure("deadline", 0.5, requests=2)
    counters.observe_dropped("cancelled", 3)
    found = scrape(metrics)
    assert found["nv_inference_request_failure", labels(**DIGITS, reason="deadline")] == 2
    assert found["shardline_failed_requests_total", labels(**DIGITS, reason="deadline")] == 2
    assert found["shardline_dropped_rows_total", labels(**DIGITS, reason="cancelled")] == 3


def test_requests_are_counted_by_status() -> None:
    metrics = Metrics("router", "0.1.0")
    counters = metrics.of_requests("digits", 1)
    counters.observe_request(Status.OK, 0.003, 100, 40)
    counters.observe_request(Status.UNAVAILABLE, 0.2)
    counters.observe_request(2, 0.2)
    found = scrape(metrics)
    for status in ("OK", "UNAVAILABLE", "UNKNOWN"):
        assert found["shardline_requests_total", labels(**DIGITS, status=status)] == 1
    assert found["shardline_request_seconds_count", labels(**DIGITS)] == 3
    assert found["shardline_request_bytes_total", labels(**DIGITS)] == 100
    assert found["shardline_response_bytes_total", labels(**DIGITS)] == 40


def test_a_value_on_a_bound_belongs_to_that_bucket_and_one_above_all_to_the_last() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 9.0):
        histogram.observe(value)
    assert histogram.counts == [1, 2, 1]
    assert (histogram.count, histogram.sum) == (4, 13.5)


def test_gauges_are_read_at_the_scrape_and_forgotten_with_their_model() -> None:
    metrics = Metrics("replica", "0.1.0")
    depth = [3.0]
    metrics.gauge("shardline_queue_rows", lambda: depth[0], "digits", "1")
    metrics.gauge("shardline_queue_rows", lambda: 7.0, "minilm", "1")
    depth[0] = 5.0
    assert scrape(metrics)["shardline_queue_rows", labels(**DIGITS)] == 5
    metrics.forget_gauges("digits", "1")
    left = scrape(metrics)
    assert ("shardline_queue_rows", labels(**DIGITS)) not in left
    assert left["shardline_queue_rows", labels(model="minilm", version="1")] == 7


def test_labels_stay_bounded_whatever_names_come_in() -> None:
    metrics = Metrics("router", "0.1.0")
    unknown = metrics.of_requests(*UNKNOWN)
    made = [metrics.of_requests(f"model-{number}", 1) for number in range(MAX_MODELS + 50)]
    assert len(metrics.requests) == MAX_MODELS + 1
    assert made[-1] is made[-2] is metrics.requests[OTHER]
    assert metrics.of_requests(*UNKNOWN) is unknown


def test_label_values_are_escaped() -> None:
    metrics = Metrics("router", "0.1.0")
    name = 'a"b\\c\nd'
    metrics.of_requests(name, 1).observe_request(Status.OK, 0.1)
    assert scrape(metrics)["shardline_requests_total", labels(model=name, version="1", status="OK")] == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("shardline_nonsense_total", ("digits",)),
        ("shardline_late_answers_total", ()),
        ("shardline_links", ("up",)),
    ],
)
def test_a_counter_that_is_not_in_the_table_is_refused(name: str, values: tuple[str, ...]) -> None:
    with pytest.raises(KeyError, match=name):
        Metrics("router", "0.1.0").counter(name, *values)


def test_counters_are_one_object_per_name_and_labels() -> None:
    metrics = Metrics("router", "0.1.0")
    metrics.counter("shardline_retries_total", "digits", "unavailable").value += 1
    metrics.counter("shardline_retries_total", "digits", "unavailable").value += 1
    assert scrape(metrics)["shardline_retries_total", labels(model="digits", reason="unavailable")] == 2


def test_names_follow_prometheus_and_each_histogram_has_ascending_buckets() -> None:
    for row in BY_NAME.values():
        assert row.name.startswith(("shardline_", "nv_inference_"))
        assert (row.kind == "histogram") == bool(row.buckets)
        assert list(row.buckets) == sorted(set(row.buckets))
        if row.name.startswith("shardline_"):
            assert row.name.endswith("_total") == (row.kind == "counter")


def test_tritons_names_are_written_as_triton_writes_them() -> None:
    lines = render(served()).decode().splitlines()
    assert 'nv_inference_count{model="digits",version="1"} 8' in lines
    assert "# TYPE nv_inference_count counter" in lines


def test_types_are_told_as_the_table_has_them() -> None:
    types = {family.name: family.type for family in text_string_to_metric_families(render(served()).decode())}
    assert types["shardline_rows"] == "counter"
    assert types["nv_inference_count"] == "counter"
    assert types["shardline_queue_seconds"] == "histogram"
    assert types["process_resident_memory_bytes"] == "gauge"
