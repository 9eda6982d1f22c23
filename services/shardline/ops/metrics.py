"""Every metric of every process: one table, and the plain numbers behind it.

The hot path adds to integers and lists (`RequestCounters` in a router, `BatchCounters` in a replica); what
Prometheus reads is made from them at the scrape, and so is what the ModelStatistics call answers. Durations are in
seconds, sizes in bytes, but for the `nv_inference_*` aliases, which are named and scaled as Triton's users chart them.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Literal

from shardline.core.errors import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Kind = Literal["counter", "gauge", "histogram"]

_FAST_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. buckets: upper bounds, of a histogram only."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


_MODEL = ("model", "version")

_TABLE = (
    Metric("shardline_info", "gauge", ("process", "release", "device"), "Always 1; what this process is."),
    # router
    Metric("shardline_requests_total", "counter", (*_MODEL, "status"), "Requests answered, by gRPC status."),
    Metric("shardline_request_seconds", "histogram", _MODEL, "From a request's arrival to its answer.", _FAST_S),
    Metric("shardline_request_bytes_total", "counter", _MODEL, "Bytes of requests received."),
    Metric("shardline_response_bytes_total", "counter", _MODEL, "Bytes of answers sent."),
    Metric("shardline_refused_total", "counter", ("model", "reason"), "Requests refused at admission."),
    Metric("shardline_retries_total", "counter", ("model", "reason"), "Row ranges sent again to another replica."),
    Metric("shardline_late_answers_total", "counter", ("model",), "Answers that nobody waited for any more."),
    Metric("shardline_rows_in_flight", "gauge", ("model",), "Rows that wait for an answer."),
    Metric(
        "shardline_ready_replicas",
        "gauge",
        ("model",),
        "Replicas that rows of the model's default version may be sent to; of a split model, those of its weakest stage.",
    ),
    Metric("shardline_bytes_in_flight", "gauge", (), "Bytes of requests that wait for an answer."),
    Metric("shardline_links", "gauge", ("state",), "Links to replicas."),
    # replica
    Metric("shardline_rows_total", "counter", _MODEL, "Rows executed."),
    Metric("shardline_padded_rows_total", "counter", _MODEL, "Rows added to fill a bucket."),
    Metric("shardline_dropped_rows_total", "counter", (*_MODEL, "reason"), "Rows that were not executed to the end."),
    Metric("shardline_failed_requests_total", "counter", (*_MODEL, "reason"), "Row ranges answered with an error."),
    Metric("shardline_batch_rows", "histogram", _MODEL, "Rows of a batch, padding not counted.", _ROWS),
    Metric("shardline_queue_seconds", "histogram", _MODEL, "A row range's wait until its batch was taken.", _FAST_S),
    Metric(
        "shardline_compute_input_seconds", "histogram", _MODEL, "A batch's joining, padding and copying in.", _FAST_S
    ),
    Metric("shardline_compute_infer_seconds", "histogram", _MODEL, "A batch's execution.", _FAST_S),
    Metric("shardline_compute_output_seconds", "histogram", _MODEL, "A batch's copying out and cutting.", _FAST_S),
    Metric("shardline_queue_rows", "gauge", _MODEL, "Rows that wait in the batching queue."),
    Metric("shardline_model_ready", "gauge", _MODEL, "1 while the model version takes rows."),
    Metric("shardline_simulated", "gauge", (), "1 where the device's times are simulated."),
    # any process
    Metric("shardline_redis_connected", "gauge", (), "1 while Redis answers."),
    # Triton's names, from the same numbers
    Metric("nv_inference_request_success", "counter", _MODEL, "Row ranges executed."),
    Metric("nv_inference_request_failure", "counter", (*_MODEL, "reason"), "Row ranges answered with an error."),
    Metric("nv_inference_count", "counter", _MODEL, "Rows executed."),
    Metric("nv_inference_exec_count", "counter", _MODEL, "Batches executed."),
    Metric("nv_inference_request_duration_us", "counter", _MODEL, "Time in queue and compute, summed over row ranges."),
    Metric("nv_inference_queue_duration_us", "counter", _MODEL, "Time in the queue, summed over row ranges."),
    Metric("nv_inference_compute_input_duration_us", "counter", _MODEL, "Input time, summed over row ranges."),
    Metric("nv_inference_compute_infer_duration_us", "counter", _MODEL, "Execution time, summed over row ranges."),
    Metric("nv_inference_compute_output_duration_us", "counter", _MODEL, "Output time, summed over row ranges."),
    Metric("nv_inference_pending_request_count", "gauge", _MODEL, "Row ranges that wait in the queue."),
)

BY_NAME: dict[str, Metric] = {row.name: row for row in _TABLE}

_STATUS_NAMES = {int(status): status.name for status in Status}

MAX_MODELS = 1000
"""Models and versions that get labels of their own; more share OTHER, so that labels stay bounded."""
OTHER = ("(other)", "")
UNKNOWN = ("", "")
"""Labels of requests for models that do not exist: their names come from outside and are not bounded."""


class Histogram:
    """Counts by bucket, and the sum: one search and two additions per value."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """bounds: ascending upper bounds; one more bucket takes what is above the last."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)


