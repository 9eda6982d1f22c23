"""h2load, the compiled load generator of nghttp2: its command line and what it prints.

h2load knows HTTP, not gRPC: an answer with an error in its trailers is a success to it. But such an answer has no
body, so the bytes received say how many calls were answered (`Outcome.body_bytes`); the caller compares them.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_GRPC_HEADERS = ("te: trailers", "content-type: application/grpc")
_RAW_HEADERS = ("content-type: application/octet-stream",)
_RUNS_OF_CALLERS = 4
"""Answers per caller from which on a run is long enough to leave its beginning out."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What h2load's summary says.

    seconds: length of the measured time. succeeded and failed: requests by HTTP status (2xx and 3xx, else).
    body_bytes: bytes of all answers' bodies (rounded by h2load's own exact count: none).
    """

    seconds: float
    requests: int
    succeeded: int
    failed: int
    body_bytes: int


def installed() -> str | None:
    """Path of the binary, None where it is not installed (package nghttp2-client)."""
    return shutil.which("h2load")


def command(binary: str, url: str, body: Path, *, callers: int, seconds: float, grpc: bool, log: Path) -> list[str]:
    """A closed loop of `callers` connections with one request in flight each, for `seconds`."""
    headers = _GRPC_HEADERS if grpc else _RAW_HEADERS
    line = [binary, "-c", str(callers), "-m", "1", "-t", "1", "-D", f"{round(seconds * 1000)}ms", "-d", str(body)]
    line += [part for header in headers for part in ("-H", header)]
    if not grpc:
        line.append("--h1")
    return [*line, f"--log-file={log}", url]


def parse_summary(text: str) -> Outcome:
    """Read what h2load prints at its end. Raises ValueError where a line is missing (it could not connect)."""
    finished = re.search(r"finished in ([\d.]+)(us|ms|s|m)?,", text)
    requests = re.search(
        r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout",
        text,
    )
    traffic = re.search(r"\(\d+\) headers .*? ([\d.]+)([KMG]?)B \((\d+)\) data", text)
    if finished is None or requests is None or traffic is None:
        raise ValueError(f"h2load printed no summary: {text.strip()[-400:]!r}")
    scale = {"us": 1e-6, "ms": 1e-3, "s": 1.0, None: 1.0, "m": 60.0}[finished[2]]
    done, succeeded, failed, errored, timed_out = (int(group) for group in requests.groups())
    return Outcome(
        seconds=float(finished[1]) * scale,
        requests=done,
        succeeded=succeeded,
        failed=failed + errored + timed_out,
        body_bytes=int(traffic[3]),
    )


@dataclass(frozen=True, slots=True)
class Log:
    """Successful requests of h2load's log, in the order of completion.

    latency_s: of each. ended_s: when each ended, counted from the first start.
    """

    latency_s: NDArray[np.float64]
    ended_s: NDArray[np.float64]


def parse_log(text: str) -> Log:
    """Read the log: start µs, status, duration µs per line."""
    table = np.fromstring(text.replace("\n", "\t"), dtype=np.int64, sep="\t").reshape(-1, 3) if text.strip() else _NONE
    good = table[(table[:, 1] >= 200) & (table[:, 1] < 400)]
    if good.size == 0:
        return Log(np.empty(0), np.empty(0))
    ended = good[:, 0] + good[:, 2] - table[:, 0].min()
    order = np.argsort(ended, kind="stable")
    return Log(good[order, 2] / 1e6, ended[order] / 1e6)


_NONE = np.empty((0, 3), np.int64)


def rate(seconds: float, log: Log, callers: int) -> float:
    """Answers per second of a run of `seconds`, as it goes on: without its beginning and its end.

    A run begins with empty queues and ends in the middle of a batch, whose rows were worked on but are not counted: with
    batches of a tenth of the run that takes 5 to 10 % from a server that batches, or works in stages, and nothing from one that
    does not. So time begins with the end of the first burst of answers after each caller could have had one, and ends with the
    last answer; unless the silence after it is longer than any request took: then the server stalled, and all of it counts.
    """
    answers = log.ended_s.size
    if answers == 0:
        return 0.0
    last = float(log.ended_s[-1])
    if not 0 <= seconds - last <= float(log.latency_s.max()):
        return answers / seconds
    if answers < _RUNS_OF_CALLERS * callers:
        return answers / last
    pauses = np.diff(log.ended_s[callers - 1 : 2 * callers])
    before = callers + int(pauses.argmax())
    return float((answers - before) / (last - log.ended_s[before - 1]))
