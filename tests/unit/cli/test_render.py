"""What is printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shardline.cli.call import answer_json, answer_rows, explain, model_row
from shardline.cli.render import duration_text, json_values, print_table, receipt_lines, values_text
from shardline.cli.serve import Output, Terminal, answer_row, line_for_people
from shardline.core.cluster import PoolKey, ReplicaInfo, ReplicaState
from shardline.local.readiness import broken_models, describe, first_answer
from shardline.local.reporter import FirstAnswer
from shardline.wire.client import Answer, CallFailed, ModelEntry, ModelMetadata, TensorMetadata

if TYPE_CHECKING:
    from typing import Any

RECEIPT = ({"stage": "0", "replica": "r-1", "queue_us": "166", "batch_rows": "1"},)
ANSWER = Answer({"label": np.array([7], dtype=np.int64), "p": np.zeros((1, 10), np.float32)}, "3", 0.0021, RECEIPT)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.000123, "123 µs"), (0.0123, "12.3 ms"), (1.5, "1.5 s"), (90, "90 s"), (600, "10 min"), (0, "0 µs")],
)
def test_a_duration_is_shown_in_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_long_array_is_shown_by_its_first_values_and_its_size() -> None:
    assert values_text(np.arange(10)) == "0 1 2 3 4 5 6 7 … (10 values)"
    assert values_text(np.array([b"a", b"\xff"], dtype=object)) == "a \ufffd"


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([[1.5, 2.0, 3.0, 4.0]]), "[1×4] 1.5, 2, 3 …"),
        (np.array(7), "[scalar] 7"),
        (np.array([b"yes"], dtype=object), "[1] 'yes'"),
        (np.array([np.nan]), "[1] nan"),
        (np.empty((0, 3)), "[0×3] "),
    ],
)
def test_the_first_answer_is_told_in_a_few_words(array: np.ndarray, text: str) -> None:
    assert describe(array) == text


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (np.array([[1, 2]]), [[1, 2]]),
        (np.array([1.5, np.nan, np.inf]), [1.5, "nan", "inf"]),
        (np.array([b"a", b"\xff"], dtype=object), ["a", "\ufffd"]),
        (np.array([], dtype=object), []),
    ],
)
def test_json_holds_what_json_can(array: np.ndarray, values: list[Any]) -> None:
    assert json.loads(json.dumps(json_values(array), allow_nan=False)) == values


def test_an_answer_is_a_row_per_output_and_one_json_document() -> None:
    assert answer_rows(ANSWER)[0] == ("label", "INT64", "[1]", "7")
    document = answer_json("digits", ANSWER)
    assert document["outputs"]["label"] == {"datatype": "INT64", "shape": [1], "data": [7]}
    assert (document["model"], document["version"], document["receipt"]) == ("digits", "3", list(RECEIPT))


def test_a_receipt_is_a_line_per_stage() -> None:
    assert receipt_lines(RECEIPT) == ["stage 0 on r-1: queue 166 µs, batch rows 1"]
    assert receipt_lines(()) == []


def test_a_table_keeps_brackets_and_cuts_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("output", "shape"), [("x" * 60, "[1, 3]")])
    printed = capsys.readouterr().out
    assert "[1, 3]" in printed
    assert "x" * 60 in printed


def test_a_receipt_that_was_cut_says_so() -> None:
    assert receipt_lines(({"stage": "1", "replica": "r-1", "bucket": "4"}, {"left_out": "7"})) == [
        "stage 1 on r-1: bucket 4",
        "and 7 more batches",
    ]


def test_a_model_that_is_not_ready_shows_its_reason_and_no_tensors() -> None:
    entry = ModelEntry("bad", "1", "UNAVAILABLE", "not an ONNX file")
    assert model_row(entry, None) == ("bad", "1", "UNAVAILABLE", "-", "", "", "not an ONNX file")
    metadata = ModelMetadata("m", ("1",), "onnx", (TensorMetadata("x", "FP32", (-1, 2)),), ())
    row = model_row(ModelEntry("m", "1", "READY", ""), metadata, (1, 2))
    assert (row[3], row[4]) == ("1+2", "x FP32 [-1, 2]")


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses; last error: …", "shardline serve"),
        ("UNAVAILABLE", "no replica of sum:1", "UNAVAILABLE: no replica"),
        ("NOT_FOUND", "no model x", "shardline models"),
        ("DEADLINE_EXCEEDED", "…", "--timeout"),
        ("INVALID_ARGUMENT", "input x", "INVALID_ARGUMENT: input x"),
    ],
)
def test_a_failed_call_says_what_to_do_next(status: str, message: str, words: str) -> None:
    assert words in explain(CallFailed(status, message), "127.0.0.1:8001")


def test_a_model_is_broken_only_if_none_of_its_versions_can_come() -> None:
    index = [
        ModelEntry("a", "1", "UNAVAILABLE", "corrupt"),
        ModelEntry("b", "1", "UNAVAILABLE", "corrupt"),
        ModelEntry("b", "2", "READY", ""),
        ModelEntry("c", "", "", ""),
        ModelEntry("d", "1", "UNAVAILABLE", "corrupt"),
    ]
    assert broken_models(index, ["a", "b", "c"]) == {"a": "corrupt"}


def test_the_first_answer_counts_nobody_who_does_not_serve_the_model() -> None:
    row = first_answer("digits", ANSWER.version, ANSWER, (), "127.0.0.1:8001")
    assert (row.replicas, row.version, row.device) == ((), "3", "")


def test_the_first_answer_counts_the_replicas_of_each_stage_of_the_version_that_answered() -> None:
    pools = [(PoolKey("digits", 3, 1),), (PoolKey("digits", 3), PoolKey("digits", 2)), (PoolKey("digits", 3, 1),)]
    replicas = tuple(
        ReplicaInfo(f"r-{at}", "c", "l", ReplicaState.READY, own, "cpu", "here", 1, 0.0) for at, own in enumerate(pools)
    )
    row = first_answer("digits", ANSWER.version, ANSWER, replicas, "127.0.0.1:8001")
    assert answer_row(row)[1:4] == ("3", "2", "1+2")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('{"event": "redis.away", "level": "warning", "error": "refused"}', "warning: redis.away: refused"),
        ('{"event": "started", "level": "info"}', None),
        ('{"event": "request", "level": "warning"}', None),
        ("Traceback (most recent call last):", None),
        ('{"event": "odd", "level": "strange"}', "strange: odd"),
    ],
)
def test_people_see_warnings_but_neither_access_lines_nor_tracebacks(line: str, shown: str | None) -> None:
    assert line_for_people(line, "warning") == shown


class _Lines:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        return

    def isatty(self) -> bool:
        return False


def _terminal(output: Output) -> tuple[Terminal, _Lines]:
    lines = _Lines()
    return Terminal(output, lines), lines  # type: ignore[arg-type]


def test_without_a_terminal_each_change_of_progress_is_one_line() -> None:
    terminal, lines = _terminal(Output.PEOPLE)
    with terminal:
        for done in (0, 0, 1, 1):
            terminal.progress("replicas ready", done, 2)
    assert lines.text == "replicas ready: 0 of 2\nreplicas ready: 1 of 2\n"


def test_quiet_hides_everything_but_errors() -> None:
    terminal, lines = _terminal(Output.QUIET)
    terminal.progress("replicas ready", 0, 2)
    terminal.notice("replica 0 ended")
    terminal.line("replica 0", '{"event": "slow", "level": "warning"}')
    terminal.line("replica 0", '{"event": "lost", "level": "error"}')
    assert lines.text == "replica 0: error: lost\n"


def test_json_logs_pass_every_line_on_as_json() -> None:
    terminal, lines = _terminal(Output.LINES)
    terminal.line("replica 0", '{"event": "x", "level": "debug"}')
    terminal.line("redis", "plain text")
    terminal.notice("replica 0 ended")
    assert [json.loads(line).get("message") for line in lines.text.splitlines()] == [
        None,
        "plain text",
        "replica 0 ended",
    ]


def test_ready_prints_the_table_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    from shardline.local.options import load_settings

    terminal, _ = _terminal(Output.QUIET)
    row = FirstAnswer("digits", "1", (2, 1), "cpu", "127.0.0.1:8001", "label [1] 7", 0.0021)
    terminal.ready(load_settings(repository="models"), (row,))
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("digits", "2+1", "cpu", "127.0.0.1:8001", "label [1] 7", "2.1 ms"))
