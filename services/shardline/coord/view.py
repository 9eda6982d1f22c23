"""A reader's view of the members, kept right through lost messages and lost Redis. Pure: values and times in, events out.

Redis numbers every change of a kind of member by its clock, strictly growing, and an *epoch* names the life of the
numbering: an emptied Redis starts a new one. A published change names the number that it follows on; it is applied only
if that is the view's, so the view is complete at its number; otherwise a snapshot is asked for. A snapshot is never
older than the number it was asked at, unless Redis went back in time (restored an old dump), which counts as a new
epoch. Numbers are times, not counts, so that a restored dump does not give two contents one number.

No lease is ended here by a local clock: while Redis is away the last view stands. When Redis was away or starts a new
epoch, members that it does not name get a grace period to announce themselves again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Generic

from shardline.coord.codec import M

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reason(StrEnum):
    """Why a member left."""

    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Joined(Generic[M]):
    """A member is new."""

    info: M


@dataclass(frozen=True, slots=True)
class Changed(Generic[M]):
    """A member announces something else than before."""

    before: M
    info: M


@dataclass(frozen=True, slots=True)
class Left(Generic[M]):
    """A member withdrew, or its lease ended; info is what it last announced."""

    info: M
    reason: Reason


Event = Joined[M] | Changed[M] | Left[M]


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[M]):
    """All members at a number. members: None where nothing changed since the number it was asked at."""

    epoch: str
    number: int
    members: Mapping[str, M] | None


@dataclass(frozen=True, slots=True)
class Change(Generic[M]):
    """One published change, the next one after number `after`.

    info: what the member announces, None if it left for `reason`.
    """

    epoch: str
    after: int
    number: int
    id: str
    info: M | None
    reason: Reason = Reason.EXPIRED


@dataclass(slots=True)
class MembersView(Generic[M]):
    """What the reader holds to be true.

    grace_s: after Redis was away or emptied, for how long it is not believed that a member which it does not name is
    gone; at least the time in which every living member has announced itself again.
    """

    grace_s: float
    members: dict[str, M] = field(default_factory=dict)
    epoch: str = ""
    number: int = -1
    _missing: set[str] = field(default_factory=set)
    _doubt: bool = False
    _trusted_from: float = float("-inf")

    @property
    def confirmed(self) -> int:
        """Members that Redis named at `number`: all but those in their grace period."""
        return len(self.members) - len(self._missing)

    def lost(self) -> None:
        """Redis did not answer or dropped a connection; the grace period begins when it answers again."""
        self._doubt = True

    def take_snapshot(self, now: float, snapshot: Snapshot[M], asked_at: int) -> list[Event[M]]:
        """Apply a snapshot that was asked for when `number` was asked_at; now: monotonic seconds."""
        same_life = snapshot.epoch == self.epoch and snapshot.number >= asked_at
        if same_life and snapshot.number < self.number:
            return []  # overtaken by published changes while it was on its way
        if self._doubt or not same_life:
            self._trusted_from = now + self.grace_s
            self._doubt = False
        self.epoch, self.number = snapshot.epoch, snapshot.number
        events: list[Event[M]] = []
        if snapshot.members is not None:
            for id_, info in snapshot.members.items():
                events += self._present(id_, info)
            self._missing = self.members.keys() - snapshot.members.keys()
        if now >= self._trusted_from:
            for id_ in sorted(self._missing):
                events += self._leave(id_, Reason.EXPIRED)
        return events

    def take_change(self, now: float, change: Change[M]) -> list[Event[M]] | None:
        """Apply a published change. None: it does not follow on what is known, a snapshot is needed."""
        if change.epoch != self.epoch:
            return None
        if change.number <= self.number:
            return []
        if change.after != self.number:
            return None
        self.number = change.number
        if change.info is not None:
            return self._present(change.id, change.info)
        doubtful = self._doubt or now < self._trusted_from
        if change.reason is Reason.EXPIRED and doubtful:
            # A Redis that stood still ends every lease at once, and the first beat after it tells of all of them.
            self._missing |= self.members.keys() & {change.id}
            return []
        return self._leave(change.id, change.reason)

    def _present(self, id_: str, info: M) -> list[Event[M]]:
        self._missing.discard(id_)
        before = self.members.get(id_)
        if before == info:
            return []
        self.members[id_] = info
        return [Joined(info) if before is None else Changed(before, info)]

    def _leave(self, id_: str, reason: Reason) -> list[Event[M]]:
        self._missing.discard(id_)
        info = self.members.pop(id_, None)
        return [] if info is None else [Left(info, reason)]
