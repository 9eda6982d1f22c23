"""When a child is started again."""

from __future__ import annotations

import pytest

from shardline.local.backoff import GiveUp, Restart, RestartPolicy

POLICY = RestartPolicy(quick_s=10.0, first_delay_s=0.25, max_delay_s=2.0, give_up_after=3)


@pytest.mark.parametrize(
    ("lives_s", "started", "decision"),
    [
        ((1.0,), False, Restart(0.0)),
        ((1.0, 1.0), False, Restart(0.25)),
        ((1.0, 1.0, 1.0), False, GiveUp(3)),
        ((1.0, 1.0, 1.0), True, Restart(0.5)),
        ((3600.0,), True, Restart(0.0)),
        ((1.0, 1.0, 3600.0), True, Restart(0.0)),
        ((3600.0, 1.0, 1.0), True, Restart(0.25)),
        ((1.0,) * 16, True, Restart(2.0)),
    ],
)
def test_a_child_that_keeps_ending_waits_longer_and_one_that_ran_well_does_not(
    lives_s: tuple[float, ...], started: bool, decision: Restart | GiveUp
) -> None:
    assert POLICY.decide(lives_s, started=started) == decision


def test_a_cluster_that_has_served_never_gives_a_child_up() -> None:
    assert all(isinstance(POLICY.decide((0.1,) * count, started=True), Restart) for count in range(1, 40))
