"""Cumulative statistics of a model version, by replica, so that totals do not shrink when a replica dies.

Each incarnation of a replica has one opaque snapshot per model version; a reader adds them up. A living replica writes
when its numbers change and at least every REFRESH_S. Whoever has not written for DEPARTED_S has departed; its snapshot
stays. Beyond `departed_max` departed ones per model version the oldest are folded into one by `fold` (the sum, which
only the caller knows how to take), so the totals stay. Without `fold` the oldest are dropped, and totals shrink.
An emptied Redis forgets the departed; living replicas write theirs again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from shardline.coord.connection import Connection, Script

REFRESH_S = 60.0
DEPARTED_S = 300.0
KEEP_MS = 7 * 86_400_000
FOLDED = "=folded"
"""Stands for the id of all folded replicas; no member's id begins with `=`."""

Fold = Callable[[Sequence[bytes]], bytes]

STORE = Script("""
-- KEYS 1 statistics  hash  replica id -> snapshot
-- KEYS 2 seen        zset  replica id -> last write, server ms
-- ARGV 1 replica id  2 snapshot  3 keep ms  4 departed ms  5 how many departed may stay
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local over = redis.call('ZCOUNT', KEYS[2], '-inf', now - ARGV[4]) - ARGV[5]
if over <= 0 then return {} end
return redis.call('ZRANGE', KEYS[2], 0, math.min(over, 100) - 1)
""")

FOLD = Script("""
-- KEYS 1 statistics  hash  replica id -> snapshot
-- KEYS 2 seen        zset  replica id -> last write, server ms
-- ARGV 1 field of the folded ones  2 new folded snapshot, "" to keep  3.. id, snapshot that was folded; again and again
-- Nothing happens unless every snapshot is still what was folded: two that fold at once count nobody twice.
for at = 3, #ARGV, 2 do
  if (redis.call('HGET', KEYS[1], ARGV[at]) or '') ~= ARGV[at + 1] then return 0 end
end
for at = 3, #ARGV, 2 do
  if ARGV[at] ~= ARGV[1] then
    redis.call('HDEL', KEYS[1], ARGV[at])
    redis.call('ZREM', KEYS[2], ARGV[at])
  end
end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1
""")


class StatisticsWriter:
    """Writes one replica's snapshots: `put` remembers, `flush` (after each beat) writes what changed."""

    def __init__(
        self,
        connection: Connection,
        id_: str,
        *,
        fold: Fold | None = None,
        departed_max: int = 64,
        departed_s: float = DEPARTED_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._id = id_
        self._fold = fold
        self._departed_max = departed_max
        self._departed_s = departed_s
        self._clock = clock
        self._latest: dict[tuple[str, int], bytes] = {}
        self._written: dict[tuple[str, int], tuple[bytes, float]] = {}

    def put(self, model: str, version: int, snapshot: bytes) -> None:
        """Remember the newest snapshot."""
        self._latest[model, version] = snapshot

    def forgotten(self) -> None:
        """Redis was emptied: everything has to be written again."""
        self._written.clear()

    async def flush(self) -> None:
        """Write what changed or grew old. Raises RedisAway; the next flush goes on."""
        for (model, version), snapshot in list(self._latest.items()):
            known = self._written.get((model, version))
            if known is not None and known[0] == snapshot and self._clock() - known[1] < REFRESH_S:
                continue
            departed = await self._store(model, version, snapshot)
            self._written[model, version] = (snapshot, self._clock())
            if departed:
                await self._retire(model, version, departed)

    async def _store(self, model: str, version: int, snapshot: bytes) -> list[bytes]:
        ids: list[bytes] = await self._connection.run(
            STORE,
            _keys(self._connection, model, version),
            [self._id, snapshot, KEEP_MS, round(self._departed_s * 1000), self._departed_max],
        )
        return ids

    async def _retire(self, model: str, version: int, departed: list[bytes]) -> None:
        keys = _keys(self._connection, model, version)
        ids = [FOLDED.encode(), *departed] if self._fold else departed
        snapshots = await self._connection.command("HMGET", keys[0], *ids)
        pairs = [(id_, snapshot or b"") for id_, snapshot in zip(ids, snapshots, strict=True)]
        folded = self._fold([snapshot for _, snapshot in pairs if snapshot]) if self._fold else b""
        cells = [cell for pair in pairs for cell in pair]
        await self._connection.run(FOLD, keys, [FOLDED, folded, *cells])


class Statistics:
    """Reads the statistics of all replicas, living and departed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def of(self, model: str, version: int) -> Mapping[str, bytes]:
        """Snapshots by replica id, the folded ones under FOLDED. Raises RedisAway."""
        flat = await self._connection.command("HGETALL", _keys(self._connection, model, version)[0])
        return {id_.decode(): snapshot for id_, snapshot in flat.items()}

    async def forget(self, model: str, version: int) -> None:
        """The version was removed. Raises RedisAway."""
        await self._connection.command("DEL", *_keys(self._connection, model, version))


def _keys(connection: Connection, model: str, version: int) -> list[str]:
    keys = connection.keys
    return [
        keys.of("statistics", model=model, version=version),
        keys.of("seen", model=model, version=version),
    ]
