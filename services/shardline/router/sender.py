"""Which replicas a part goes to, and one message per replica and turn of the event loop."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from shardline.core.errors import VersionGone
from shardline.router.pipeline import Itineraries, choose_route
from shardline.router.policy import power_of_two

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardline.router.calls import Leg, Part, Request
    from shardline.router.members import Member
    from shardline.router.replies import PartAnswer


class Sender:
    """Sends parts, and takes them back. What is put for a replica leaves at the end of the turn."""

    def __init__(self, schedule: Callable[[Callable[[], None]], object], identity: bytes) -> None:
        """schedule: runs a callback at the end of this turn of the event loop. identity: of this router's links."""
        self._schedule = schedule
        self._itineraries = Itineraries(identity)
        self._dirty: dict[int, Member] = {}
        self._flushing = False
        self._next_id = random.getrandbits(40) << 20

    def forget_routes(self) -> None:
        """The table changed: itineraries made against it are void."""
        self._itineraries.clear()

    def send(self, part: Part, now: float) -> VersionGone | None:
        """Send to the better of two replicas that were not tried; returns why it cannot be sent."""
        serving = part.request.prepared.serving
        if serving.stages:
            return self._send_staged(part, now)
        members = serving.ready
        if part.tried:
            members = [member for member in members if member not in part.tried] or members
        if not members:
            return _unserved(part, "has no replica that is ready")
        if len(members) == 1:
            member = members[0]
        else:
            candidates = [member.candidate(serving.pool_text, now) for member in members]
            member = members[power_of_two(candidates, _draw)]
        self._number(part)
        member.put(part)
        self.touch(member)
        return None

    def _send_staged(self, part: Part, now: float) -> VersionGone | None:
        """Choose a replica for every stage and put the part on its way."""
        self.release(part)
        serving = part.request.prepared.serving
        route = choose_route(serving, part.tried, now, _draw)
        if route is None or not serving.ready:
            return _unserved(part, "has a stage without a replica that is ready")
        self._number(part)
        self._itineraries.launch(part, route)
        for member in route:
            self.touch(member)
        return None

    def _number(self, part: Part) -> None:
        self._next_id += 1
        part.wire_id = self._next_id
        part.attempts += 1

    def gather(self, leg: Leg, answer: PartAnswer) -> PartAnswer | None:
        """A stage's answer; the whole part's once the last stage that answers did."""
        whole = self._itineraries.gather(leg, answer)
        if whole is not None:
            for other in leg.whole.legs:
                if other.member is not None:
                    other.member.take(other.wire_id)
            leg.whole.legs, leg.whole.gathered = (), None
        return whole

    def release(self, part: Part) -> None:
        """No stage needs to go on with the part."""
        legs, part.legs, part.gathered = part.legs, (), None
        for leg in legs:
            self._cancel(leg)

    def take_back(self, request: Request) -> None:
        """Nobody needs any part of the request any more."""
        for part in request.parts:
            self.release(part)
            self._cancel(part)

    def _cancel(self, part: Part) -> None:
        if part.member is not None and part.wire_id in part.member.in_flight:
            part.member.cancel(part)
            self.touch(part.member)

    def touch(self, member: Member) -> None:
        """The member has something to send: flush it at the end of this turn."""
        self._dirty[id(member)] = member
        if not self._flushing:
            self._flushing = True
            self._schedule(self.flush)

    def flush(self) -> None:
        """Send all that was put since the last flush, one message per replica."""
        self._flushing = False
        dirty, self._dirty = self._dirty, {}
        now = time.monotonic()
        for member in dirty.values():
            if member.pending:
                member.flush(now)


def _unserved(part: Part, why: str) -> VersionGone:
    pool = part.request.prepared.serving.pool
    return VersionGone(f"model '{pool.model}' version {pool.version} {why}; retry in 1 s", retry_after_s=1.0)


def _draw(count: int) -> int:
    return int(random.random() * count)  # noqa: S311  balance, not secrecy
