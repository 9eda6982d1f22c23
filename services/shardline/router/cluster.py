"""Who serves what, kept up to date: members come from Redis, their models from their own control calls.

Redis may be away: the last known members stay, and the links say who is really there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shardline.coord.codec import REPLICA
from shardline.coord.view import Changed, Event, Joined, Left, Reason
from shardline.coord.watch import MembersWatch
from shardline.core.errors import ServingError
from shardline.ops import logs
from shardline.router.members import Member
from shardline.wire.control import Control
from shardline.wire.descriptions import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shardline.coord.connection import Connection
    from shardline.core.cluster import LoadReport, PoolKey, ReplicaInfo
    from shardline.router.calls import Part
    from shardline.router.dispatch import Dispatcher
    from shardline.router.table import Table
    from shardline.wire.link import LinkContext

log = logs.get(__name__)

_DESCRIBE_AGAIN_S = 0.5


class Cluster:
    """The members of the cluster. on_change(): the table was rebuilt."""

    def __init__(
        self, connection: Connection, context: LinkContext, table: Table, dispatcher: Dispatcher, lease_s: float = 4.0
    ) -> None:
        self._context = context
        self._table = table
        self._dispatcher = dispatcher
        self.members: dict[str, Member] = {}
        self._controls: dict[str, Control] = {}
        self._describing: asyncio.Queue[str] = asyncio.Queue()
        self._watch: MembersWatch[ReplicaInfo] = MembersWatch(
            connection, REPLICA, on_event=self._event, on_loads=self._loads, grace_s=2 * lease_s
        )
        self.on_change: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run(), name="watch")
            tasks.create_task(self._describe_all(tasks), name="describe")

    async def ready(self, timeout_s: float) -> bool:
        """Whether Redis answered in time."""
        return await self._watch.ready(timeout_s)

    def controls(self) -> Mapping[str, Control]:
        """Control stubs of all members, by replica id."""
        return self._controls

    def _event(self, event: Event[ReplicaInfo]) -> None:
        if isinstance(event, Left):
            self._left(event.info, event.reason)
        elif isinstance(event, Joined | Changed):
            self._present(event.info)

    def _present(self, info: ReplicaInfo) -> None:
        member = self.members.get(info.id)
        if member is None:
            log.info("replica.joined", replica=info.id, link=info.link, device=info.device)
            member = Member(
                info, self._context, self._dispatcher.receive, self.rebuild, self._lost, self._dispatcher.touch
            )
            self.members[info.id] = member
            self._controls[info.id] = Control(info.control)
        if info.pools != member.info.pools or not member.descriptions:
            self._describing.put_nowait(info.id)
        member.info = info
        self.rebuild()

    def _left(self, info: ReplicaInfo, reason: Reason) -> None:
        member = self.members.get(info.id)
        if member is None:
            return
        if reason is Reason.EXPIRED and member.link.up:
            # It cannot reach Redis but answers us: Redis is no reason to lose a replica (promise P3).
            log.warning("replica.lease_expired", replica=info.id)
            member.expired = True
            return
        self._remove(member)

    def _remove(self, member: Member) -> None:
        log.info("replica.left", replica=member.info.id)
        del self.members[member.info.id]
        self.rebuild()
        member.close()
        asyncio.get_running_loop().create_task(self._controls.pop(member.info.id).close())

    def _lost(self, member: Member, parts: list[Part]) -> None:
        self._dispatcher.lost(member, parts)
        if member.expired and member.info.id in self.members:
            self._remove(member)

    def _loads(self, replica: str, loads: Mapping[PoolKey, LoadReport]) -> None:
        member = self.members.get(replica)
        if member is not None:
            for pool, load in loads.items():
                member.report(pool, load.queue_rows + load.running_rows)

    async def _describe_all(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            replica = await self._describing.get()
            tasks.create_task(self._describe_one(replica))

    async def _describe_one(self, replica: str) -> None:
        """Learn a member's models; again while it is a member and does not answer."""
        while replica in self.members:
            try:
                await self.describe(replica)
            except (ServingError, KeyError) as error:
                log.warning("replica.describe", replica=replica, error=str(error))
                await asyncio.sleep(_DESCRIBE_AGAIN_S)
            else:
                return

    async def describe(self, replica: str) -> None:
        """Ask a member for its models now. Raises ServingError."""
        control = self._controls.get(replica)
        if control is None:
            return
        answer = await control.describe()
        member = self.members.get(replica)
        if member is None:
            return
        descriptions = [decode(model) for model in answer.models]
        member.descriptions = {description.pool: description for description in descriptions}
        self.rebuild()

    def rebuild(self) -> None:
        """The members, their models or their links changed."""
        self._table.rebuild(self.members.values())
        self._dispatcher.forget_templates()
        self.on_change()

    async def close(self) -> None:
        """Close all links and control channels."""
        for member in self.members.values():
            member.link.close()
        for control in self._controls.values():
            await control.close()
