"""Which load reports count."""

from __future__ import annotations

from shardline.coord.load import LoadView
from shardline.core.cluster import LoadReport, PoolKey

ONE, TWO = PoolKey("digits", 1), PoolKey("minilm", 1)


def test_a_report_that_arrives_late_is_dropped() -> None:
    view = LoadView()
    newest = LoadReport(queue_rows=5, sequence=9)
    assert view.take("r", {ONE: newest}) == {ONE: newest}
    assert view.take("r", {ONE: LoadReport(queue_rows=1, sequence=8)}) == {}
    assert view.take("r", {ONE: newest}) == {}
    assert view.latest["r"][ONE] == newest


def test_pools_are_judged_one_by_one() -> None:
    view = LoadView()
    view.take("r", {ONE: LoadReport(sequence=5)})
    assert view.take("r", {ONE: LoadReport(sequence=4), TWO: LoadReport(sequence=1)}) == {TWO: LoadReport(sequence=1)}


def test_reports_without_sequences_count_when_they_differ() -> None:
    view = LoadView()
    assert view.take("r", {ONE: LoadReport(1)})
    assert not view.take("r", {ONE: LoadReport(1)})
    assert view.take("r", {ONE: LoadReport(2)})


def test_a_replica_that_left_is_forgotten() -> None:
    view = LoadView()
    view.take("r", {ONE: LoadReport(sequence=5)})
    view.forget("r")
    view.forget("r")
    assert view.take("r", {ONE: LoadReport(sequence=1)})
