"""A split model in one thread and in virtual time: router, two replicas of each of three stages, links between them.

x goes to stages 0 and 1; both feed stage 2, which waits for both. The client gets `a` from stage 0 and `y` from stage 2.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shardline.batching.policy import Limits
from shardline.core.cluster import PoolKey
from shardline.core.errors import ModelFailed
from shardline.replica import forward
from shardline.replica import scheduler as scheduler_module
from shardline.replica.answers import LinkAnswers
from shardline.replica.forward import Forwarder
from shardline.replica.intake import Intake
from shardline.replica.join import Joins
from shardline.replica.queue import BatchQueue
from shardline.replica.scheduler import Scheduler
from shardline.replica.served import Served
from shardline.replica.stage import StageRole
from shardline.router.admission import Bounds
from shardline.wire.descriptions import Description, StageLink
from tests.unit.replica.doubles import POISON, VirtualExecutor, VirtualLoop
from tests.unit.router.doubles import Cluster
from tests.unit.router.messages import model, tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pytest

    from shardline.core.models import ModelSpec
    from shardline.replica.runtime import Session
    from shardline.wire.codec import Buffer
    from tests.unit.router.doubles import Replica

ROUTER = b"e-1"
MAX_ROWS = 4
QUEUE_ROWS = 40
PLAN = "plan"
LIMITS = Bounds(rows_in_flight=64, bytes_in_flight=1 << 24, max_message_bytes=1 << 20, retry_ratio=0.1)
GRAPH = (StageLink(0, ("x",), ("a",)), StageLink(1, ("x",), ()), StageLink(2, (), ("y",)))
WHOLE = replace(
    model([tensor("x", dims=(-1,))], [tensor("a", dims=(-1,)), tensor("y", dims=(-1,))], max_rows=MAX_ROWS,
          queue_rows=QUEUE_ROWS),
    stages=3,
)  # fmt: skip
STAGES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("x",), ("a", "h")),
    (("x",), ("g",)),
    (("h", "g"), ("y",)),
)
"""(inputs, outputs) of each stage."""
CONSUMERS: tuple[dict[int, tuple[str, ...]], ...] = ({2: ("h",)}, {2: ("g",)}, {})


def computed(name: str, x: np.ndarray) -> np.ndarray:
    """What the client must see of a request's rows."""
    return {"a": x + 1, "y": (x + 2) + (x + 4)}[name]


class StageSession:
    """One stage as a function of its inputs; fails where a row is poisoned."""

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], run: Any = None) -> list[np.ndarray]:
        if run is not None and run.terminated:
            raise ModelFailed("model failed: terminated")
        x = feeds.get("x")
        if x is not None and (x == POISON).any():
            raise ModelFailed("model failed: poisoned")
        makes: dict[str, Callable[[], np.ndarray]] = {
            "a": lambda: feeds["x"] + 1,
            "h": lambda: feeds["x"] + 2,
            "g": lambda: feeds["x"] + 4,
            "y": lambda: feeds["h"] + feeds["g"],
        }
        return [makes[name]().astype(np.float32) for name in outputs]


def stage_spec(index: int) -> ModelSpec:
    inputs, outputs = STAGES[index]
    return replace(
        WHOLE,
        inputs=tuple(tensor(name, dims=(-1,)) for name in inputs),
        outputs=tuple(tensor(name, dims=(-1,)) for name in outputs),
    )


def stage_served(index: int) -> Served:
    inputs, _ = STAGES[index]
    role = StageRole(
        plan=PLAN,
        index=index,
        sources={"x": None} if index < 2 else {"h": 0, "g": 1},
        consumers=CONSUMERS[index],
        answers=GRAPH[index].answer_outputs,
        needed=frozenset(inputs),
        graph=GRAPH,
        whole=WHOLE,
        micro_batch_rows=0,
    )
    spec = stage_spec(index)
    session: Session = StageSession()  # type: ignore[assignment]
    return Served(
        pool=PoolKey("m", 1, index),
        spec=spec,
        session=session,
        queue=BatchQueue(QUEUE_ROWS),
        buckets=spec.batching.buckets,
        limits=Limits(MAX_ROWS),
        stage=role,
        joins=Joins(inputs, role.needed, QUEUE_ROWS) if index == 2 else None,
    )


class Between:
    """A link between two stages; its messages wait until the test moves them."""

    def __init__(
        self, split: Split, owner: bytes, address: str, on_up: Callable[[], None], on_lost: Callable[[], None]
    ) -> None:
        self.split = split
        self.owner = owner
        self.address = address
        self.up = False
        self.queue: deque[tuple[bytes, list[bytes]]] = deque()
        self._on_up, self._on_lost = on_up, on_lost
        split.between.append(self)

    def send(self, header: bytes, frames: Sequence[Buffer]) -> bool:
        if self.up:
            self.queue.append((header, [bytes(frame) for frame in frames]))
        return self.up

    def close(self) -> None:
        self.up = False
        self.queue.clear()
        if self in self.split.between:
            self.split.between.remove(self)

    def move(self) -> bool:
        """Connect, or let one message arrive; False where there is nothing to do."""
        target = self.split.by_address.get(self.address)
        if target is None or not target.alive:
            return False
        if not self.up:
            self.up = True
            self._on_up()
            return True
        if not self.queue:
            return False
        header, frames = self.queue.popleft()
        target.intake.receive(b"stage", header, [memoryview(frame) for frame in frames])
        return True

    def cut(self) -> None:
        """The way between two stages breaks; both live on."""
        if self.up:
            self.up = False
            self.queue.clear()
            self._on_lost()


