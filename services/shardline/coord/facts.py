"""Facts about a model version that outlive its replicas: tuned parameters, latency fits, and the plan of its stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardline.coord.connection import Connection, Script
from shardline.coord.errors import StaleRevision

if TYPE_CHECKING:
    from collections.abc import Mapping

SET_PLAN = Script("""
-- KEYS 1 plan  hash  revision, body
-- ARGV 1 body  2 revision expected or ""
local known = redis.call('HGET', KEYS[1], 'revision') or '0'
if ARGV[2] ~= '' and ARGV[2] ~= known then return {0, known} end
local revision = string.format('%.0f', known + 1)
redis.call('HSET', KEYS[1], 'revision', revision, 'body', ARGV[1])
return {1, revision}
""")


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """How a model is cut into stages (body: opaque here), and the revision to base a change on."""

    revision: int
    body: bytes


class ModelFacts:
    """Reads and writes what is known of model versions. Every method raises RedisAway."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def tuned(self, model: str, version: int) -> dict[str, bytes]:
        """Tuned parameters and latency fits by name; empty when nothing was learned yet."""
        found = await self._connection.command("HGETALL", self._tuned_key(model, version))
        return {name.decode(): value for name, value in found.items()}

    async def set_tuned(self, model: str, version: int, values: Mapping[str, bytes]) -> None:
        """Write some of them; the others stay."""
        cells = [cell for pair in values.items() for cell in pair]
        if cells:
            await self._connection.command("HSET", self._tuned_key(model, version), *cells)

    async def plan(self, model: str, version: int) -> StoredPlan | None:
        """The plan, None if there is none."""
        revision, body = await self._connection.command("HMGET", self._plan_key(model, version), "revision", "body")
        return None if revision is None or body is None else StoredPlan(int(revision), body)

    async def set_plan(self, model: str, version: int, body: bytes, *, expected: int | None = None) -> int:
        """Write the plan; returns its revision.

        expected: revision of the plan it was derived from (0: none), None to overwrite. Raises StaleRevision.
        """
        key = self._plan_key(model, version)
        done, revision = await self._connection.run(SET_PLAN, [key], [body, "" if expected is None else expected])
        if not done:
            raise StaleRevision(f"the plan of {model}:{version} is at revision {int(revision)}, not {expected}")
        return int(revision)

    async def forget(self, model: str, version: int) -> None:
        """The version was removed."""
        await self._connection.command("DEL", self._tuned_key(model, version), self._plan_key(model, version))

    def _tuned_key(self, model: str, version: int) -> str:
        return self._connection.keys.of("tuned", model=model, version=version)

    def _plan_key(self, model: str, version: int) -> str:
        return self._connection.keys.of("plan", model=model, version=version)
