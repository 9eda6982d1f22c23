"""A receipt fits into what clients take as metadata, however many parts a request had."""

from __future__ import annotations

from shardline.router.replies import join_receipts
from shardline.wire.client import read_receipt

PART = "stage={};replica=r-0123456789;queue_us={};batch_rows=1;bucket=1;input_us=10;compute_us=5000"


def test_the_receipts_of_a_few_parts_stand_in_full_and_each_once() -> None:
    parts = [f"{PART.format(0, at)}|{PART.format(1, at)}" for at in range(3)]
    entries = read_receipt(join_receipts([*parts, parts[0]]))
    assert [(entry["stage"], entry["queue_us"]) for entry in entries] == [
        ("0", "0"),
        ("1", "0"),
        ("0", "1"),
        ("1", "1"),
        ("0", "2"),
        ("1", "2"),
    ]


def test_what_there_is_no_room_for_is_counted() -> None:
    text = join_receipts(f"{PART.format(0, at)}|{PART.format(1, at)}" for at in range(1000))
    assert len(text) < 4200
    *entries, last = read_receipt(text)
    assert int(last["left_out"]) + len(entries) == 2000
    assert all(entry.keys() == entries[0].keys() for entry in entries)


def test_no_receipt_stays_none() -> None:
    assert join_receipts([]) == ""
