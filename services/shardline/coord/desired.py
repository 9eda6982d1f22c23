"""What is wanted of each model: loads and unloads, so that a restarted replica follows them.

One hash holds all models (a field each, versioned): a reader gets them in one command, and the revision of the
newest travels with every beat, so watching costs nothing. An emptied Redis is filled again by whoever still knows
(`restore`); only when nobody does, the repository's policy is what counts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from shardline.coord.codec import Action, Desired, decode_desired, encode_desired
from shardline.coord.connection import Connection, Script, Value
from shardline.coord.errors import StaleRevision

log = logging.getLogger(__name__)

SET_DESIRED = Script("""
-- KEYS 1 desired   hash    model -> revision, newline, JSON
-- KEYS 2 revision  string  newest revision of all
-- ARGV 1 model  2 JSON  3 revision expected of the model or ""  4 changes channel
local known = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^%d+') or '0'
if ARGV[3] ~= '' and ARGV[3] ~= known then return {0, known} end
local t = redis.call('TIME')
-- Not below server time, so that what is set after Redis was emptied wins over what is restored.
local revision = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, t[1] * 1000 + math.floor(t[2] / 1000))
revision = string.format('%.0f', revision)
redis.call('HSET', KEYS[1], ARGV[1], revision .. '\\n' .. ARGV[2])
redis.call('SET', KEYS[2], revision)
redis.call('PUBLISH', ARGV[4], 'desired\\n' .. revision)
return {1, revision}
""")

RESTORE = Script("""
-- KEYS 1 desired   hash    model -> revision, newline, JSON
-- KEYS 2 revision  string  newest revision of all
-- ARGV 1 changes channel  2.. model, revision, JSON; again and again
local newest = tonumber(redis.call('GET', KEYS[2]) or '0')
local restored = 0
for at = 2, #ARGV, 3 do
  local known = string.match(redis.call('HGET', KEYS[1], ARGV[at]) or '', '^%d+') or '0'
  if tonumber(known) < tonumber(ARGV[at + 1]) then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1] .. '\\n' .. ARGV[at + 2])
    newest = math.max(newest + 1, tonumber(ARGV[at + 1]))
    restored = restored + 1
  end
end
if restored > 0 then
  redis.call('SET', KEYS[2], string.format('%.0f', newest))
  redis.call('PUBLISH', ARGV[1], 'desired\\n' .. string.format('%.0f', newest))
end
return restored
""")


class DesiredState:
    """Reads and writes what is wanted of the models of a cluster."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def set(
        self,
        model: str,
        action: Action,
        config: bytes = b"",
        versions: tuple[int, ...] = (),
        *,
        expected: int | None = None,
    ) -> int:
        """Want `model` loaded or unloaded; returns the new revision.

        expected: the revision that the decision was based on (0: none yet), None to write whatever is there.
        Raises StaleRevision if someone else wrote meanwhile, RedisAway.
        """
        keys = self._connection.keys
        done, revision = await self._connection.run(
            SET_DESIRED,
            [keys.of("desired"), keys.of("revision")],
            [
                model,
                encode_desired(Desired(action, config, versions)),
                "" if expected is None else expected,
                keys.of("changes"),
            ],
            probe=True,
        )
        if not done:
            raise StaleRevision(f"model {model!r} is wanted at revision {int(revision)}, not {expected}")
        return int(revision)

    async def all(self) -> dict[str, Desired]:
        """Everything wanted, by model. Raises RedisAway."""
        flat = await self._connection.command("HGETALL", self._connection.keys.of("desired"))
        return decode_all(flat)

    async def restore(self, known: Mapping[str, Desired]) -> int:
        """Write what Redis forgot; newer states stay. Returns how many were missing. Raises RedisAway."""
        args: list[Value] = [self._connection.keys.of("changes")]
        for model, desired in known.items():
            args += [model, desired.revision, encode_desired(desired)]
        keys = self._connection.keys
        return int(await self._connection.run(RESTORE, [keys.of("desired"), keys.of("revision")], args))


class DesiredFollower:
    """Keeps a copy of what is wanted, fetched only when its revision or the epoch moved, and restores what got lost."""

    def __init__(self, connection: Connection) -> None:
        self.state = DesiredState(connection)
        self.known: dict[str, Desired] = {}
        self._seen: tuple[str, int] | None = None

    async def follow(self, epoch: str, revision: int) -> bool:
        """Come up to date; True if what is wanted changed (or this is the first look). Raises RedisAway."""
        if self._seen == (epoch, revision):
            return False
        first = self._seen is None
        if self._seen is not None and self._seen[0] != epoch and self.known:
            await self.state.restore(self.known)
        found = await self.state.all()
        changed = first or found != self.known
        self.known = found
        self._seen = (epoch, revision)
        return changed


def decode_all(flat: object) -> dict[str, Desired]:
    """HGETALL's answer as a dict; records that do not decode are left out, and said."""
    if isinstance(flat, Mapping):
        pairs = list(flat.items())
    else:
        cells = list(flat) if isinstance(flat, list | tuple) else []
        pairs = list(zip(cells[::2], cells[1::2], strict=True))
    found = {}
    for model, record in pairs:
        try:
            found[model.decode()] = decode_desired(record)
        except ValueError as error:
            log.warning("desired.unreadable: model=%r: %s", model, error)
    return found
