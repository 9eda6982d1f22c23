"""Log lines and the sampling of access lines."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from shardline.ops import logs
from shardline.ops.settings import ProcessSettings, load

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def configured(form: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(load(ProcessSettings, log_format=form, log_level=level), "router", stream)
    return stream


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_event_its_fields_and_its_process() -> None:
    log = logs.get("shardline.router.app", replica="r1")
    stream = configured("json")
    log.info("replica.joined", pools=3)
    (line,) = read(stream)
    assert line["event"] == "replica.joined"
    assert (line["source"], line["replica"], line["pools"]) == ("router.app", "r1", 3)
    assert (line["process"], line["cluster"], line["level"]) == ("router", "default", "info")
    assert line["timestamp"].endswith("Z")


def test_lines_below_the_level_are_not_written() -> None:
    stream = configured("json", "warning")
    logs.get("x").info("unseen")
    logs.get("x").warning("seen")
    assert [line["event"] for line in read(stream)] == ["seen"]


def test_a_traceback_is_one_line_of_json() -> None:
    stream = configured("json")
    try:
        raise ValueError("broken")
    except ValueError:
        logs.get("x").exception("model.failed")
    (line,) = read(stream)
    assert "ValueError: broken" in line["exception"]


def test_what_libraries_log_takes_the_same_form() -> None:
    stream = configured("json")
    logging.getLogger("some.library").warning("hm %s", 3)
    (line,) = read(stream)
    assert (line["event"], line["source"], line["level"], line["process"]) == (
        "hm 3",
        "some.library",
        "warning",
        "router",
    )


def test_text_is_for_people_and_shows_no_locals_of_a_traceback() -> None:
    stream = configured("text")

    def fails(password: str) -> None:
        raise RuntimeError(str(len(password)))

    try:
        fails("hunter2")
    except RuntimeError:
        logs.get("x").exception("model.failed", rows=4)
    text = stream.getvalue()
    assert "model.failed" in text
    assert "rows=4" in text
    assert "hunter2" not in text.replace('fails("hunter2")', "")


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_access_lines_keep_to_their_rate_and_say_how_many_were_left_out() -> None:
    clock, stream = Clock(), configured("json")
    access = logs.AccessLog(10, clock=clock)
    written = 0
    for _ in range(1000):  # one second of 1000 requests
        clock.now += 0.001
        if access.wanted(True):
            access.write(True, model="digits")
            written += 1
    assert written in range(19, 22)  # a burst of one second's lines, and those of the second that passed
    lines = read(stream)
    assert sum(line.get("skipped", 0) for line in lines) + written in range(900, 1001)
    assert {line["event"] for line in lines} == {"request"}


def test_after_a_pause_the_burst_is_at_most_one_seconds_lines() -> None:
    clock = Clock()
    access = logs.AccessLog(5, clock=clock)
    clock.now += 3600
    assert sum(access.wanted(True) for _ in range(100)) in (5, 6)


def test_errors_always_get_a_line() -> None:
    clock, stream = Clock(), configured("json")
    access = logs.AccessLog(0, clock=clock)
    assert not access.wanted(True)
    for _ in range(50):
        assert access.wanted(False)
        access.write(False, status="UNAVAILABLE")
    lines = read(stream)
    assert len(lines) == 50
    assert lines[0]["level"] == "warning"
    assert lines[0]["skipped"] == 1


def test_a_rate_below_one_a_second_still_writes_lines() -> None:
    clock = Clock()
    access = logs.AccessLog(0.1, clock=clock)
    first = sum(access.wanted(True) for _ in range(10))
    clock.now += 10
    assert first in (1, 2)
    assert sum(access.wanted(True) for _ in range(10)) == 1
