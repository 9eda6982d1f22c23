"""What a scrape answers: `/metrics` in Prometheus's text format, and `/healthz`.

A small HTTP server on the process's own event loop, so that a scrape reads numbers that nobody changes meanwhile.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from shardline.core.errors import Status
from shardline.ops import logs
from shardline.ops.metrics import BY_NAME, Histogram, Metrics, status_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logs.get(__name__)

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_S = 5.0
_MAX_HEADERS = 64
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

Sample = tuple[str, tuple[str, ...], float]


def render(metrics: Metrics) -> bytes:
    """All metrics in Prometheus's text format.

    Written here and not by prometheus_client, whose 10 µs per sample would hold up the event loop for 20 ms with
    twenty models (this: 2 ms), and which gives Triton's counters the ending `_total` that their names lack.
    """
    found: dict[str, list[str]] = {name: [] for name in BY_NAME}
    for name, values, value in _plain(metrics):
        found[name].append(f"{name}{_labels(name, values)} {value}\n")
    for name, values, histogram in _histograms(metrics):
        found[name].append(_histogram_lines(name, values, histogram))
    parts = [
        f"# HELP {name} {BY_NAME[name].help}\n# TYPE {name} {BY_NAME[name].kind}\n{''.join(lines)}"
        for name, lines in found.items()
        if lines
    ]
    return "".join(parts).encode() + generate_latest(_process_registry())


@lru_cache(maxsize=1)
def _process_registry() -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)  # memory, CPU time and file descriptors of this process
    return registry


def _plain(metrics: Metrics) -> Iterator[Sample]:
    yield "shardline_info", metrics.info, 1
    yield from _of_requests(metrics)
    yield from _of_batches(metrics)
    for (name, values), counter in metrics.counters.items():
        yield name, values, counter.value
    for (name, values), read in metrics.gauges.items():
        yield name, values, read()


def _of_requests(metrics: Metrics) -> Iterator[Sample]:
    for key, one in metrics.requests.items():
        for code, count in enumerate(one.statuses):
            if count or code == Status.OK:
                yield "shardline_requests_total", (*key, status_name(code)), count
        yield "shardline_request_bytes_total", key, one.request_bytes
        yield "shardline_response_bytes_total", key, one.response_bytes


def _of_batches(metrics: Metrics) -> Iterator[Sample]:
    for key, one in metrics.batches.items():
        yield "shardline_rows_total", key, one.rows
        yield "shardline_padded_rows_total", key, one.padded_rows
        for reason, count in one.dropped_rows.items():
            yield "shardline_dropped_rows_total", (*key, reason), count
        for reason, count in one.failed.items():
            yield "shardline_failed_requests_total", (*key, reason), count
            yield "nv_inference_request_failure", (*key, reason), count
        yield "nv_inference_request_success", key, one.requests
        yield "nv_inference_count", key, one.rows
        yield "nv_inference_exec_count", key, one.batches
        yield "nv_inference_request_duration_us", key, int(one.success_s * 1e6)
        yield "nv_inference_queue_duration_us", key, int(one.queue_s * 1e6)
        yield "nv_inference_compute_input_duration_us", key, int(one.input_s * 1e6)
        yield "nv_inference_compute_infer_duration_us", key, int(one.infer_s * 1e6)
        yield "nv_inference_compute_output_duration_us", key, int(one.output_s * 1e6)


def _histograms(metrics: Metrics) -> Iterator[tuple[str, tuple[str, ...], Histogram]]:
    for key, one in metrics.requests.items():
        yield "shardline_request_seconds", key, one.seconds
    for key, batches in metrics.batches.items():
        yield "shardline_batch_rows", key, batches.batch_rows
        yield "shardline_queue_seconds", key, batches.queue
        yield "shardline_compute_input_seconds", key, batches.input
        yield "shardline_compute_infer_seconds", key, batches.infer
        yield "shardline_compute_output_seconds", key, batches.output


@lru_cache(maxsize=1 << 14)
def _labels(name: str, values: tuple[str, ...]) -> str:
    names = BY_NAME[name].labels
    if not names:
        return ""
    pairs = (f'{label}="{value.translate(_ESCAPES)}"' for label, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _histogram_lines(name: str, values: tuple[str, ...], histogram: Histogram) -> str:
    labels = _labels(name, values)
    head = f"{name}_bucket{labels[:-1]},le="
    totals = list(accumulate(histogram.counts))
    lines = [f'{head}"{bound}"}} {total}\n' for bound, total in zip((*histogram.bounds, "+Inf"), totals, strict=True)]
    return "".join(lines) + f"{name}_sum{labels} {histogram.sum}\n{name}_count{labels} {totals[-1]}\n"


class Endpoint:
    """The HTTP server of `/metrics` and `/healthz`, for one process.

    healthy: None while all is well, else what is wrong (then /healthz answers 503).
    """

    def __init__(self, metrics: Metrics, healthy: Callable[[], str | None]) -> None:
        self._metrics = metrics
        self._healthy = healthy
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. port: 0 for any free one; `self.port` holds it then; -1 listens nowhere. Raises OSError."""
        if port < 0:
            return
        self._server = await asyncio.start_server(self._serve, host, port, limit=1 << 14)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening. A second call does nothing."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                writer.write(self._answer(await _read_target(reader)))
                await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("metrics.bad_request", error=str(error))
        finally:
            writer.close()

    def _answer(self, target: str) -> bytes:
        path = target.partition("?")[0]
        if path == "/metrics":
            return _response("200 OK", _CONTENT_TYPE, render(self._metrics))
        if path == "/healthz":
            wrong = self._healthy()
            status = "200 OK" if wrong is None else "503 Service Unavailable"
            return _response(status, "text/plain", f"{wrong or 'ok'}\n".encode())
        return _response("404 Not Found", "text/plain", b"try /metrics or /healthz\n")


async def _read_target(reader: asyncio.StreamReader) -> str:
    """The target of a GET; headers are read and ignored. Raises ValueError on anything else."""
    words = (await reader.readuntil(b"\n")).decode("latin-1").split()
    if len(words) != 3 or words[0] != "GET":
        raise ValueError("not a GET request")
    for _ in range(_MAX_HEADERS):
        if not (await reader.readuntil(b"\n")).strip():
            return words[1]
    raise ValueError("too many headers")


def _response(status: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
