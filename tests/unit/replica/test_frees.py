"""What ran is freed at once: batches hold tensors, which must not wait for the cyclic collector."""

from __future__ import annotations

import gc

import pytest

from shardline.replica.batch import Batch
from tests.unit.replica.doubles import POISON, Bench

pytestmark = pytest.mark.usefixtures("no_collector")


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, POISON]])
def test_no_batch_outlives_its_end(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    bench = Bench(monkeypatch)
    model = bench.serve()
    bench.send(model, values)
    assert _alive()
    bench.finish()
    assert not _alive()


def _alive() -> list[Batch]:
    return [item for item in gc.get_objects() if isinstance(item, Batch)]
