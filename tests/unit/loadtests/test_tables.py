"""How figures are shown."""

import pytest

from loadtests.bench.limit import Point, best
from loadtests.bench.results import Key, Sample, cells, ratios
from loadtests.bench.tables import Table, limits, matrix, number, overhead

LABELS = {"plain": "plain grpc.aio", "native-1": "Shardline native ×1"}


def samples() -> list[Sample]:
    return [
        Sample(Key("digits", system, callers), 0, 10, 0, rate, p50, 2.0, 0.1, 0.01, 80.0)
        for system, callers, rate, p50 in (
            ("plain", 1, 2000.0, 0.5),
            ("native-1", 1, 2600.0, 0.4),
            ("plain", 8, 6e3, 1.3),
        )
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(31415.9, "31,416"), (31.41, "31.4"), (3.1415, "3.14"), (0.0314, "0.031"), (0.0, "0.00")]
)
def test_numbers_have_the_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text


def test_the_matrix_shows_a_ratio_where_there_is_a_baseline_and_a_dash_elsewhere() -> None:
    table = matrix("digits", cells(samples()), {"plain": ratios(samples(), "plain")}, LABELS, Point(8, 5e4, 0.1))
    shown = {(row[0], row[1]): row for row in table.rows}
    assert shown["Shardline native ×1", "1"][9:11] == ("1.30×", "–")
    assert shown["plain grpc.aio", "8"][9] == "1.00×"
    assert "50,000 rows/s, best at batches of 8" in table.note
    assert table.breaks == {1, 2}  # a line after each number of callers


def test_added_latency_is_the_median_at_one_caller_less_the_models_own_time() -> None:
    table = overhead(cells(samples()), {"digits": [Point(1, 1e4, 0.1), Point(8, 5e4, 0.2)]}, LABELS)
    assert [row[1::3] for row in table.rows] == [("plain grpc.aio", "+0.40"), ("Shardline native ×1", "+0.30")]


def test_the_limit_is_the_best_batch_not_the_largest() -> None:
    points = [Point(1, 100, 10), Point(8, 300, 27), Point(64, 250, 256)]
    assert best(points).rows == 8
    assert limits({"m": points}).rows == (("m", "100", "300", "250", "10.0"),)


def test_markdown_and_html_carry_the_same_cells_and_html_is_escaped() -> None:
    table = Table("a < b", ("name", "value"), (("x & y", "1"), ("z", "2")), "note")
    assert "| x & y | 1 |" in table.markdown()
    assert "---:" in table.markdown()
    assert "<td>x &amp; y</td><td>1</td>" in table.html()
    assert "a &lt; b" in table.html()
