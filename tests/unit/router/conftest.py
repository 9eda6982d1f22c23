"""A cluster in one process, in virtual time."""

from __future__ import annotations

import pytest

from tests.unit.router.doubles import Cluster


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)
