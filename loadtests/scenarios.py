"""How many users there are at a time: steady, ramp, spike. Pure."""

from __future__ import annotations

from typing import Literal, get_args

Scenario = Literal["steady", "ramp", "spike"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)


def users_at(scenario: Scenario, elapsed_s: float, users: int, seconds: float) -> int | None:
    """Users wanted `elapsed_s` after the start; None once the run is over.

    steady: all of them from the start. ramp: from one to all over the first two thirds, then all.
    spike: a quarter, but all of them in the middle third (and a quarter again: does it recover?).
    """
    if elapsed_s >= seconds:
        return None
    share = elapsed_s / seconds
    if scenario == "steady":
        return users
    if scenario == "ramp":
        return max(1, min(users, round(users * share * 1.5)))
    quiet = max(1, users // 4)
    return users if 1 / 3 <= share < 2 / 3 else quiet