class Node:
    """A replica of one stage."""

    def __init__(self, split: Split, replica: Replica, index: int) -> None:
        self.replica = replica
        self.index = index
        self.alive = True
        self.outbox: list[tuple[bytes, list[bytes]]] = []
        self.answers = LinkAnswers(replica.member.info.id, self._send)
        self.answers.forward_by(Forwarder(replica.member.info.id.encode(), self.answers.refuse_soon))
        self.scheduler = Scheduler(self.answers)
        self.served = stage_served(index)
        joins = () if self.served.joins is None else (self.served.joins,)
        self.intake = Intake(
            lambda pool: self.served if pool == self.served.pool else None, self.scheduler, self.answers, lambda: joins
        )
        split.by_address[replica.member.info.link] = self

    def _send(self, peer: bytes, header: bytes, frames: Sequence[Buffer]) -> bool:
        assert peer == ROUTER
        if self.alive:
            self.outbox.append((header, [bytes(frame) for frame in frames]))
        return self.alive

    @property
    def executor(self) -> VirtualExecutor:
        (only,) = self.scheduler._executors
        virtual: Any = only
        return virtual

    def take(self) -> bool:
        arriving = self.replica.link.sent[:]
        self.replica.link.sent.clear()
        for header, frames in arriving:
            self.intake.receive(ROUTER, header, [memoryview(bytes(frame)) for frame in frames])
        return bool(arriving)

    def give(self) -> bool:
        if not self.outbox:
            return False
        header, frames = self.outbox.pop(0)
        self.replica.link.receive(b"", header, [memoryview(frame) for frame in frames])
        return True

    def finish(self) -> bool:
        if self.executor.batch is None:
            return False
        self.executor.finish()
        return True


@dataclass
class _NoContext:
    identity: bytes

    def close(self) -> None:
        pass


class Split:
    """The cluster: nodes 0 and 1 run stage 0, 2 and 3 stage 1, 4 and 5 stage 2."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.loop = VirtualLoop()
        self.between: list[Between] = []
        self.by_address: dict[str, Node] = {}
        self.cluster = Cluster(patch, LIMITS)
        for module in ("router.dispatch", "router.members", "router.sender", *(f"replica.{name}" for name in _TIMED)):
            patch.setattr(f"shardline.{module}.time", self.loop)
        patch.setattr("asyncio.get_running_loop", lambda: self.loop)
        patch.setattr(scheduler_module, "_Executor", VirtualExecutor)
        patch.setattr(forward, "LinkContext", _NoContext)
        patch.setattr(
            forward, "LinkClient", lambda ours, to, _receive, up, lost: Between(self, ours.identity, to, up, lost)
        )
        dispatcher = self.cluster.dispatcher
        dispatcher._delay = self.loop.call_later
        dispatcher._sender._itineraries._identity = ROUTER
        self.nodes = [self._node(number) for number in range(6)]

    def _node(self, number: int) -> Node:
        index = number // 2
        described = Description(PoolKey("m", 1, index), WHOLE, plan=PLAN, stages=GRAPH)
        return Node(self, self.cluster.join(f"r{number}", described), index)

    def kill(self, number: int) -> None:
        """The process ends with all it holds; links to it and from it are gone."""
        node = self.nodes[number]
        node.alive = False
        info = node.replica.member.info
        for link in list(self.between):
            if link.owner == info.id.encode():
                link.close()
            elif link.address == info.link:
                link.cut()
        node.replica.link.sent.clear()
        node.replica.link.fall()
        self.nodes[number] = Node(self, node.replica, node.index)
        self.nodes[number].alive = False

    def revive(self, number: int) -> None:
        node = self.nodes[number]
        node.alive = True
        if not node.replica.link.up:
            node.replica.link.rise()

    def flow(self) -> None:
        """One round of what happens by itself, but for the answers to the router."""
        self.cluster.turn()
        for node in self.nodes:
            if node.alive:
                node.take()
                node.finish()
        for link in list(self.between):
            link.move()

    def wait(self, seconds: float) -> None:
        self.loop.advance(seconds)
        self.cluster.dispatcher.sweep(self.loop.now)

    def settle(self) -> None:
        """Move messages, end runs and let short times pass until nothing moves any more."""
        for _ in range(10_000):
            self.cluster.turn()
            moved = [node.take() or node.finish() or node.give() for node in self.nodes if node.alive]
            moved += [link.move() for link in list(self.between)]
            if any(moved) or self.cluster.turns:
                continue
            if not self.cluster.dispatcher.requests_in_flight:
                return
            self.wait(0.1)  # a retry that waits, a link that never comes
        raise AssertionError("messages go round without end")


_TIMED = ("scheduler", "batch", "answers", "intake")
