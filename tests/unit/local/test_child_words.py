"""What a child's output says about its end."""

from __future__ import annotations

import json

import pytest

from shardline.local.child import describe_line, describe_status, last_error

ERROR = json.dumps({"event": "replica.failed", "level": "error", "error": "model sum: not an ONNX file"})
INFO = json.dumps({"event": "replica.closing", "level": "info"})


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "it said nothing"),
        ([INFO, ERROR, INFO], "replica.failed: model sum: not an ONNX file"),
        ([INFO], "replica.closing"),
        (
            ["Traceback (most recent call last):", "  File x", "ImportError: no onnxruntime"],
            "ImportError: no onnxruntime",
        ),
        (["plain", INFO], "plain"),
        ([ERROR, "Bus error"], "Bus error"),
    ],
)
def test_the_last_error_is_found_among_events_and_plain_text(lines: list[str], words: str) -> None:
    assert last_error(lines) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"event": "redis.away", "error": "refused"}', "redis.away: refused"),
        ('{"event": "x", "exception": "Traceback …\\nValueError: no"}', "x: ValueError: no"),
        ("{not json", "{not json"),
        ('{"other": 1}', '{"other": 1}'),
        ("[1]", "[1]"),
    ],
)
def test_a_line_is_told_in_words(line: str, words: str) -> None:
    assert describe_line(line) == words


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_an_exit_status_is_told_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words
