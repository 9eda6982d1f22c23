"""A member's lease: one script per beat announces it, renews it, and buries those whose lease ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from shardline.coord.codec import Kind, M, encode_info
from shardline.coord.connection import Connection, Script, Value, jittered
from shardline.coord.errors import RedisAway, RedisRefused
from shardline.core.cluster import PoolKey, ReplicaInfo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

KEEP_MS = 600_000
"""How long the members' keys outlive the last beat of the last member."""

BEAT = Script("""
-- KEYS 1 leases    zset    id -> end of lease, ms     KEYS 4 load      hash    id -> load reports
-- KEYS 2 info      hash    id -> announcement         KEYS 5 revision  string  newest desired state
-- KEYS 3 version   hash    epoch, kind -> number      KEYS 6.. pool    zset    id -> end of lease, ms
-- ARGV 1 kind  2 id  3 announcement  4 lease ms  5 keep ms  6 changes channel  7 reports channel
--      8 load reports or ""  9 how many of the pools are held (the rest were left)
local kind, id, info, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local epoch = redis.call('HGET', KEYS[3], 'epoch')
if not epoch then
  epoch = t[1] .. '.' .. t[2]
  redis.call('HSET', KEYS[3], 'epoch', epoch)
end
local after = redis.call('HGET', KEYS[3], kind) or '0'
local function tell(word, who, what)
  local number = string.format('%.0f', math.max(after + 1, t[1] * 1000000 + t[2]))
  redis.call('HSET', KEYS[3], kind, number)
  redis.call('PUBLISH', ARGV[6], table.concat({kind, epoch, after, number, word, who, what}, '\\n'))
  after = number
end
local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)
for _, who in ipairs(ended) do
  redis.call('ZREM', KEYS[1], who)
  redis.call('HDEL', KEYS[2], who)
  if kind == 'replica' then redis.call('HDEL', KEYS[4], who) end
  tell('expired', who, '')
end
local until_ms = now + ARGV[4]
local added = redis.call('ZADD', KEYS[1], until_ms, id)
if added == 1 or redis.call('HGET', KEYS[2], id) ~= info then
  redis.call('HSET', KEYS[2], id, info)
  tell('announced', id, info)
end
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[4], id, ARGV[8])
  redis.call('PEXPIRE', KEYS[4], keep)
  redis.call('PUBLISH', ARGV[7], id .. '\\n' .. ARGV[8])
end
for at = 6, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[at], '-inf', now)
  if at - 5 <= tonumber(ARGV[9]) then
    redis.call('ZADD', KEYS[at], until_ms, id)
    redis.call('PEXPIRE', KEYS[at], 2 * ARGV[4])
  else
    redis.call('ZREM', KEYS[at], id)
  end
end
for at = 1, 3 do redis.call('PEXPIRE', KEYS[at], keep) end
return {epoch, redis.call('GET', KEYS[5]) or ''}
""")

WITHDRAW = Script("""
-- KEYS 1 leases  zset  id -> end of lease, ms      KEYS 4 load   hash  id -> load reports
-- KEYS 2 info    hash  id -> announcement          KEYS 5.. pool zset  id -> end of lease, ms
-- KEYS 3 version hash  epoch, kind -> number
-- ARGV 1 kind  2 id  3 changes channel
for at = 5, #KEYS do redis.call('ZREM', KEYS[at], ARGV[2]) end
redis.call('HDEL', KEYS[2], ARGV[2])
if ARGV[1] == 'replica' then redis.call('HDEL', KEYS[4], ARGV[2]) end
if redis.call('ZREM', KEYS[1], ARGV[2]) == 0 then return 0 end
local t = redis.call('TIME')
local epoch = redis.call('HGET', KEYS[3], 'epoch') or ''
local after = redis.call('HGET', KEYS[3], ARGV[1]) or '0'
local number = string.format('%.0f', math.max(after + 1, t[1] * 1000000 + t[2]))
redis.call('HSET', KEYS[3], ARGV[1], number)
redis.call('PUBLISH', ARGV[3], table.concat({ARGV[1], epoch, after, number, 'withdrawn', ARGV[2], ''}, '\\n'))
return 1
""")


@dataclass(frozen=True, slots=True)
class Beat:
    """What a beat brought back. epoch: of the members' facts; another one means Redis was emptied meanwhile.

    revision: of the newest desired state, 0 for none. first: the member's first beat in this epoch.
    """

    epoch: str
    revision: int
    first: bool


