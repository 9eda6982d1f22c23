"""How many rows are in a pipeline, as its senders tell."""

from __future__ import annotations

from shardline.batching.in_flight import InFlight


def test_senders_add_up_and_are_forgotten_when_they_fall_silent() -> None:
    told = InFlight()
    assert told.rows(0.0) == 0
    told.told(b"a", 6, 0.0)
    told.told(b"b", 4, 5.0)
    assert told.rows(6.0) == 10
    assert told.rows(12.0) == 4
    assert told.rows(20.0) == 0


def test_a_smaller_number_fades_in_and_a_larger_counts_at_once() -> None:
    told = InFlight()
    told.told(b"a", 16, 0.0)
    told.told(b"a", 13, 0.1)  # the callers of one batch come back one after the other
    assert told.rows(0.1) == 14
    for _ in range(30):
        told.told(b"a", 2, 0.2)
    assert told.rows(0.2) == 2
    told.told(b"a", 20, 0.3)
    assert told.rows(0.3) == 20
