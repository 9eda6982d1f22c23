"""Watching members: published changes for speed, a periodic comparison for truth."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from shardline.coord.codec import Desired, Kind, M, decode_loads
from shardline.coord.connection import Connection, Script, Subscription, jittered
from shardline.coord.desired import DesiredFollower
from shardline.coord.errors import RedisAway
from shardline.coord.load import LoadView, decode_message
from shardline.coord.view import Change, Event, Left, MembersView, Reason, Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from shardline.core.cluster import LoadReport, PoolKey

log = logging.getLogger(__name__)

SNAPSHOT = Script("""
-- KEYS 1 leases   zset  id -> end of lease, ms     KEYS 4 load      hash    id -> load reports
-- KEYS 2 info     hash  id -> announcement         KEYS 5 revision  string  newest desired state
-- KEYS 3 version  hash  epoch, kind -> number
-- ARGV 1 kind  2..4 epoch, number and count that the reader knows
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local epoch = redis.call('HGET', KEYS[3], 'epoch') or ''
local number = redis.call('HGET', KEYS[3], ARGV[1]) or '0'
local revision = redis.call('GET', KEYS[5]) or '0'
local count = redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')
if epoch == ARGV[2] and number == ARGV[3] and count == tonumber(ARGV[4]) then
  return {epoch, number, revision, 0}