class Lease(Generic[M]):
    """Keeps one member announced. `run()` beats until cancelled and then withdraws.

    beat_s: time between beats; lease_s: how long others believe a beat, several beats long.
    loads: the member's encoded load reports for the beat, b"" for none. on_beat: awaited after each beat that arrived;
    it may raise RedisAway.
    """

    def __init__(
        self,
        connection: Connection,
        kind: Kind[M],
        info: M,
        *,
        beat_s: float = 1.0,
        lease_s: float = 4.0,
        loads: Callable[[], bytes] = bytes,
        on_beat: Callable[[Beat], Awaitable[None]] | None = None,
    ) -> None:
        if not 0 < beat_s < lease_s:
            raise ValueError(f"a beat ({beat_s} s) must be shorter than the lease ({lease_s} s)")
        if not info.id or "\n" in info.id or info.id.startswith("="):
            raise ValueError(f"not a member's id: {info.id!r}")
        self.info = info
        self.beat_s = beat_s
        self.lease_s = lease_s
        self._connection = connection
        self._kind = kind
        self._loads = loads
        self._on_beat = on_beat
        self._kick = asyncio.Event()
        self._announced = asyncio.Event()
        self._epoch = ""
        self._leaving: tuple[PoolKey, ...] = ()

    def announce(self, info: M) -> None:
        """Say something else from now on; the next beat goes out at once."""
        self._leaving += tuple(pool for pool in _pools(self.info) if pool not in self._leaving)
        self.info = info
        self._kick.set()

    async def announced(self, timeout_s: float) -> bool:
        """Wait until a first beat arrived; False if none did in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._announced.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Beat until cancelled, whatever Redis does; then withdraw, bounded in time."""
        try:
            while True:
                pause_s = self.beat_s
                try:
                    await self.beat()
                except RedisAway as error:
                    # Connection tells once when Redis goes away; a refusal is somebody's mistake and told each time.
                    log.log(logging.WARNING if isinstance(error, RedisRefused) else logging.DEBUG, "lease: %s", error)
                    pause_s = jittered(pause_s)
                await self._pause(pause_s)
        finally:
            await self.withdraw()

    async def beat(self) -> Beat:
        """Announce and renew, once. Raises RedisAway."""
        self._kick.clear()
        info, leaving = self.info, self._leaving
        held = _pools(info)
        left = tuple(pool for pool in leaving if pool not in held)
        keys = self._connection.keys
        args: list[Value] = [
            self._kind.name,
            info.id,
            encode_info(info),
            round(self.lease_s * 1000),
            KEEP_MS,
            keys.of("changes"),
            keys.of("reports"),
            self._loads(),
            len(held),
        ]
        answer = await self._connection.run(
            BEAT,
            [*self._member_keys(), keys.of("revision"), *(keys.of("pool", pool=pool) for pool in (*held, *left))],
            args,
            probe=True,
        )
        self._leaving = tuple(pool for pool in self._leaving if pool not in leaving)
        return await self._arrived(answer)

    async def withdraw(self) -> None:
        """Take the announcement back; if Redis is away the lease ends by itself."""
        pools = (*_pools(self.info), *self._leaving)
        keys = self._connection.keys
        try:
            await self._connection.run(
                WITHDRAW,
                [*self._member_keys(), *(keys.of("pool", pool=pool) for pool in pools)],
                [self._kind.name, self.info.id, keys.of("changes")],
            )
        except RedisAway as error:
            log.debug("lease.left_to_end: %s", error)

    async def _arrived(self, answer: list[bytes]) -> Beat:
        epoch = answer[0].decode()
        beat = Beat(epoch, int(answer[1] or 0), first=epoch != self._epoch)
        self._epoch = epoch
        self._announced.set()
        if self._on_beat is not None:
            await self._on_beat(beat)
        return beat

    async def _pause(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._kick.wait()
        except TimeoutError:
            return

    def _member_keys(self) -> list[str]:
        keys = self._connection.keys
        kind = self._kind.name
        return [keys.of("leases", kind=kind), keys.of("info", kind=kind), keys.of("version"), keys.of("load")]


def _pools(info: M) -> tuple[PoolKey, ...]:
    return info.pools if isinstance(info, ReplicaInfo) else ()
