"""What unit tests share."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def no_collector() -> Iterator[None]:
    """References alone decide what is freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