end
local members = {}
local leases = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES')
for at = 1, #leases, 2 do
  local id = leases[at]
  local load = ''
  if ARGV[1] == 'replica' then load = redis.call('HGET', KEYS[4], id) or '' end
  members[#members + 1] = {id, leases[at + 1] - now, redis.call('HGET', KEYS[2], id) or '', load}
end
return {epoch, number, revision, 1, members}
""")

_RESYNC_GAP_S = 0.02
"""Least time between two snapshots, however many gaps are seen."""


@dataclass(frozen=True, slots=True)
class Sighting(Generic[M]):
    """A member as Redis holds it now. lease_s: seconds until its lease ends."""

    info: M
    lease_s: float
    loads: Mapping[PoolKey, LoadReport]


@dataclass(frozen=True, slots=True)
class Survey(Generic[M]):
    """All members of a kind at one instant; sightings: None where the reader knows them already."""

    epoch: str
    number: int
    revision: int
    sightings: Mapping[str, Sighting[M]] | None


async def survey(
    connection: Connection, kind: Kind[M], *, epoch: str = "", number: int = -1, count: int = -1
) -> Survey[M]:
    """Read all members of a kind, or nothing if the reader knows that state. Raises RedisAway."""
    keys = connection.keys
    answer = await connection.run(
        SNAPSHOT,
        [
            keys.of("leases", kind=kind.name),
            keys.of("info", kind=kind.name),
            keys.of("version"),
            keys.of("load"),
            keys.of("revision"),
        ],
        [kind.name, epoch, number, count],
        probe=True,
    )
    sightings = {id_.decode(): seen for id_, *cells in answer[4] if (seen := _sighting(kind, id_, cells))} \
        if answer[3] else None  # fmt: skip
    return Survey(answer[0].decode(), int(answer[1]), int(answer[2]), sightings)


class MembersWatch(Generic[M]):
    """A live view of the members of one kind. `run()` keeps it until cancelled; losing Redis freezes it.

    Callbacks run in the event loop and must not block: on_event for joins, changes and leaves, on_loads for newer load
    reports of a replica, on_desired (awaited) for what is wanted of the models, whenever that changes.
    poll_s: time between comparisons. grace_s: see MembersView; two lease times.
    """

    def __init__(
        self,
        connection: Connection,
        kind: Kind[M],
        *,
        on_event: Callable[[Event[M]], None] | None = None,
        on_loads: Callable[[str, Mapping[PoolKey, LoadReport]], None] | None = None,
        on_desired: Callable[[Mapping[str, Desired]], Awaitable[None]] | None = None,
        poll_s: float = 1.0,
        grace_s: float = 8.0,
    ) -> None:
        self._connection = connection
        self._kind = kind
        self._on_event = on_event
        self._on_loads = on_loads
        self._on_desired = on_desired
        self.poll_s = poll_s
        self._view: MembersView[M] = MembersView(grace_s)
        self._loads = LoadView()
        self._follower = DesiredFollower(connection)
        self._resync = asyncio.Event()
        self._ready = asyncio.Event()
        self._resubscribe = False

    @property
    def members(self) -> Mapping[str, M]:
        """The members, by id."""
        return self._view.members

    @property
    def loads(self) -> Mapping[str, Mapping[PoolKey, LoadReport]]:
        """Their newest load reports, by replica id."""
        return self._loads.latest

    @property
    def desired(self) -> Mapping[str, Desired]:
        """What is wanted, by model; kept up to date only with on_desired."""
        return self._follower.known

    async def ready(self, timeout_s: float) -> bool:
        """Wait for the first comparison; False if Redis did not answer in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll(), name="coord.watch.poll")
            tasks.create_task(self._listen(), name="coord.watch.listen")

    async def _poll(self) -> None:
        while True:
            self._resync.clear()
            pause_s = self.poll_s
            try:
                await self._compare()
            except RedisAway as error:
                log.debug("watch.blind: %s", error)
                self._view.lost()
                self._resubscribe = True
                pause_s = jittered(pause_s)
            await asyncio.sleep(_RESYNC_GAP_S)
            await self._until_resync(pause_s)

    async def _until_resync(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._resync.wait()
        except TimeoutError:
            return

    async def _compare(self) -> None:
        view = self._view
        asked_at = view.number
        found = await survey(self._connection, self._kind, epoch=view.epoch, number=view.number, count=view.confirmed)
        members = None if found.sightings is None else {id_: seen.info for id_, seen in found.sightings.items()}
        self._tell(view.take_snapshot(time.monotonic(), Snapshot(found.epoch, found.number, members), asked_at))
        for id_, seen in (found.sightings or {}).items():
            self._take_loads(id_, seen.loads)
        self._ready.set()
        # Without an epoch nobody beats yet: too early to call anything forgotten.
        if self._on_desired is not None and found.epoch and await self._follower.follow(found.epoch, found.revision):
            await self._on_desired(self._follower.known)

    async def _listen(self) -> None:
        keys = self._connection.keys
        channels = [keys.of("changes")] + ([keys.of("reports")] if self._on_loads is not None else [])
        while True:
            try:
                async with self._connection.subscribe(channels) as subscription:
                    self._resubscribe = False
                    self._resync.set()  # what was published before the subscription
                    await self._receive(subscription)
            except RedisAway as error:
                log.debug("watch.deaf: %s", error)
                self._view.lost()
            await asyncio.sleep(jittered(0.75 * self.poll_s))

    async def _receive(self, subscription: Subscription) -> None:
        reports = self._connection.keys.of("reports")
        while not self._resubscribe:
            message = await subscription.next(self.poll_s)
            if message is None:
                continue
            channel, payload = message
            try:
                if channel == reports:
                    self._take_loads(*decode_message(payload))
                else:
                    self._take_change(payload)
            except ValueError as error:
                log.warning("watch.unreadable: %s", error)

    def _take_change(self, payload: bytes) -> None:
        if payload.startswith(b"desired\n"):
            self._resync.set()
            return
        change = decode_change(self._kind, payload)
        if change is None:
            return
        events = self._view.take_change(time.monotonic(), change)
        if events is None:
            self._resync.set()
        else:
            self._tell(events)

    def _take_loads(self, id_: str, loads: Mapping[PoolKey, LoadReport]) -> None:
        if id_ not in self._view.members or self._on_loads is None:
            return
        news = self._loads.take(id_, loads)
        if news:
            self._on_loads(id_, news)

    def _tell(self, events: list[Event[M]]) -> None:
        for event in events:
            log.info("watch.%s: %s", type(event).__name__.lower(), event.info.id)
            if isinstance(event, Left):
                self._loads.forget(event.info.id)
            if self._on_event is not None:
                self._on_event(event)


def decode_change(kind: Kind[M], payload: bytes) -> Change[M] | None:
    """A message of the changes channel; None if it is about another kind. Raises ValueError on anything else."""
    name, *rest = payload.split(b"\n", 6)
    if name.decode() != kind.name:
        return None
    if len(rest) != 6:
        raise ValueError(f"not a published change: {payload[:80]!r}")
    epoch, after, number, word, id_, data = rest
    if word == b"announced":
        return Change(epoch.decode(), int(after), int(number), id_.decode(), kind.decode(data))
    return Change(epoch.decode(), int(after), int(number), id_.decode(), None, Reason(word.decode()))


def _sighting(kind: Kind[M], id_: bytes, cells: list[bytes]) -> Sighting[M] | None:
    lease_ms, info, loads = cells
    try:
        return Sighting(kind.decode(info), float(lease_ms) / 1000, decode_loads(loads) if loads else {})
    except ValueError as error:
        log.warning("watch.unreadable: member=%r: %s", id_, error)
        return None
