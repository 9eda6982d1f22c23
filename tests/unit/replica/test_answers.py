"""Outcomes on their way out: gathered by router, each call with its own rows, and the replica's load."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shardline.core.cluster import PoolKey
from shardline.core.datatypes import BY_NAME
from shardline.core.errors import Exhausted, ModelFailed
from shardline.core.models import Padding, TensorSpec
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.replica.answers import LinkAnswers
from shardline.replica.batch import Batch, Outcome
from shardline.replica.chunk import Chunk, Head, InputHead
from shardline.wire.codec import decode_bytes
from shardline.wire.link import PROTOCOL
from tests.unit.replica.doubles import ADDED, HEAD, VirtualLoop, X, chunk, served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardline.replica.served import Served
    from shardline.wire.codec import Buffer


class Link:
    """A link that keeps what was sent, read as a router reads it. gone: peers that cannot be reached."""

    def __init__(self, gone: tuple[bytes, ...] = ()) -> None:
        self.gone = gone
        self.messages: dict[bytes, list[pb.FromReplica]] = {}
        self.rows: dict[tuple[bytes, int], list[bytes]] = {}
        self.heads: dict[tuple[bytes, int], pb.ResultHead] = {}

    def send(self, peer: bytes, header: bytes, frames: Sequence[Buffer]) -> bool:
        if peer in self.gone:
            return False
        message = pb.FromReplica.FromString(header)
        assert message.protocol == PROTOCOL
        self.messages.setdefault(peer, []).append(message)
        left = [bytes(frame) for frame in frames]
        for group in message.results:
            self._group(peer, group, left)
        assert not left
        return True

    def _group(self, peer: bytes, group: pb.ResultGroup, frames: list[bytes]) -> None:
        head = pb.ResultHead.FromString(group.head)
        width = len(head.outputs)
        columns = list(group.columns)
        if group.joined:
            columns = [frames.pop(0) for _ in range(width)]
        at, total = 0, sum(group.rows)
        for call, rows in zip(group.calls, group.rows, strict=True):
            assert (peer, call) not in self.rows
            self.heads[peer, call] = head
            if columns:
                sizes = [len(column) // total for column in columns]
                self.rows[peer, call] = [c[at * s : (at + rows) * s] for c, s in zip(columns, sizes, strict=True)]
            else:
                self.rows[peer, call] = [frames.pop(0) for _ in range(width)]
            at += rows

    def floats(self, call: int, peer: bytes = b"e", output: int = 0) -> list[float]:
        return np.frombuffer(self.rows[peer, call][output], np.float32).tolist()


LOOP = VirtualLoop()


def batch_of(target: Served, chunks: list[Chunk], names: tuple[str, ...] = ("y",), **times: float) -> Batch:
    made = Batch(target, chunks, sum(part.total for part in chunks), 8, names, times.pop("taken_at", 0.0))
    made.input_s, made.compute_s = times.get("input_s", 0.0), times.get("compute_s", 0.0)
    return made


def outputs_of(chunks: Sequence[Chunk], bucket: int = 8, width: int = 2) -> np.ndarray:
    values = [row[0] for part in chunks for row in part.arrays[0]]
    values += [-9.0] * (bucket - len(values))
    return np.repeat(np.array(values, np.float32)[:, None] + np.float32(ADDED), width, axis=1)


def answered(*chunks: Chunk, target: Served | None = None, width: int = 2) -> Link:
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    made = batch_of(target or served(LOOP), list(chunks))
    answers.results(made, Outcome(chunks, [outputs_of(chunks, width=width)]))
    answers.flush()
    return link


@pytest.mark.parametrize("width", [2, 4096], ids=["within the header", "as frames"])
def test_every_call_gets_its_rows_and_none_of_the_padding(width: int) -> None:
    link = answered(chunk([1.0], [2.0, 3.0]), chunk([4.0], first=2), width=width)
    got = {call: link.floats(call)[::width] for call in range(3)}
    assert got == {0: [1001.0], 1: [1002.0, 1003.0], 2: [1004.0]}
    assert len(link.messages[b"e"]) == 1


def test_calls_of_different_routers_and_heads_stay_apart() -> None:
    named = Head(HEAD.pool, (X,), ("y",), None)
    link = answered(
        chunk([1.0], peer=b"a"), chunk([2.0], peer=b"b"), chunk([3.0], peer=b"a", first=1),
        chunk([4.0], peer=b"a", first=2, head=named),
    )  # fmt: skip
    assert [link.floats(call, b"a")[0] for call in range(3)] == [1001.0, 1003.0, 1004.0]
    assert link.floats(0, b"b")[0] == 1002.0
    assert set(link.messages) == {b"a", b"b"}


def test_consecutive_chunks_of_one_caller_and_head_share_a_group() -> None:
    link = answered(chunk([1.0]), chunk([2.0], first=1), chunk([3.0], first=2))
    ((message,),) = link.messages.values()
    assert [list(group.calls) for group in message.results] == [[0, 1, 2]]


def test_a_caller_gets_the_outputs_it_asked_for_in_its_order() -> None:
    both = Head(HEAD.pool, (X,), ("sum", "y"), None)
    parts = [chunk([1.0]), chunk([2.0], first=1, head=both)]
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    target = served(LOOP, outputs=("y", "sum"))
    sums = np.arange(8, dtype=np.float32)
    answers.results(batch_of(target, parts, ("y", "sum")), Outcome(parts, [outputs_of(parts), sums]))
    answers.flush()
    assert [output.name for output in link.heads[b"e", 0].outputs] == ["y", "sum"]
    assert [output.name for output in link.heads[b"e", 1].outputs] == ["sum", "y"]
    assert (link.floats(1, output=0), link.floats(1, output=1)) == ([1.0], [1002.0, 1002.0])


def test_the_head_says_data_types_and_the_dims_of_a_row() -> None:
    link = answered(chunk([1.0]))
    head = link.heads[b"e", 0]
    assert (head.model, head.version) == ("m", 1)
    (output,) = head.outputs
    assert (output.name, output.datatype, list(output.dims)) == ("y", "FP32", [2])


def test_a_model_without_a_batch_axis_is_answered_whole() -> None:
    part = chunk([5.0])
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    answers.results(batch_of(served(LOOP, max_rows=0), [part]), Outcome([part], [np.ones((3, 2), np.float32)]))
    answers.flush()
    assert list(link.heads[b"e", 0].outputs[0].dims) == [3, 2]
    assert link.floats(0) == [1.0] * 6


def test_text_goes_in_frames_of_each_call() -> None:
    target = served(LOOP)
    part = chunk([1.0], [2.0, 3.0])
    text = np.array([["a", "ä"], ["b", ""], ["c", "d"], *[["pad", "pad"]] * 5], object)
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    answers.results(batch_of(target, [part]), Outcome([part], [text]))
    answers.flush()
    assert decode_bytes(link.rows[b"e", 0][0]) == [b"a", "ä".encode()]
    assert decode_bytes(link.rows[b"e", 1][0]) == [b"b", b"", b"c", b"d"]


def test_text_beside_numbers_keeps_each_calls_tensors_together() -> None:
    target = served(LOOP, outputs=("sum", "y"))
    part = chunk([1.0], [2.0])
    text = np.array([["a"], ["b"], *[["pad"]] * 6], object)
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    answers.results(batch_of(target, [part], ("sum", "y")), Outcome([part], [np.arange(8, dtype=np.float32), text]))
    answers.flush()
    assert [decode_bytes(link.rows[b"e", call][1]) for call in (0, 1)] == [[b"a"], [b"b"]]
    assert [link.floats(call, output=0) for call in (0, 1)] == [[0.0], [1.0]]


def test_the_outputs_of_padded_rows_are_cut_back_to_the_rows_own_length() -> None:
    rules = {"pad_inputs": {"x": Padding(axis=0, value=0.0, multiple=4)}, "trim_outputs": {"y": 0}}
    target = served(LOOP, **rules)  # type: ignore[arg-type]
    heads = [Head(PoolKey("m", 1), (InputHead("x", BY_NAME["FP32"], (size,), 4 * size),), (), None) for size in (2, 3)]
    parts = [chunk([1.0], head=heads[0]), chunk([2.0], head=heads[1], first=1)]
    outputs = np.arange(32, dtype=np.float32).reshape(8, 4)
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    answers.results(batch_of(target, parts), Outcome(parts, [outputs]))
    answers.flush()
    assert (link.floats(0), link.floats(1)) == ([0.0, 1.0], [4.0, 5.0, 6.0])
    assert [list(link.heads[b"e", call].outputs[0].dims) for call in (0, 1)] == [[2], [3]]


def test_a_version_that_is_loaded_again_with_another_data_type_is_answered_with_it() -> None:
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    for call, name in enumerate(("FP32", "INT32")):
        target = served(LOOP, outputs=("y",))
        tensor = TensorSpec("y", BY_NAME[name], (2,))
        target.spec = replace(target.spec, outputs=(tensor,), digest=f"of the file with {name}")
        part = chunk([1.0], first=call)
        answers.results(batch_of(target, [part]), Outcome([part], [np.ones((8, 2), BY_NAME[name].numpy)]))
    answers.flush()
    assert [link.heads[b"e", call].outputs[0].datatype for call in (0, 1)] == ["FP32", "INT32"]


def test_the_receipt_tells_the_batch_and_where_the_time_went() -> None:
    part = chunk([1.0], arrived=10.0)
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    made = batch_of(served(LOOP), [part], taken_at=10.25, input_s=0.001, compute_s=0.5)
    answers.results(made, Outcome([part], [outputs_of([part])]))
    answers.flush()
    ((message,),) = link.messages.values()
    (receipt,) = message.results[0].receipt
    assert (receipt.replica, receipt.queue_us, receipt.input_us, receipt.compute_us) == ("r-1", 250_000, 1000, 500_000)
    assert (receipt.stage, receipt.batch_rows, receipt.bucket) == (0, 1, 8)


def test_a_message_with_results_tells_the_load_and_is_numbered() -> None:
    target = served(LOOP)
    target.queue.put((), chunk([1.0, 2.0, 3.0]))
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    for call in range(2):
        part = chunk([1.0], first=call)
        answers.results(batch_of(target, [part]), Outcome([part], [outputs_of([part])]))
        answers.flush()
    first, second = link.messages[b"e"]
    assert [(load.pool, load.queue_rows) for load in first.loads] == [("m:1/0", 3)]
    assert second.sequence > first.sequence > 0


@pytest.mark.parametrize(("after_s", "hint_ms"), [(None, 0), (0.25, 250), (0.0001, 1), (2.0, 2000)])
def test_a_refusal_carries_reason_message_and_hint(after_s: float | None, hint_ms: int) -> None:
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    answers.refuse(chunk([1.0], [2.0]), [1], Exhausted("full", retry_after_s=after_s))
    answers.refuse_peer(b"other", [7, 8], ModelFailed("why"))
    answers.flush()
    (mine,), (theirs,) = link.messages[b"e"][0].refusals, link.messages[b"other"][0].refusals
    assert (list(mine.calls), mine.reason, mine.message, mine.retry_after_ms) == ([1], "exhausted", "full", hint_ms)
    assert (list(theirs.calls), theirs.reason, theirs.retry_after_ms) == ([7, 8], "model_failed", 0)


def test_nothing_is_sent_where_nothing_was_said() -> None:
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    answers.flush()
    answers.refuse(chunk([1.0]), [0], ModelFailed("why"))
    answers.flush()
    answers.flush()
    assert [len(messages) for messages in link.messages.values()] == [1]


def test_a_router_that_is_gone_does_not_keep_the_others_from_their_answers() -> None:
    link = Link(gone=(b"gone",))
    answers = LinkAnswers("r-1", link.send)
    parts = [chunk([1.0], peer=b"gone"), chunk([2.0], peer=b"here")]
    answers.results(batch_of(served(LOOP), parts), Outcome(parts, [outputs_of(parts)]))
    answers.flush()
    assert link.floats(0, b"here") == [1002.0, 1002.0]


def test_large_outputs_are_not_copied() -> None:
    sent: list[Buffer] = []

    def send(_peer: bytes, _header: bytes, frames: Sequence[Buffer]) -> bool:
        sent.extend(frames)
        return True

    parts = [chunk(*[[float(number)] for number in range(8)])]
    outputs = outputs_of(parts, width=4096)
    answers = LinkAnswers("r-1", send)
    answers.results(batch_of(served(LOOP), parts), Outcome(parts, [outputs]))
    answers.flush()
    (frame,) = sent
    assert np.shares_memory(np.frombuffer(frame, np.uint8), outputs)
