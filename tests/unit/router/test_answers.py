"""Every caller is answered once, with its own rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from shardline.core.errors import InvalidRequest, MessageTooLarge, NotFound, Status
from shardline.pb.shardline.v1 import replica_pb2 as link_pb
from shardline.wire.codec import decode_bytes, encode_bytes
from tests.unit.router.messages import infer, model, request, rows, tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.router.doubles import Cluster

STYLES = ["columns", "joined", "loose"]


@pytest.mark.parametrize("style", STYLES)
def test_callers_of_one_turn_share_a_message_and_get_their_own_rows(cluster: Cluster, style: str) -> None:
    replica = cluster.join("a")
    callers = cluster.send(infer(1.0), infer(2.0, 3.0), infer(4.0))
    calls = replica.read()
    assert replica.messages == 1
    replica.answer(*calls, style=style)
    assert [caller.rows() for caller in callers] == [[1.0], [2.0, 3.0], [4.0]]
    cluster.assert_empty()


@pytest.mark.parametrize("style", STYLES)
def test_answers_may_come_in_any_order_and_grouping(cluster: Cluster, style: str) -> None:
    replica = cluster.join("a")
    callers = cluster.send(*(infer(float(number)) for number in range(6)))
    calls = replica.read()
    replica.answer(calls[5], calls[0], style=style)
    replica.answer(calls[3], style=style)
    replica.answer(calls[4], calls[2], calls[1], style=style)
    assert [caller.rows() for caller in callers] == [[float(number)] for number in range(6)]


def test_several_outputs_stay_with_their_rows(cluster: Cluster) -> None:
    spec = model([tensor("x"), tensor("z", dims=(1,))], [tensor("y"), tensor("y1", dims=(1,))])
    replica = cluster.join("a", spec)
    messages = [
        request(("z", "FP32", [1, 1]), ("x", "FP32", [1, 2]), raw=[rows(10.0 + n, width=1), rows(float(n))])
        for n in range(3)
    ]
    for style in STYLES:
        callers = cluster.send(*(message.SerializeToString() for message in messages))
        replica.answer(*replica.read(), style=style)
        assert [(caller.rows(0), caller.rows(1)) for caller in callers] == [([n], [10 + n]) for n in (0.0, 1.0, 2.0)]


def test_the_response_names_model_version_shapes_and_the_callers_id(cluster: Cluster) -> None:
    replica = cluster.join("a", model(version=3))
    (caller,) = cluster.send(infer(1.0, 2.0, id="mine"))
    replica.answer(*replica.read())
    assert caller.response is not None
    assert (caller.response.model_name, caller.response.model_version, caller.response.id) == ("m", "3", "mine")
    (output,) = caller.response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", "FP32", [2, 2])


def test_a_model_without_a_batch_axis_is_answered_in_its_own_shape(cluster: Cluster) -> None:
    replica = cluster.join("a", model([tensor("x", dims=(3, 2))], max_rows=0))
    (caller,) = cluster.send(request(("x", "FP32", [3, 2]), raw=[rows(1.0, 2.0, 3.0)]).SerializeToString())
    replica.answer(*replica.read(), style="joined")
    assert caller.response is not None
    assert list(caller.response.outputs[0].shape) == [3, 2]
    assert caller.rows() == [1.0, 2.0, 3.0]


def test_the_receipt_says_where_the_time_went(cluster: Cluster) -> None:
    replica = cluster.join("a")
    (caller,) = cluster.send(infer(1.0))
    spent = link_pb.StageReceipt(replica="a", queue_us=5, batch_rows=7, bucket=8, input_us=1, compute_us=900)
    replica.answer(*replica.read(), receipt=spent)
    assert caller.receipt == "stage=0;replica=a;queue_us=5;batch_rows=7;bucket=8;input_us=1;compute_us=900"


def test_a_second_answer_is_discarded_and_counted(cluster: Cluster) -> None:
    replica = cluster.join("a")
    (caller,) = cluster.send(infer(1.0))
    (call,) = replica.read()
    replica.answer(call)
    for style in STYLES:
        replica.answer(call, style=style)
    replica.refuse(call, reason="unavailable")
    assert caller.rows() == [1.0]
    assert cluster.ledger.count("late") == 3
    assert cluster.ledger.count("answered") == 1
    cluster.assert_empty()


def test_an_answer_to_nobody_does_not_shift_the_rows_of_the_others(cluster: Cluster) -> None:
    replica = cluster.join("a")
    callers = cluster.send(infer(1.0, 2.0), infer(3.0), infer(4.0, 5.0))
    calls = replica.read()
    assert callers[1].request is not None
    cluster.dispatcher.cancel(callers[1].request)
    for style in STYLES:
        replica.answer(*calls, style=style)
    assert [callers[0].rows(), callers[2].rows()] == [[1.0, 2.0], [4.0, 5.0]]
    assert not callers[1].answered


@pytest.mark.parametrize("count", [9, 16, 17, 63])
def test_a_request_that_was_cut_is_put_together_in_order(cluster: Cluster, count: int) -> None:
    replicas = [cluster.join("a"), cluster.join("b")]
    values = [float(number) for number in range(count)]
    (caller,) = cluster.send(infer(*values))
    sent = [(replica, call) for replica in replicas for call in replica.read()]
    assert max(replica.calls[call].rows for replica, call in sent) <= 8
    assert sum(replica.calls[call].rows for replica, call in sent) == count
    for position, (replica, call) in enumerate(reversed(sent), 1):
        assert not caller.answered
        replica.answer(call, style=STYLES[position % 3])
    assert caller.rows() == values
    cluster.assert_empty()


def test_text_that_was_cut_is_put_together_in_order(cluster: Cluster) -> None:
    replica = cluster.join("a", model([tensor("x", "BYTES")], [tensor("y", "BYTES")], max_rows=2))
    words = [b"a", b"", b"ccc", b"d" * 300, "ä".encode(), b"f", b"g", b"hh", b"i", b"j"]
    (caller,) = cluster.send(request(("x", "BYTES", [5, 2]), raw=[encode_bytes(words)]).SerializeToString())
    calls = replica.read()
    assert [replica.calls[call].rows for call in calls] == [2, 2, 1]
    for call in reversed(calls):
        replica.answer(call, style="loose")
    assert caller.response is not None
    assert decode_bytes(caller.response.raw_output_contents[0]) == [word.upper() for word in words]


def test_a_cut_request_whose_parts_cannot_be_joined_fails_once(cluster: Cluster) -> None:
    replica = cluster.join("a", model([tensor("x", dims=(-1,))], max_rows=1))
    message = request(("x", "FP32", [2, 2]), raw=[rows(1.0, 2.0)]).SerializeToString()
    (caller,) = cluster.send(message)
    first, second = replica.read()
    replica.answer(first)
    head = link_pb.ResultHead(model="m", version=1)
    head.outputs.add(name="y", datatype="FP32", dims=[3])
    group = link_pb.ResultGroup(head=head.SerializeToString(), calls=[second], rows=[1], columns=[bytes(12)])
    replica.say(link_pb.FromReplica(results=[group]))
    assert caller.error is not None
    assert caller.error.reason == "model_failed"
    cluster.assert_empty()


def test_a_request_is_not_cut_where_rows_of_different_requests_do_not_share_batches(cluster: Cluster) -> None:
    from tests.unit.router.messages import description

    replica = cluster.join("a", description(model(), unbatched_because="rows change each other's answers"))
    (caller,) = cluster.send(infer(*range(20)))
    (call,) = replica.read()
    replica.answer(call)
    assert len(caller.rows()) == 20


def test_an_answer_above_the_message_limit_is_an_error_that_names_the_setting(cluster: Cluster) -> None:
    replica = cluster.join("a")
    (caller,) = cluster.send(infer(1.0))
    (call,) = replica.read()
    head = link_pb.ResultHead(model="m", version=1)
    head.outputs.add(name="y", datatype="FP32", dims=[1 << 15])
    group = link_pb.ResultGroup(head=head.SerializeToString(), calls=[call], rows=[1], joined=True)
    replica.say(link_pb.FromReplica(results=[group]), [bytes(1 << 17)])
    assert isinstance(caller.error, MessageTooLarge)
    assert "SHARDLINE_MAX_MESSAGE_BYTES" in caller.error.message
    cluster.assert_empty()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (infer(1.0, model_name="other"), NotFound),
        (infer(1.0, model_version="9"), NotFound),
        (infer(1.0, model_version="x"), InvalidRequest),
        (infer(1.0, model_name=""), InvalidRequest),
        (infer(1.0)[:-1], InvalidRequest),
        (b"\xff\xff", InvalidRequest),
        (b"", InvalidRequest),
    ],
)
def test_a_bad_request_is_refused_at_once_and_its_neighbours_are_not(
    cluster: Cluster, message: bytes, kind: type[Exception]
) -> None:
    replica = cluster.join("a")
    before, bad, after = cluster.send(infer(1.0), message, infer(2.0))
    assert isinstance(bad.error, kind)
    assert bad.request is None
    replica.answer(*replica.read())
    assert (before.rows(), after.rows()) == ([1.0], [2.0])
    assert cluster.ledger.count("refused") == 1
    cluster.assert_empty()


def odd(call: int, *, datatype: str = "FP32", columns: int = 1, **fields: object) -> link_pb.ResultGroup:
    """A result that no replica of this release sends."""
    head = link_pb.ResultHead(model="m", version=1)
    head.outputs.add(name="y", datatype=datatype, dims=[2])
    group = link_pb.ResultGroup(head=head.SerializeToString(), calls=[call], rows=[1], **fields)  # type: ignore[arg-type]
    group.columns.extend([bytes(8)] * columns)
    return group


@pytest.mark.parametrize(
    "spoil",
    [
        lambda call: odd(call, datatype="FP8"),
        lambda call: odd(call, columns=0, joined=True),
        lambda call: odd(call, columns=0),
        lambda call: link_pb.ResultGroup(head=b"\xff", calls=[call], rows=[1]),
    ],
    ids=["unknown data type", "missing column", "missing frame", "no head"],
)
def test_a_result_that_cannot_be_read_fails_its_own_callers_only(
    cluster: Cluster, spoil: Callable[[int], link_pb.ResultGroup]
) -> None:
    replica = cluster.join("a")
    good, bad, behind, later = cluster.send(infer(1.0), infer(2.0), infer(3.0), infer(4.0))
    calls = replica.read()
    replica.answer(calls[0])
    replica.say(link_pb.FromReplica(results=[spoil(calls[1]), odd(calls[2])]))
    replica.answer(calls[3])
    assert (good.rows(), later.rows()) == ([1.0], [4.0])
    assert bad.error is not None
    assert bad.error.status is Status.INTERNAL
    assert behind.answered
    cluster.assert_empty()


def test_an_error_that_nobody_expected_is_its_own_callers_only(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = cluster.join("a", model(), model(name="n"))
    resolve = cluster.table.resolve

    def broken(name: str, version: int) -> object:
        if name == "n":
            raise RuntimeError("secret")
        return resolve(name, version)

    monkeypatch.setattr(cluster.table, "resolve", broken)
    before, bad, after = cluster.send(infer(1.0), infer(2.0, model_name="n"), infer(3.0))
    replica.answer(*replica.read())
    assert (before.rows(), after.rows()) == ([1.0], [3.0])
    assert bad.error is not None
    assert bad.error.status is Status.INTERNAL
    assert "secret" not in bad.error.message
    cluster.assert_empty()


def test_rows_of_one_message_are_views_or_copies_of_the_callers_bytes(cluster: Cluster) -> None:
    replica = cluster.join("a")
    values = np.arange(6, dtype=np.float32)
    message = request(("x", "FP32", [3, 2]), raw=[values.tobytes()]).SerializeToString()
    cluster.send(message)
    (call,) = replica.read()
    assert replica.calls[call].tensors == (values.tobytes(),)