class Counter:
    """A number that grows: `counter.value += 1`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


def _histogram(name: str) -> Histogram:
    return Histogram(BY_NAME[name].buckets)


class RequestCounters:
    """A router's requests of one model version."""

    __slots__ = ("request_bytes", "response_bytes", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses = [0] * 17
        self.seconds = _histogram("shardline_request_seconds")
        self.request_bytes = 0
        self.response_bytes = 0

    def observe_request(self, status: int, seconds: float, request_bytes: int = 0, response_bytes: int = 0) -> None:
        """Count one answered request. status: gRPC code."""
        self.statuses[status] += 1
        histogram = self.seconds  # observe() by hand: this runs once per request
        histogram.counts[bisect_left(histogram.bounds, seconds)] += 1
        histogram.sum += seconds
        self.request_bytes += request_bytes
        self.response_bytes += response_bytes


@dataclass(slots=True)
class BatchSize:
    """Totals of the batches of one size, in seconds."""

    count: int = 0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0


@dataclass(slots=True)
class BatchCounters:
    """A replica's batches of one model version. "Requests" are row ranges, as they came from routers.

    The *_s sums count a batch's time once for each of its requests, as Triton's statistics do; the histograms
    count it once. last_ms: wall clock of the last batch, milliseconds since the epoch.
    """

    rows: int = 0
    batches: int = 0
    padded_rows: int = 0
    requests: int = 0
    queue_s: float = 0.0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0
    fail_s: float = 0.0
    last_ms: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    dropped_rows: dict[str, int] = field(default_factory=dict)
    sizes: dict[int, BatchSize] = field(default_factory=dict)
    queue: Histogram = field(default_factory=lambda: _histogram("shardline_queue_seconds"))
    input: Histogram = field(default_factory=lambda: _histogram("shardline_compute_input_seconds"))
    infer: Histogram = field(default_factory=lambda: _histogram("shardline_compute_infer_seconds"))
    output: Histogram = field(default_factory=lambda: _histogram("shardline_compute_output_seconds"))
    batch_rows: Histogram = field(default_factory=lambda: _histogram("shardline_batch_rows"))

    def observe_batch(
        self, rows: int, bucket: int, queue_s: Sequence[float], input_s: float, infer_s: float, output_s: float
    ) -> None:
        """Count one executed batch.

        rows: without padding; bucket: with it. queue_s: each request's wait, in seconds. The other times are the batch's.
        """
        requests = len(queue_s)
        self.rows += rows
        self.batches += 1
        self.padded_rows += bucket - rows
        self.requests += requests
        self.last_ms = int(time() * 1000)
        self._observe_waits(queue_s)
        self.input_s += requests * input_s
        self.infer_s += requests * infer_s
        self.output_s += requests * output_s
        self.input.observe(input_s)
        self.infer.observe(infer_s)
        self.output.observe(output_s)
        self.batch_rows.observe(rows)
        size = self.sizes.get(rows)
        if size is None:
            size = self.sizes[rows] = BatchSize()
        size.count += 1
        size.input_s += input_s
        size.infer_s += infer_s
        size.output_s += output_s

    def observe_failure(self, reason: str, seconds: float, requests: int = 1) -> None:
        """Count requests answered with an error. reason: of a ServingError; seconds: summed over the requests."""
        self.failed[reason] = self.failed.get(reason, 0) + requests
        self.fail_s += seconds

    def observe_dropped(self, reason: str, rows: int) -> None:
        """Count rows that left the queue unexecuted, because of their deadline or their caller's cancellation."""
        self.dropped_rows[reason] = self.dropped_rows.get(reason, 0) + rows

    @property
    def success_s(self) -> float:
        """Time in queue and compute, summed over the executed requests."""
        return self.queue_s + self.input_s + self.infer_s + self.output_s

    def _observe_waits(self, queue_s: Sequence[float]) -> None:
        counts, bounds = self.queue.counts, self.queue.bounds
        total = 0.0
        for wait in queue_s:
            counts[bisect_left(bounds, wait)] += 1
            total += wait
        self.queue.sum += total
        self.queue_s += total


class Metrics:
    """All numbers of one process. Everything but `gauge` callbacks is plain data, read at the scrape."""

    def __init__(self, process: str, release: str, device: str = "") -> None:
        self.info = (process, release, device)
        self.requests: dict[tuple[str, str], RequestCounters] = {}
        self.batches: dict[tuple[str, str], BatchCounters] = {}
        self.counters: dict[tuple[str, tuple[str, ...]], Counter] = {}
        self.gauges: dict[tuple[str, tuple[str, ...]], Callable[[], float]] = {}

    def of_requests(self, model: str, version: int | str) -> RequestCounters:
        """A model version's counters in a router, made on first use; keep the object on the hot path.

        Pass UNKNOWN for models that do not exist.
        """
        key = self._key(self.requests, model, version)
        return self.requests.setdefault(key, RequestCounters())

    def of_batches(self, model: str, version: int | str) -> BatchCounters:
        """A model version's counters in a replica, made on first use; keep the object on the hot path."""
        key = self._key(self.batches, model, version)
        return self.batches.setdefault(key, BatchCounters())

    def counter(self, name: str, *labels: str) -> Counter:
        """A counter of the table with these label values, made on first use. Raises KeyError for another name."""
        return self.counters.setdefault((_checked(name, "counter", labels), labels), Counter())

    def gauge(self, name: str, read: Callable[[], float], *labels: str) -> None:
        """Have `read` called at each scrape; it replaces an earlier one. Raises KeyError for a name not in the table."""
        self.gauges[_checked(name, "gauge", labels), labels] = read

    def forget_gauges(self, *labels: str) -> None:
        """Drop all gauges whose first labels are these (a model that was unloaded). Counters stay."""
        for key in [key for key in self.gauges if key[1][: len(labels)] == labels]:
            del self.gauges[key]

    @staticmethod
    def _key(known: Mapping[tuple[str, str], object], model: str, version: int | str) -> tuple[str, str]:
        key = (model, str(version))
        return key if key in known or len(known) < MAX_MODELS else OTHER


def status_name(code: int) -> str:
    """A gRPC code as a label; codes that Shardline never sends are UNKNOWN."""
    return _STATUS_NAMES.get(code, "UNKNOWN")


def _checked(name: str, kind: Kind, labels: tuple[str, ...]) -> str:
    metric = BY_NAME[name]
    if metric.kind != kind or len(metric.labels) != len(labels):
        raise KeyError(f"{name} is a {metric.kind} with the labels {metric.labels}, not a {kind} with {labels}")
    return name
