"""Which of the controller's pods works: the holder of a Lease. Pure decision, then the loop around it.

Clocks of other machines are not trusted (as in client-go): a Lease has ended when we have seen it unchanged for its duration.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING

from shardline.controller.api import DEPLOYMENT, LEASE, Api, ApiError
from shardline.ops import logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardline.controller.spec import Manifest

log = logs.get(__name__)


class Move(Enum):
    """What to do about the Lease now."""

    CREATE = auto()
    TAKE = auto()
    RENEW = auto()
    WAIT = auto()


@dataclass(frozen=True, slots=True)
class Sight:
    """What we last saw of the Lease. mark: of its state, any change shows. seen_at: when it first looked so, monotonic seconds."""

    holder: str
    mark: str
    duration_s: float
    seen_at: float


def look(before: Sight | None, lease: Manifest, now: float) -> Sight:
    """The sight of a Lease as read now."""
    spec = lease.get("spec") or {}
    mark = f"{spec.get('holderIdentity')}/{spec.get('renewTime')}/{lease['metadata'].get('resourceVersion')}"
    seen_at = before.seen_at if before is not None and before.mark == mark else now
    return Sight(spec.get("holderIdentity") or "", mark, float(spec.get("leaseDurationSeconds") or 0), seen_at)


def decide(sight: Sight | None, me: str, now: float) -> Move:
    """sight: None where there is no Lease.

    >>> decide(Sight("other", "m", 6.0, seen_at=10.0), "me", now=15.9)
    <Move.WAIT: 4>
    >>> decide(Sight("other", "m", 6.0, seen_at=10.0), "me", now=16.1)
    <Move.TAKE: 2>
    """
    if sight is None:
        return Move.CREATE
    if sight.holder == me:
        return Move.RENEW
    if not sight.holder or now - sight.seen_at > sight.duration_s:
        return Move.TAKE
    return Move.WAIT


class Election:
    """Holds the Lease or waits for it."""

    def __init__(
        self, api: Api, name: str, me: str, duration_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._name = name
        self._me = me
        self._duration_s = duration_s
        self._clock = clock
        self._sight: Sight | None = None
        self.leading = False

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Whenever we lead, work; work is cancelled when the Lease is lost, before anybody else may take it."""
        while True:
            await self._until_leading()
            log.info("election.won", lease=self._name, pod=self._me)
            async with asyncio.TaskGroup() as tasks:
                working = tasks.create_task(_awaiting(work), name="controller.work")
                await self._until_lost()
                working.cancel()
            log.warning("election.lost", lease=self._name, pod=self._me)

    async def _until_leading(self) -> None:
        while not await self._attempt():  # noqa: ASYNC110  the API server has no event for time that passed
            await asyncio.sleep(self._duration_s / 6)

    async def _until_lost(self) -> None:
        """Renew; return when it could not be renewed for two thirds of its duration."""
        renewed_at = self._clock()
        while self._clock() - renewed_at < self._duration_s * 2 / 3:
            await asyncio.sleep(self._duration_s / 6)
            try:
                async with asyncio.timeout(self._duration_s / 6):
                    held = await self._attempt()
            except TimeoutError:
                continue
            if held:
                renewed_at = self._clock()
            elif self._sight is not None and self._sight.holder not in ("", self._me):
                break
        self.leading = False

    async def _attempt(self) -> bool:
        """One move. True if we hold the Lease after it."""
        try:
            lease = await self._read()
            self._sight = look(self._sight, lease, self._clock()) if lease else None
            move = decide(self._sight, self._me, self._clock())
            if move is Move.WAIT:
                return False
            manifest = self._manifest(lease, move)
            if move is Move.CREATE:
                manifest["metadata"]["ownerReferences"] = await self._owner()
            held = await (self._api.create if move is Move.CREATE else self._api.replace)(LEASE, manifest)
            self._sight = look(self._sight, held, self._clock())
        except ApiError as error:
            log.debug("election.retried", lease=self._name, error=str(error))
            return False
        self.leading = True
        return True

    async def _read(self) -> Manifest | None:
        try:
            return await self._api.get(LEASE, self._name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _owner(self) -> list[Manifest]:
        """Our Deployment, which has the Lease's name: the Lease goes with it."""
        try:
            uid = (await self._api.get(DEPLOYMENT, self._name))["metadata"]["uid"]
        except ApiError as error:
            if error.status != 404:
                raise
            return []
        return [{"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.name, "name": self._name, "uid": uid}]

    def _manifest(self, lease: Manifest | None, move: Move) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = (lease or {}).get("spec") or {}
        spec = {
            **before,
            "holderIdentity": self._me,
            "leaseDurationSeconds": max(1, round(self._duration_s)),
            "renewTime": now,
        }
        if move is not Move.RENEW:
            spec |= {"acquireTime": now, "leaseTransitions": int(before.get("leaseTransitions") or 0) + 1}
        meta: Manifest = lease["metadata"] if lease else {"name": self._name, "namespace": self._api.namespace}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": meta, "spec": spec}

    async def release(self) -> None:
        """Let the Lease go, so that another pod need not wait for its end."""
        if not self.leading:
            return
        try:
            lease = await self._api.get(LEASE, self._name)
            if (lease.get("spec") or {}).get("holderIdentity") == self._me:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._api.replace(LEASE, lease)
        except ApiError as error:
            log.info("election.left_to_end", error=str(error))


async def _awaiting(work: Callable[[], Awaitable[None]]) -> None:
    await work()
