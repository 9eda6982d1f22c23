"""What h2load prints, and how it is called. The samples were printed by h2load of nghttp2 1.52."""

from pathlib import Path

import pytest

from loadtests.bench import h2load
from loadtests.bench.matrix import empty_answers

GOOD = """\
Application protocol: h2c
Main benchmark duration is over for thread #0. Stopping all clients.
Stopped all clients for thread #0

finished in 300.87ms, 2506.67 req/s, 425.81KB/s
requests: 752 total, 756 started, 752 done, 752 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 752 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 127.74KB (130808) total, 2.50KB (2556) headers (space savings 95.80%), 83.72KB (85728) data
                     min         max         mean         sd        +/- sd
time for request:      434us     11.96ms      1.58ms       818us    94.68%
"""

ERRORS_IN_TRAILERS = """\
finished in 1.30s, 300.00 req/s, 80.33KB/s
requests: 90 total, 94 started, 90 done, 90 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 90 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 24.10KB (24677) total, 21.62KB (22136) headers (space savings 14.30%), 0B (0) data
"""

LOG = """\
1795507894147290\t200\t11292
1795507894148233\t200\t12935
1795507894149271\t-1\t99
1795507894149333\t503\t17
1795507894158643\t200\t985
"""


def test_the_summary_is_read_with_exact_bytes_and_seconds() -> None:
    outcome = h2load.parse_summary(GOOD)
    assert outcome == h2load.Outcome(seconds=0.30087, requests=752, succeeded=752, failed=0, body_bytes=85728)


def test_failed_errored_and_timed_out_requests_all_count_as_failed() -> None:
    text = GOOD.replace(
        "752 succeeded, 0 failed, 0 errored, 0 timeout", "745 succeeded, 4 failed, 2 errored, 1 timeout"
    )
    assert h2load.parse_summary(text).failed == 7


def test_a_run_that_printed_no_summary_is_an_error_that_shows_its_last_words() -> None:
    with pytest.raises(ValueError, match="connection refused"):
        h2load.parse_summary("starting benchmark...\nconnection refused")


def test_grpc_errors_that_h2load_takes_for_successes_are_found_by_their_missing_bodies() -> None:
    good, bad = h2load.parse_summary(GOOD), h2load.parse_summary(ERRORS_IN_TRAILERS)
    assert bad.seconds == 1.3
    assert empty_answers(good.succeeded, good.body_bytes, answer_bytes=114) == 0
    assert empty_answers(bad.succeeded, bad.body_bytes, answer_bytes=114) == 90


def test_bodies_cut_off_at_the_end_of_a_run_hide_no_error_and_make_none() -> None:
    assert empty_answers(100, 100 * 50 + 49, answer_bytes=50) == 0
    assert empty_answers(100, 97 * 50, answer_bytes=50) == 3
    assert empty_answers(100, None, answer_bytes=50) == 0


def test_latencies_are_those_of_successful_requests() -> None:
    log = h2load.parse_log(LOG)
    assert log.latency_s.tolist() == [0.011292, 0.000985, 0.012935]
    assert log.ended_s[-1] == pytest.approx(0.013878)
    assert h2load.parse_log("").latency_s.size == 0


def batches(count: int, rows: int, each_us: int) -> h2load.Log:
    """Callers whose answers come together, batch after batch."""
    return h2load.parse_log("".join(f"{at * each_us}\t200\t{each_us}\n" * rows for at in range(count)))


def test_a_batch_that_the_end_of_the_run_cuts_off_is_not_held_against_the_server() -> None:
    log = batches(count=9, rows=32, each_us=100_000)
    assert h2load.rate(0.99, log, callers=32) == pytest.approx(320)


def test_neither_is_the_time_until_the_first_answers() -> None:
    log = batches(count=9, rows=32, each_us=100_000)
    late = h2load.Log(log.latency_s, log.ended_s + 0.3)
    assert h2load.rate(1.29, late, callers=64) == pytest.approx(320)
    assert h2load.rate(1.29, late, callers=48) == pytest.approx(320)
    assert h2load.rate(1.29, late, callers=200) == pytest.approx(9 * 32 / 1.2)


def test_a_server_that_stalls_before_the_end_is_charged_with_the_whole_run() -> None:
    log = batches(count=5, rows=32, each_us=100_000)
    assert h2load.rate(2.0, log, callers=32) == 80
    assert h2load.rate(2.0, h2load.parse_log(""), callers=32) == 0


def test_grpc_and_plain_http_are_asked_for_in_their_own_ways() -> None:
    grpc, http = (
        h2load.command("h2load", "http://x/y", Path("body"), callers=8, seconds=1.5, log=Path("log"), grpc=grpc)
        for grpc in (True, False)
    )
    assert "te: trailers" in grpc
    assert "--h1" not in grpc
    assert "--h1" in http
    for line in (grpc, http):
        assert line[line.index("-D") + 1] == "1500ms"
        assert line[line.index("-c") + 1] == "8"
        assert line[-1] == "http://x/y"
