"""A reader's view of the members, step by step, in virtual time."""

from __future__ import annotations

from dataclasses import replace

from shardline.coord.view import Change, Changed, Joined, Left, MembersView, Reason, Snapshot
from shardline.core.cluster import PoolKey, ReplicaInfo, ReplicaState

GRACE_S = 8.0


def replica(name: str, state: ReplicaState = ReplicaState.READY) -> ReplicaInfo:
    return ReplicaInfo(name, f"{name}:1", f"{name}:2", state, (PoolKey("digits", 1),), "cpu", "host", 7, 0.0)


A, B = replica("a"), replica("b")


def seen(*infos: ReplicaInfo) -> dict[str, ReplicaInfo]:
    return {info.id: info for info in infos}


def view_of(*infos: ReplicaInfo, epoch: str = "1", number: int = 5) -> MembersView[ReplicaInfo]:
    """A view long past any doubt."""
    view: MembersView[ReplicaInfo] = MembersView(GRACE_S)
    view.take_snapshot(-100.0, Snapshot(epoch, number, seen(*infos)), -1)
    view.take_snapshot(0.0, Snapshot(epoch, number, None), number)
    return view


def test_the_first_snapshot_makes_everyone_join() -> None:
    view: MembersView[ReplicaInfo] = MembersView(GRACE_S)
    assert view.take_snapshot(0.0, Snapshot("1", 2, seen(A, B)), -1) == [Joined(A), Joined(B)]
    assert view.members == seen(A, B)


def test_an_unchanged_snapshot_says_nothing() -> None:
    view = view_of(A)
    assert view.take_snapshot(1.0, Snapshot("1", 5, None), 5) == []
    assert view.take_snapshot(1.0, Snapshot("1", 5, seen(A)), 5) == []


def test_a_published_change_is_told_once() -> None:
    view = view_of(A)
    draining = replace(A, state=ReplicaState.DRAINING)
    assert view.take_change(1.0, Change("1", 5, 60, "a", draining)) == [Changed(A, draining)]
    assert view.take_change(1.0, Change("1", 5, 60, "a", draining)) == []
    assert view.take_snapshot(2.0, Snapshot("1", 60, seen(draining)), 60) == []


def test_a_gap_in_the_numbers_asks_for_a_snapshot() -> None:
    view = view_of(A)
    assert view.take_change(1.0, Change("1", 60, 70, "b", B)) is None
    assert view.members == seen(A)


def test_a_change_of_another_epoch_asks_for_a_snapshot() -> None:
    assert view_of(A).take_change(1.0, Change("2", 5, 60, "b", B)) is None


def test_a_snapshot_that_changes_overtook_is_ignored() -> None:
    view = view_of(A)
    view.take_change(1.0, Change("1", 5, 60, "b", B))
    assert view.take_snapshot(1.1, Snapshot("1", 5, seen(A)), 5) == []
    assert view.members == seen(A, B)


def test_a_member_that_redis_no_longer_names_has_left() -> None:
    assert view_of(A, B).take_snapshot(1.0, Snapshot("1", 60, seen(A)), 5) == [Left(B, Reason.EXPIRED)]


def test_a_lease_that_ended_between_two_changes_is_noticed() -> None:
    assert view_of(A, B).take_snapshot(1.0, Snapshot("1", 5, seen(A)), 5) == [Left(B, Reason.EXPIRED)]


def test_withdrawing_counts_at_once_even_in_doubt() -> None:
    view = view_of(A)
    view.lost()
    assert view.take_change(1.0, Change("1", 5, 60, "a", None, Reason.WITHDRAWN)) == [Left(A, Reason.WITHDRAWN)]


def test_an_emptied_redis_drops_nobody_before_the_grace_period_ends() -> None:
    view = view_of(A, B)
    view.lost()
    assert view.take_snapshot(10.0, Snapshot("", 0, {}), 5) == []
    assert view.members == seen(A, B)
    assert view.confirmed == 0
    assert view.take_snapshot(11.0, Snapshot("2", 1, seen(A)), 0) == []
    restarted_at = 11.0
    assert view.take_snapshot(restarted_at + GRACE_S - 0.1, Snapshot("2", 1, seen(A)), 1) == []
    assert view.take_snapshot(restarted_at + GRACE_S, Snapshot("2", 1, None), 1) == [Left(B, Reason.EXPIRED)]


def test_a_member_that_announces_itself_within_the_grace_period_never_left() -> None:
    view = view_of(A)
    view.take_snapshot(10.0, Snapshot("2", 0, {}), 5)
    assert view.take_change(11.0, Change("2", 0, 10, "a", A)) == []
    assert view.confirmed == 1
    assert view.take_snapshot(30.0, Snapshot("2", 10, None), 10) == []


def test_a_redis_that_stood_still_does_not_end_all_leases_at_once() -> None:
    view = view_of(A, B)
    view.lost()
    assert view.take_change(9.0, Change("1", 5, 60, "b", None, Reason.EXPIRED)) == []
    assert view.take_snapshot(9.1, Snapshot("1", 60, seen(A)), 60) == []
    assert view.members == seen(A, B)
    assert view.take_snapshot(9.1 + GRACE_S, Snapshot("1", 60, seen(A)), 60) == [Left(B, Reason.EXPIRED)]


def test_a_lease_that_ends_soon_after_redis_is_back_gets_the_grace_too() -> None:
    view = view_of(A)
    view.lost()
    view.take_snapshot(5.0, Snapshot("1", 5, seen(A)), 5)
    assert view.take_snapshot(5.5, Snapshot("1", 5, {}), 5) == []
    assert view.take_change(5.6, Change("1", 5, 60, "a", A)) == []
    assert view.take_snapshot(30.0, Snapshot("1", 60, None), 60) == []


def test_a_redis_restored_from_an_old_dump_is_a_new_life() -> None:
    view = view_of(A, B, number=50)
    assert view.take_snapshot(1.0, Snapshot("1", 40, seen(A)), 50) == []
    assert view.number == 40
    assert view.take_snapshot(1.0 + GRACE_S, Snapshot("1", 40, None), 40) == [Left(B, Reason.EXPIRED)]
