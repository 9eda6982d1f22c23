"""The members' view against a model of Redis that stops, empties and loses messages, with replicas that come and go."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from enum import Enum
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shardline.coord.view import Change, Changed, Event, Joined, Left, MembersView, Reason, Snapshot
from shardline.core.cluster import ReplicaInfo, ReplicaState

STEP_S, BEAT_S, LEASE_S, POLL_S, GRACE_S = 0.5, 1.0, 4.0, 1.0, 8.0


CLOCK = count(1)
"""Redis's own clock: it goes on when Redis goes back to an old dump."""


class Fate(Enum):
    """What becomes of a published message: a subscription keeps their order, but may lose or hold some."""

    DELIVER = "deliver"
    LOSE = "lose"
    HOLD = "hold"


@dataclass
class Replica:
    info: ReplicaInfo
    next_beat: float
    died_at: float | None = None


class ModelRedis:
    """What the scripts do, in Python: numbered changes in an epoch, leases, published messages."""

    def __init__(self) -> None:
        self.up = True
        self.lives = 0
        self.empty()

    def empty(self) -> None:
        self.epoch = ""
        self.number = 0
        self.leases: dict[str, tuple[float, ReplicaInfo]] = {}
        self.messages: list[Change[ReplicaInfo]] = []

    def beat(self, now: float, info: ReplicaInfo) -> None:
        if not self.epoch:
            self.lives += 1
            self.epoch = str(self.lives)
        for id_ in [id_ for id_, (end, _) in self.leases.items() if end <= now]:
            del self.leases[id_]
            self._tell(id_, None, Reason.EXPIRED)
        known = self.leases.get(info.id)
        self.leases[info.id] = (now + LEASE_S, info)
        if known is None or known[1] != info:
            self._tell(info.id, info, Reason.EXPIRED)

    def withdraw(self, id_: str) -> None:
        if self.leases.pop(id_, None) is not None:
            self._tell(id_, None, Reason.WITHDRAWN)

    def snapshot(self, now: float, known: tuple[str, int, int]) -> Snapshot[ReplicaInfo]:
        alive = {id_: info for id_, (end, info) in self.leases.items() if end > now}
        same = known == (self.epoch, self.number, len(alive))
        return Snapshot(self.epoch, self.number, None if same else alive)

    def _tell(self, id_: str, info: ReplicaInfo | None, reason: Reason) -> None:
        after, self.number = self.number, next(CLOCK)
        self.messages.append(Change(self.epoch, after, self.number, id_, info, reason))


