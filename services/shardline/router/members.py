"""A replica as this router sees it: its link, what it serves, what is in flight there, what goes out next."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from shardline.core.cluster import PoolKey, ReplicaInfo, ReplicaState
from shardline.ops import logs
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.router.calls import Burst
from shardline.router.policy import Candidate
from shardline.wire.link import PROTOCOL, LinkClient, LinkContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardline.router.calls import Part
    from shardline.wire.codec import Buffer
    from shardline.wire.descriptions import Description

log = logs.get(__name__)

_BURSTS = 2
"""Unanswered messages beyond which small rows of fast models are held: one is executed, one waits for it."""
_SLOW_MS = 2.0
"""Predicted time of one row from which a model is not fast: its rows queue at the replica, where batches form."""
_NO_REPORT = (0, float("-inf"))
"""Rows and time of a report that never came: too old to be believed."""


class Member:
    """One replica. The callbacks run in the event loop.

    on_message(member, message, frames): what it says. on_change(): it became usable or stopped being so.
    on_lost(member, parts): the link broke with these parts in flight; they are no longer counted here.
    on_room(member): what was held may be flushed.
    """

    def __init__(
        self,
        info: ReplicaInfo,
        context: LinkContext,
        on_message: Callable[[Member, pb.FromReplica, list[Buffer]], None],
        on_change: Callable[[], None],
        on_lost: Callable[[Member, list[Part]], None],
        on_room: Callable[[Member], None],
    ) -> None:
        self.info = info
        self.descriptions: dict[PoolKey, Description] = {}
        self.in_flight: dict[int, Part] = {}
        self.own_rows = 0
        self.expired = False
        self._on_message = on_message
        self._on_change = on_change
        self._on_lost = on_lost
        self._on_room = on_room
        self._groups: dict[bytes, list[Part]] = {}
        self._cancelled: list[int] = []
        self._reports: dict[str, tuple[int, float]] = {}  # by pool: rows, and when it was said
        self._row_ms: dict[str, float] = {}
        self._fits: dict[str, tuple[float, float]] = {}
        self._bursts = 0
        self.link = LinkClient(context, info.link, self._receive, self._up, self._lost)

    @property
    def usable(self) -> bool:
        """Whether rows may be sent here."""
        return self.link.up and self.info.state is ReplicaState.READY

    def candidate(self, pool: str, now: float) -> Candidate:
        """What the policy needs to know of this member."""
        rows, reported_at = self._reports.get(pool, _NO_REPORT)
        return Candidate(self.own_rows, rows, now - reported_at)

    def fit(self, pool: str) -> tuple[float, float]:
        """(alpha, beta) of a batch there, in seconds; zeros before the first report."""
        return self._fits.get(pool, (0.0, 0.0))

    def put(self, part: Part) -> None:
        """Queue a part for the next flush."""
        self.expect(part)
        head = part.head
        group = self._groups.get(head)
        if group is None:
            self._groups[head] = [part]
        else:
            group.append(part)

    def expect(self, part: Part) -> None:
        """The part is in flight here, though this router sends nothing: another stage does."""
        part.member = self
        self.in_flight[part.wire_id] = part
        self.own_rows += part.rows

    def take(self, wire_id: int) -> Part | None:
        """The part that an answer is for, no longer in flight; None where nobody waits for it."""
        part = self.in_flight.pop(wire_id, None)
        if part is not None:
            self.own_rows -= part.rows
            burst = part.burst
            if burst is not None:
                part.burst = None
                burst.left -= 1
                if burst.left == 0:
                    self._bursts -= 1
                    if self._groups:
                        self._on_room(self)
        return part

    def cancel(self, part: Part) -> None:
        """Nobody wants the part any more: it is taken back, or the replica is told with the next flush."""
        if self.take(part.wire_id) is None:
            return
        waiting = self._groups.get(part.head, ())
        if part in waiting:
            self._groups[part.head].remove(part)
        else:
            self._cancelled.append(part.wire_id)

    @property
    def pending(self) -> bool:
        """Whether a flush has anything to send."""
        return bool(self._groups or self._cancelled)

    def flush(self, now: float) -> None:
        """Send what was put and cancelled since the last flush, as one message.

        Small rows for a fast model are held while two messages are unanswered, and go out together when one is
        answered: a message costs as much as the work of many such rows (the idea of RFC 896, by replies instead of acks).
        """
        message = pb.ToReplica(protocol=PROTOCOL)
        frames: list[Buffer] = []
        sent: list[Part] = []
        groups, self._groups = self._groups, {}
        for head, parts in groups.items():
            if not parts:
                continue
            if self._bursts >= _BURSTS and self._is_fast(parts[0]):
                self._groups[head] = parts
                continue
            _add_group(message, frames, head, parts, now, self.own_rows)
            if not parts[0].request.prepared.serving.stages:
                burst = Burst(len(parts))
                for part in parts:
                    part.burst = burst
                self._bursts += 1
            sent += parts
        if self._cancelled:
            message.cancelled.extend(self._cancelled)
            self._cancelled = []
        elif not sent:
            return
        if not self.link.send(message.SerializeToString(), frames):
            # Lost or choked: the parts go elsewhere; cancellations are moot.
            self._lose(sent)

    def _is_fast(self, part: Part) -> bool:
        prepared = part.request.prepared
        return (
            prepared.joined
            and not prepared.serving.stages
            and self._row_ms.get(prepared.serving.pool_text, _SLOW_MS) < _SLOW_MS
        )

    def _lose(self, parts: list[Part]) -> None:
        lost = [part for part in parts if self.take(part.wire_id) is not None]
        if lost:
            self._on_lost(self, lost)

    def _receive(self, _peer: bytes, header: bytes, frames: list[Buffer]) -> None:
        try:
            message = pb.FromReplica.FromString(header)
        except DecodeError:
            log.warning("link.rubbish", replica=self.info.id, size_bytes=len(header))
            return
        if message.protocol != PROTOCOL:
            log.warning("link.protocol", replica=self.info.id, theirs=message.protocol, ours=PROTOCOL)
            return
        if message.loads:
            now = time.monotonic()
            for load in message.loads:
                self._reports[load.pool] = (load.queue_rows + load.running_rows, now)
                self._row_ms[load.pool] = load.alpha_ms + load.beta_ms
                self._fits[load.pool] = (load.alpha_ms / 1e3, load.beta_ms / 1e3)
        self._on_message(self, message, frames)

    def report(self, pool: PoolKey, rows: int) -> None:
        """A load report that came by Redis."""
        self._reports[str(pool)] = (rows, time.monotonic())

    def _up(self) -> None:
        log.info("link.up", replica=self.info.id)
        self._on_change()

    def _lost(self) -> None:
        log.warning("link.lost", replica=self.info.id, in_flight=len(self.in_flight))
        self._on_change()
        self._groups.clear()
        self._cancelled.clear()
        self._lose(list(self.in_flight.values()))

    def close(self) -> None:
        """Close the link; what is in flight is lost and goes elsewhere."""
        self.link.close()
        self._groups.clear()
        self._lose(list(self.in_flight.values()))


def _add_group(
    message: pb.ToReplica, frames: list[Buffer], head: bytes, parts: list[Part], now: float, in_flight: int
) -> None:
    """Parts that share a head as one group: small rows as one column per input, large ones as frames of their own.

    in_flight: rows that wait for an answer of this member or, where it runs a stage, of the last stage after it.
    """
    prepared = parts[0].request.prepared
    group = message.groups.add(
        head=head,
        calls=[part.wire_id for part in parts],
        rows=[part.rows for part in parts],
        deadline_ms=[max(1, int((part.request.deadline - now) * 1e3)) for part in parts],
    )
    if prepared.serving.stages:
        group.in_flight = in_flight
    if any(part.request.prepared.template.priority for part in parts):
        default = prepared.serving.spec.batching.default_priority
        group.priority.extend(part.request.prepared.template.priority or default for part in parts)
    if not prepared.joined:
        for part in parts:
            frames.extend(part.tensors)
    elif len(parts[0].tensors) == 1:
        group.columns.append(b"".join([part.tensors[0] for part in parts]))
    else:
        group.columns.extend(b"".join(column) for column in zip(*[part.tensors for part in parts], strict=True))
