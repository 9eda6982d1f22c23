"""What every test shares: in CI, a test that was skipped has failed.

A test that needs a server, a device or a program skips itself by name where that is missing. In CI everything that
`make test` needs is there, so a skip means that something was not installed or not started; the tests that need more
(tests/cluster, tests/gpu) are run by name only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

ELSEWHERE = tuple(Path(__file__).parent / name for name in ("cluster", "gpu"))


def _strict(path: Path) -> bool:
    return os.environ.get("CI") == "true" and not any(path.is_relative_to(folder) for folder in ELSEWHERE)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def _fail_a_skip(report: pytest.TestReport | pytest.CollectReport, path: Path) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and _strict(path):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be missing: {_reason(report)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test's outcome."""
    report = yield
    _fail_a_skip(report, item.path)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: Any) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module's outcome, when it was read."""
    report = yield
    _fail_a_skip(report, collector.path)
    return report
