"""Load reports: published as they change, bounded in rate; an idle replica costs nothing beyond its beat."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shardline.coord.codec import decode_loads, encode_loads
from shardline.coord.errors import RedisAway

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.coord.connection import Connection
    from shardline.core.cluster import LoadReport, PoolKey

log = logging.getLogger(__name__)

_ALONE_S = 0.25
"""Least time between two messages while at most one router hears them: it knows its own rows better, and sooner."""


class LoadPublisher:
    """Publishes one replica's reports. `report()` costs a comparison; `run()` sends the newest, until cancelled.

    interval_s: least time between two messages, while more than one router listens. A report that differs in its sequence
    alone is no change.
    """

    def __init__(self, connection: Connection, id_: str, *, interval_s: float = 0.010) -> None:
        self.sent = 0
        """Messages published so far."""
        self.pause_s = interval_s
        """Least time to the next message; a report that comes sooner only waits."""
        self._interval_s = interval_s
        self._connection = connection
        self._id = id_
        self._latest: dict[PoolKey, LoadReport] = {}
        self._changed: set[PoolKey] = set()
        self._wake = asyncio.Event()

    def report(self, loads: Mapping[PoolKey, LoadReport]) -> None:
        """Take over the newest reports of the pools named."""
        for pool, load in loads.items():
            known = self._latest.get(pool)
            self._latest[pool] = load
            if known is None or replace(known, sequence=0) != replace(load, sequence=0):
                self._changed.add(pool)
        if self._changed:
            self._wake.set()

    def forget(self, pools: set[PoolKey]) -> None:
        """Leave pools out from now on."""
        for pool in pools:
            self._latest.pop(pool, None)
        self._changed -= pools

    def encoded(self) -> bytes:
        """All newest reports for the beat, b"" when there is none yet."""
        return encode_loads(self._latest) if self._latest else b""

    async def run(self) -> None:
        """Publish changes until cancelled. A message that Redis did not take is superseded, not repeated."""
        channel = self._connection.keys.of("reports")
        while True:
            await self._wake.wait()
            self._wake.clear()
            loads = {pool: self._latest[pool] for pool in self._changed}
            self._changed.clear()
            try:
                message = self._id.encode() + b"\n" + encode_loads(loads)
                heard = await self._connection.command("PUBLISH", channel, message)
                self.sent += 1
                self.pause_s = self._interval_s if heard > 1 else max(self._interval_s, _ALONE_S)
            except RedisAway as error:
                log.debug("load.unpublished: %s", error)
            await asyncio.sleep(self.pause_s)


@dataclass(slots=True)
class LoadView:
    """The newest report of every replica and pool. Pure."""

    latest: dict[str, dict[PoolKey, LoadReport]] = field(default_factory=dict)

    def take(self, id_: str, loads: Mapping[PoolKey, LoadReport]) -> dict[PoolKey, LoadReport]:
        """Keep what is newer than what is known (by sequence; without sequences: what differs) and return just that."""
        known = self.latest.get(id_, {})
        news = {pool: load for pool, load in loads.items() if _newer(load, known.get(pool))}
        if news:
            self.latest.setdefault(id_, {}).update(news)
        return news

    def forget(self, id_: str) -> None:
        """The replica left."""
        self.latest.pop(id_, None)


def _newer(load: LoadReport, known: LoadReport | None) -> bool:
    if known is None:
        return True
    if load.sequence == known.sequence == 0:
        return load != known
    return load.sequence > known.sequence


def decode_message(payload: bytes) -> tuple[str, dict[PoolKey, LoadReport]]:
    """A message of the reports channel: replica id and its reports. Raises ValueError on anything else."""
    id_, _, data = payload.partition(b"\n")
    return id_.decode(), decode_loads(data)
