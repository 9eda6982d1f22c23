"""Activations on their way to later stages: gathered by turn, held until the link is up, refused where it does not come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from shardline.core.errors import Exhausted, NextStageGone, ServingError
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.replica import forward
from shardline.replica.forward import CONNECT_S, Forwarder
from shardline.wire.link import PROTOCOL
from tests.unit.replica.doubles import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardline.wire.codec import Buffer


class StageLink:
    """A link to a later stage: the test says when it is up."""

    made: ClassVar[list[StageLink]]

    def __init__(
        self, _context: object, address: str, _receive: object, on_up: Callable[[], None], on_lost: Callable[[], None]
    ) -> None:
        self.address = address
        self.up = self.choked = self.closed = False
        self.sent: list[tuple[list[int], int]] = []
        self._on_up, self._on_lost = on_up, on_lost
        self.made.append(self)

    def send(self, header: bytes, frames: Sequence[Buffer]) -> bool:
        if not self.up or self.choked:
            return False
        message = pb.ToReplica.FromString(header)
        assert message.protocol == PROTOCOL
        self.sent.append(([call for group in message.groups for call in group.calls], len(frames)))
        return True

    def rise(self) -> None:
        self.up = True
        self._on_up()

    def fall(self) -> None:
        self.up = False
        self._on_lost()

    def close(self) -> None:
        self.closed = True


class Sender:
    """A forwarder, its links, and what it refused."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.loop = VirtualLoop()
        patch.setattr(asyncio, "get_running_loop", lambda: self.loop)

        self.links = StageLink.made = []
        patch.setattr(forward, "LinkClient", StageLink)
        patch.setattr(forward, "LinkContext", lambda _identity: Context())
        self.refused: list[tuple[bytes, list[int], ServingError]] = []
        self.forwarder = Forwarder(
            b"r-1", lambda router, calls, error: self.refused.append((router, list(calls), error))
        )

    def send(self, *calls: int, to: str = "s2", router: bytes = b"e", frames: Sequence[bytes] = ()) -> None:
        """One group, in a turn of its own."""
        self.put(*calls, to=to, router=router, frames=frames)
        self.forwarder.flush()

    def put(self, *calls: int, to: str = "s2", router: bytes = b"e", frames: Sequence[bytes] = ()) -> None:
        group: Any = self.forwarder.group(to, router, list(calls), frames)
        group.rows.extend([1] * len(calls))


class Context:
    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Sender:
    return Sender(monkeypatch)


def test_groups_of_one_turn_go_out_as_one_message(sender: Sender) -> None:
    sender.send(0)
    (link,) = sender.links
    link.rise()
    sender.put(1, 2, frames=[b"a", b"b"])
    sender.put(3, router=b"f", frames=[b"c"])
    sender.forwarder.flush()
    assert link.sent == [([0], 0), ([1, 2, 3], 3)]


def test_a_turn_in_which_nothing_was_put_sends_nothing(sender: Sender) -> None:
    sender.send(0)
    (link,) = sender.links
    link.rise()
    sender.forwarder.flush()
    assert len(link.sent) == 1


def test_every_replica_of_the_next_stage_has_a_link_of_its_own(sender: Sender) -> None:
    sender.put(1, to="s2")
    sender.put(2, to="s3")
    sender.forwarder.flush()
    for link in sender.links:
        link.rise()
    assert {link.address: link.sent for link in sender.links} == {"s2": [([1], 0)], "s3": [([2], 0)]}


def test_what_is_put_before_the_link_is_up_waits_in_order(sender: Sender) -> None:
    for call in range(3):
        sender.send(call)
    (link,) = sender.links
    assert link.sent == []
    link.rise()
    assert [calls for calls, _ in link.sent] == [[0], [1], [2]]
    sender.send(3)
    assert link.sent[-1] == ([3], 0)
    sender.loop.advance(10 * CONNECT_S)
    assert sender.refused == []


def test_a_link_that_does_not_come_up_refuses_what_waits_for_it(sender: Sender) -> None:
    sender.put(1, 2)
    sender.put(3, router=b"f")
    sender.forwarder.flush()
    sender.send(4)
    sender.loop.advance(CONNECT_S * 1.01)
    assert [(router, calls) for router, calls, _ in sender.refused] == [(b"e", [1, 2]), (b"f", [3]), (b"e", [4])]
    for _, _, error in sender.refused:
        assert isinstance(error, NextStageGone)
        assert error.retry_after_s == 0.5
    assert sender.links[0].closed


def test_the_next_rows_try_a_new_link(sender: Sender) -> None:
    sender.send(1)
    sender.loop.advance(CONNECT_S * 1.01)
    sender.send(2)
    assert len(sender.links) == 2
    sender.links[1].rise()
    assert sender.links[1].sent == [([2], 0)]


def test_a_replica_that_does_not_read_is_said_to_be_gone(sender: Sender) -> None:
    sender.send(0)
    (link,) = sender.links
    link.rise()
    link.choked = True
    sender.send(1, 2)
    ((router, calls, error),) = sender.refused
    assert (router, calls) == (b"e", [1, 2])
    assert isinstance(error, NextStageGone)


def test_what_waits_for_a_link_is_bounded(sender: Sender) -> None:
    for call in range(400):
        sender.send(call)
    assert {type(error) for _, _, error in sender.refused} == {Exhausted}
    refused = [call for _, calls, _ in sender.refused for call in calls]
    (link,) = sender.links
    link.rise()
    sent = [call for calls, _ in link.sent for call in calls]
    assert sorted(sent + refused) == list(range(400))
    assert sent == sorted(sent)


def test_a_link_that_broke_is_closed_and_made_anew_when_needed(sender: Sender) -> None:
    sender.send(0)
    (link,) = sender.links
    link.rise()
    link.fall()
    assert link.closed
    sender.send(1)
    assert len(sender.links) == 2
    sender.links[1].rise()
    assert sender.links[1].sent == [([1], 0)]


def test_a_link_that_breaks_refuses_what_went_out_on_it_and_what_was_about_to(sender: Sender) -> None:
    sender.send(0, router=b"f")
    sender.send(9, to="s3")
    for link in sender.links:
        link.rise()
    sender.put(1, 2)
    sender.links[0].fall()
    sender.forwarder.flush()
    assert [(router, calls) for router, calls, _ in sender.refused] == [(b"f", [0]), (b"e", [1, 2])]
    assert {type(error) for _, _, error in sender.refused} == {NextStageGone}


def test_what_is_remembered_of_a_link_is_bounded(sender: Sender) -> None:
    sender.send(0)
    (link,) = sender.links
    link.rise()
    for call in range(1, 2000):
        sender.send(call)
    link.fall()
    refused = [call for _, calls, _ in sender.refused for call in calls]
    assert refused == list(range(2000 - len(refused), 2000))
    assert 100 < len(refused) < 1000


def test_closing_closes_all_links(sender: Sender) -> None:
    sender.send(0, to="s2")
    sender.send(1, to="s3")
    sender.forwarder.close()
    assert [link.closed for link in sender.links] == [True, True]
