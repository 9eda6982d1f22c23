"""Token buckets per tenant and model, and queue depths for autoscaling: small numbers that expire by themselves."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardline.coord.connection import Connection, Script
from shardline.coord.errors import RedisAway

if TYPE_CHECKING:
    from shardline.core.cluster import PoolKey

log = logging.getLogger(__name__)

ALL_MODELS = "*"
"""In place of a model: the tenant's bucket over all of them."""

TAKE = Script("""
-- KEYS 1 tokens  hash  left, at (server us)
-- ARGV 1 tokens per second  2 burst  3 tokens wanted
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], 'left', 'at')
local left = burst
if known[1] then
  left = math.min(burst, known[1] + math.max(0, now - known[2]) / 1000000 * rate)
end
local taken = 0
if wanted <= left then
  left = left - wanted
  taken = 1
end
redis.call('HSET', KEYS[1], 'left', string.format('%.6f', left), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - left) / rate * 1000) + 1000)
return {taken, string.format('%.6f', left)}
""")

SET_DEPTH = Script("""
-- KEYS 1 depth  hash  source -> rows, newline, end in server ms
-- ARGV 1 source  2 rows  3 time to live, ms
local t = redis.call('TIME')
local ends = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. '\\n' .. string.format('%.0f', ends))
redis.call('PEXPIRE', KEYS[1], math.max(ARGV[3], redis.call('PTTL', KEYS[1])))
return 1
""")

DEPTH = Script("""
-- KEYS 1 depth  hash  source -> rows, newline, end in server ms
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local cells = redis.call('HGETALL', KEYS[1])
local sum = 0
for at = 1, #cells, 2 do
  local rows, ends = string.match(cells[at + 1], '^(%d+)\\n(%d+)$')
  if ends and tonumber(ends) > now then sum = sum + rows else redis.call('HDEL', KEYS[1], cells[at]) end
end
return sum
""")


@dataclass(frozen=True, slots=True)
class Taken:
    """What `take` says. retry_after_s: when as many tokens will be there, None if never or if they were taken.

    known: False where Redis was away, and the tokens were given without counting.
    """

    allowed: bool
    left: float
    retry_after_s: float | None
    known: bool = True


class Limits:
    """Token buckets: `rate` tokens per second flow in, up to `burst`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def take(self, tenant: str, model: str, tokens: float, *, rate: float, burst: float) -> Taken:
        """Take tokens (say, rows) from the bucket of a tenant for a model (or ALL_MODELS), all or none.

        A new bucket is full. Never raises for Redis: without it nothing is limited, because losing Redis costs
        balance, not answers. Raises ValueError on a rate, burst or number that is not positive and finite.
        """
        if not all(math.isfinite(number) and number > 0 for number in (tokens, rate, burst)):
            raise ValueError(f"tokens, rate and burst must be positive, not {tokens}, {rate}, {burst}")
        key = self._connection.keys.of("tokens", model=model, tenant=tenant)
        try:
            taken, left_text = await self._connection.run(TAKE, [key], [rate, burst, tokens])
        except RedisAway as error:
            log.debug("limits.unknown: %s", error)
            return Taken(True, burst, None, known=False)
        left = float(left_text)
        if taken:
            return Taken(True, left, None)
        return Taken(False, left, (tokens - left) / rate if tokens <= burst else None)


class QueueDepths:
    """Rows that wait for a pool, by source (a replica, or a router that parks them), for autoscaling."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def set(self, pool: PoolKey, source: str, rows: int, *, ttl_s: float = 10.0) -> None:
        """Say how many rows wait at a source; forgotten after ttl_s. Raises RedisAway."""
        await self._connection.run(SET_DEPTH, [self._key(pool)], [source, max(0, rows), max(1, round(ttl_s * 1000))])

    async def of(self, pool: PoolKey) -> int:
        """Rows that wait for the pool at all sources together. Raises RedisAway."""
        return int(await self._connection.run(DEPTH, [self._key(pool)], []))

    def _key(self, pool: PoolKey) -> str:
        return self._connection.keys.of("depth", model=pool.model, version=pool.version, stage=pool.stage)
