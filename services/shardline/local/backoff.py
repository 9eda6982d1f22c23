"""When a child that ended is started again: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the child again after `delay_s` seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The child cannot stay up; `quick_failures` in a row were counted."""

    quick_failures: int


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Doubling delays for a child that keeps ending, none for one that ran well.

    quick_s: a life shorter than this, in seconds, counts as a quick failure.
    first_delay_s, max_delay_s: of the second and of any later restart after quick failures.
    give_up_after: quick failures in a row, before the cluster was ever ready, that end the start-up. A cluster
    that has served goes on trying: its other members may be well.
    """

    quick_s: float = 10.0
    first_delay_s: float = 0.25
    max_delay_s: float = 15.0
    give_up_after: int = 3

    def decide(self, lives_s: Sequence[float], *, started: bool) -> Restart | GiveUp:
        """What to do after a child's last life ended.

        lives_s: how long each life lasted, in seconds, oldest first. started: whether the cluster was ready once.
        """
        quick = 0
        for life_s in reversed(lives_s):
            if life_s >= self.quick_s:
                break
            quick += 1
        if not started and quick >= self.give_up_after:
            return GiveUp(quick)
        if quick <= 1:
            return Restart(0.0)
        return Restart(min(self.max_delay_s, self.first_delay_s * 2.0 ** (quick - 2)))
