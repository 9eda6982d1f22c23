"""The report's files and the page of the docs."""

import json
from pathlib import Path

import pytest

from loadtests.bench import plot
from loadtests.bench.limit import Point
from loadtests.bench.report import between, facts, publish, write
from loadtests.bench.results import Key, Sample, cells, ratios
from loadtests.bench.tables import Table

TABLE = Table("digits", ("system", "requests/s"), (("plain", "1"),))


def test_only_what_stands_between_the_marks_of_a_page_is_replaced() -> None:
    page = "before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n"
    assert between(page, "new\n") == "before\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nafter\n"
    assert between(between(page, "new"), "newer").count("new") == 1


def test_a_page_without_marks_is_refused_rather_than_overwritten() -> None:
    with pytest.raises(ValueError, match="bench:begin"):
        between("a page", "new")


def test_the_report_says_where_it_was_made_and_what_was_left_out(tmp_path: Path) -> None:
    paths = write(tmp_path, facts({"rounds": "3"}), [], [TABLE], ["mosec: no network"], None)
    data = json.loads(paths[0].read_text())
    assert data["facts"]["cores"] >= 1
    assert data["facts"]["packages"]["onnxruntime"]
    assert data["skipped"] == ["mosec: no network"]
    for path in paths[1:]:
        text = path.read_text()
        assert "mosec: no network" in text
        assert "requests/s" in text


def test_a_picture_is_drawn_and_published_with_the_tables(tmp_path: Path) -> None:
    samples = [
        Sample(Key("digits", system, callers), 0, 10, 0, 100.0 * callers, 1.0, 2.0, 0.1, 0.1, 50.0)
        for system in ("plain", "native-1")
        for callers in (1, 8)
    ]
    picture, page = tmp_path / "report.png", tmp_path / "page.md"
    labels = {"plain": "plain", "native-1": "native"}
    plot.draw(picture, cells(samples), ratios(samples, "plain"), {"digits": Point(8, 900.0, 1.0)}, labels, "a machine")
    assert picture.read_bytes().startswith(b"\x89PNG")
    page.write_text("<!-- bench:begin --><!-- bench:end -->")
    publish(page, facts({}), [TABLE], picture)
    assert "images/bench.png" in page.read_text()
    assert (tmp_path / "images" / "bench.png").read_bytes() == picture.read_bytes()


def test_the_docs_have_the_marks() -> None:
    page = Path(__file__).parents[3] / "docs" / "performance.md"
    assert "new" in between(page.read_text(), "new")
