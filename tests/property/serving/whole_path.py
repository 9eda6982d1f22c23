"""Router and replicas in one thread and in virtual time: client bytes in, client bytes out, and the test moves the messages.

The real dispatcher, members, intake, schedulers and answers; the links are queues, the executors end when told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardline.core.cluster import PoolKey
from shardline.replica import intake as intake_module
from shardline.replica import scheduler as scheduler_module
from shardline.replica.answers import LinkAnswers
from shardline.replica.intake import Intake
from shardline.replica.scheduler import Scheduler
from shardline.router.admission import Bounds
from tests.unit.replica import doubles as replica_doubles
from tests.unit.router.doubles import Caller, Cluster
from tests.unit.router.messages import model, tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from shardline.replica.served import Served
    from shardline.wire.codec import Buffer
    from tests.unit.router.doubles import Replica

ROUTER = b"e-1"
MAX_ROWS = 4
SPEC = model([tensor("x", dims=(-1,))], max_rows=MAX_ROWS, queue_rows=24)
LIMITS = Bounds(rows_in_flight=64, bytes_in_flight=1 << 24, max_message_bytes=1 << 20, retry_ratio=0.1)


class Node:
    """A replica process: what arrives on its link, what waits to be sent back."""

    def __init__(self, replica: Replica, loop: replica_doubles.VirtualLoop) -> None:
        self.replica = replica
        self.outbox: list[tuple[bytes, list[bytes]]] = []
        self.answers = LinkAnswers(replica.member.info.id, self._send)
        self.scheduler = Scheduler(self.answers)
        self.served: Served = replica_doubles.served(loop, max_rows=MAX_ROWS, queue_rows=24)
        self.loaded = True
        self.intake = Intake(
            lambda pool: self.served if self.loaded and pool == PoolKey("m", 1) else None, self.scheduler, self.answers
        )

    @property
    def executor(self) -> replica_doubles.VirtualExecutor:
        (only,) = self.scheduler._executors
        virtual: Any = only
        return virtual

    def _send(self, _peer: bytes, header: bytes, frames: Sequence[Buffer]) -> bool:
        self.outbox.append((header, [bytes(frame) for frame in frames]))
        return True

    def take(self) -> bool:
        """Everything that waits on the link arrives here; False where nothing does."""
        arriving = self.replica.link.sent[:]
        self.replica.link.sent.clear()
        for header, frames in arriving:
            self.intake.receive(ROUTER, header, [memoryview(bytes(frame)) for frame in frames])
        return bool(arriving)

    def give(self, count: int = 1 << 30) -> bool:
        """The first `count` messages that wait here arrive at the router; False where none does."""
        leaving, self.outbox = self.outbox[:count], self.outbox[count:]
        for header, frames in leaving:
            self.replica.link.receive(b"", header, [memoryview(frame) for frame in frames])
        return bool(leaving)

    def finish(self) -> bool:
        """The run that is under way ends; False where none is."""
        if self.executor.batch is None:
            return False
        self.executor.finish()
        return True


class Path:
    """One router, several replicas."""

    def __init__(self, patch: pytest.MonkeyPatch, replicas: int) -> None:
        self.loop = replica_doubles.VirtualLoop()
        self.cluster = Cluster(patch, LIMITS)
        patch.setattr(self.cluster, "clock", self.loop)
        for module in ("shardline.router.dispatch", "shardline.router.members", "shardline.router.sender"):
            patch.setattr(f"{module}.time", self.loop)
        for module in ("scheduler", "batch", "answers", "intake"):
            patch.setattr(f"shardline.replica.{module}.time", self.loop)
        patch.setattr("asyncio.get_running_loop", lambda: self.loop)
        patch.setattr(scheduler_module, "_Executor", replica_doubles.VirtualExecutor)
        assert intake_module.Intake is Intake
        self.nodes = [self._node(f"r{number}") for number in range(replicas)]

    def _node(self, name: str) -> Node:
        return Node(self.cluster.join(name, SPEC), self.loop)

    def submit(self, message: bytes, timeout_s: float | None) -> Caller:
        return self.cluster.submit(message, timeout_s)

    def kill(self, number: int) -> None:
        """The process ends with all it holds; another takes its place, with a link that is down."""
        node = self.nodes[number]
        node.replica.link.sent.clear()
        node.replica.link.fall()
        self.nodes[number] = Node(node.replica, self.loop)

    def revive(self, number: int) -> None:
        link = self.nodes[number].replica.link
        if not link.up:
            link.rise()

    def wait(self, seconds: float) -> None:
        self.loop.advance(seconds)
        self.cluster.dispatcher.sweep(self.loop.now)

    def settle(self) -> None:
        """Move messages and end runs until nothing moves any more."""
        for _ in range(10_000):
            self.cluster.turn()
            moved = [node.take() or node.finish() or node.give() for node in self.nodes]
            if not any(moved) and not self.cluster.turns:
                return
        raise AssertionError("messages go round without end")