class ViewMachine(RuleBasedStateMachine):
    """Time goes in half seconds; living replicas beat and the reader polls when due, as the shells do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.redis = ModelRedis()
        self.replicas: dict[str, Replica] = {}
        self.view: MembersView[ReplicaInfo] = MembersView(GRACE_S)
        self.told: dict[str, ReplicaInfo] = {}
        self.next_poll = 0.0
        self.up_since = 0.0
        self.fates = [Fate.DELIVER]
        self.dump = copy.deepcopy(self.redis)
        self.delayed: tuple[Snapshot[ReplicaInfo], int] | None = None

    @rule()
    def start_replica(self) -> None:
        if len(self.replicas) < 12:
            name = f"r{len(self.replicas)}"
            info = ReplicaInfo(name, name, name, ReplicaState.STARTING, (), "cpu", "host", 1, 0.0)
            self.replicas[name] = Replica(info, self.now)

    @rule(data=st.data())
    @precondition(lambda self: self._living())
    def change_replica(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self._living()))
        one.info = replace(one.info, pid=one.info.pid + 1)
        one.next_beat = self.now

    @rule(data=st.data(), politely=st.booleans())
    @precondition(lambda self: self._living())
    def end_replica(self, data: st.DataObject, politely: bool) -> None:
        one = data.draw(st.sampled_from(self._living()))
        one.died_at = self.now
        if politely and self.redis.up:
            self.redis.withdraw(one.info.id)

    @rule(steps=st.integers(0, 24), empty=st.booleans())
    def redis_is_away(self, steps: int, empty: bool) -> None:
        self.redis.up = False
        self._pass(steps)
        self.redis.up = True
        self.up_since = self.now
        if empty:
            self.redis.empty()
            self.view.lost()  # its connections broke

    @rule()
    def redis_goes_back_in_time(self) -> None:
        self.redis = copy.deepcopy(self.dump)
        self.view.lost()  # its connections broke
        self.up_since = self.now

    @rule()
    def redis_writes_a_dump(self) -> None:
        self.dump = copy.deepcopy(self.redis)
        self.dump.messages.clear()

    @rule()
    def ask_for_a_snapshot_that_is_slow(self) -> None:
        self.delayed = (self.redis.snapshot(self.now, self._known()), self.view.number)

    @rule(steps=st.integers(1, 12))
    def let_time_pass(self, steps: int) -> None:
        self._pass(steps)

    @rule(fates=st.lists(st.sampled_from(Fate), min_size=1, max_size=8))
    def messages_fare_badly(self, fates: list[Fate]) -> None:
        self.fates = fates

    @rule()
    def settle(self) -> None:
        self.fates = [Fate.DELIVER]
        self._pass(round((LEASE_S + GRACE_S + 2 * POLL_S) / STEP_S) + 4)
        assert self.view.members == {one.info.id: one.info for one in self._living()}

    @invariant()
    def what_was_told_is_the_view(self) -> None:
        assert self.told == self.view.members

    @invariant()
    def the_dead_do_not_stay(self) -> None:
        for name in self.view.members:
            died_at = self.replicas[name].died_at
            if died_at is not None:
                assert self.now - max(died_at, self.up_since) <= LEASE_S + GRACE_S + 2 * POLL_S

    @initialize()
    def three_replicas_and_a_reader(self) -> None:
        for _ in range(3):
            self.start_replica()
        self._pass(4)

    def _pass(self, steps: int) -> None:
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
        self.now += STEP_S
        if self.redis.up:
            for one in self._living():
                if one.next_beat <= self.now:
                    self.redis.beat(self.now, one.info)
                    one.next_beat = self.now + BEAT_S
        if self.redis.up:
            self._deliver()
        if self.delayed is not None and self.redis.up:
            snapshot, asked_at = self.delayed
            self._hear(self.view.take_snapshot(self.now, snapshot, asked_at))
            self.delayed = None
        if self.next_poll <= self.now:
            self._poll()

    def _deliver(self) -> None:
        while self.redis.messages:
            self.fates = [*self.fates[1:], self.fates[0]]
            if self.fates[0] is Fate.HOLD:
                return
            change = self.redis.messages.pop(0)
            if self.fates[0] is Fate.LOSE:
                continue
            events = self.view.take_change(self.now, change)
            if events is None:
                self._poll()
            else:
                self._hear(events)

    def _poll(self) -> None:
        self.next_poll = self.now + POLL_S
        self.delayed = None  # the shell has one snapshot on its way at most
        if not self.redis.up:
            self.view.lost()
            return
        asked_at = self.view.number
        self._hear(self.view.take_snapshot(self.now, self.redis.snapshot(self.now, self._known()), asked_at))

    def _hear(self, events: list[Event[ReplicaInfo]]) -> None:
        for event in events:
            id_ = event.info.id
            match event:
                case Joined():
                    assert id_ not in self.told
                    self.told[id_] = event.info
                case Changed():
                    assert self.told[id_] == event.before != event.info
                    self.told[id_] = event.info
                case Left():
                    assert self.told.pop(id_) == event.info
                    assert self.replicas[id_].died_at is not None, "a living replica was declared gone"

    def _known(self) -> tuple[str, int, int]:
        return (self.view.epoch, self.view.number, self.view.confirmed)

    def _living(self) -> list[Replica]:
        return [one for one in self.replicas.values() if one.died_at is None]


ViewMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestViewAgainstAModelOfRedis = ViewMachine.TestCase
