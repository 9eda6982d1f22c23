"""A request is parsed once per head, checked every time, and bound to what serves now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardline.core.errors import InvalidRequest, NotFound, Unavailable
from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.pb.shardline.v1 import replica_pb2 as link_pb
from shardline.router.prepare import Preparer
from shardline.wire.codec import encode_bytes
from tests.unit.router.messages import infer, model, request, rows, tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardline.core.models import ModelSpec
    from tests.unit.router.doubles import Cluster

PAIR = model([tensor("x"), tensor("z", dims=(1,))])


def preparer(cluster: Cluster, *served: ModelSpec) -> Preparer:
    cluster.join("a", *served)
    return Preparer(cluster.table)


def contents(prepared: tuple[object, Sequence[object], str]) -> list[bytes]:
    return [bytes(tensor) for tensor in prepared[1]]  # type: ignore[call-overload]


def test_equal_heads_share_what_was_learned_and_keep_their_own_rows(cluster: Cluster) -> None:
    preparing = preparer(cluster)
    first, second, third = (preparing.prepare(infer(value)) for value in (1.0, 2.0, 3.0))
    assert second[0] is third[0]
    assert second[0].template == first[0].template
    assert [contents(item) for item in (first, second, third)] == [[rows(1.0)], [rows(2.0)], [rows(3.0)]]


def test_tensors_come_in_the_models_order_whatever_the_requests_was(cluster: Cluster) -> None:
    preparing = preparer(cluster, PAIR)
    x, z = ("x", "FP32", [1, 2]), ("z", "FP32", [1, 1])
    straight = request(x, z, raw=[rows(1.0), rows(2.0, width=1)]).SerializeToString()
    crossed = request(z, x, raw=[rows(4.0, width=1), rows(3.0)]).SerializeToString()
    for _ in range(3):
        assert contents(preparing.prepare(straight)) == [rows(1.0), rows(2.0, width=1)]
        assert contents(preparing.prepare(crossed)) == [rows(3.0), rows(4.0, width=1)]


def test_a_request_with_an_id_keeps_it(cluster: Cluster) -> None:
    preparing = preparer(cluster)
    for request_id in ("one", "two", "", "one"):
        assert preparing.prepare(infer(1.0, id=request_id))[2] == request_id


def test_a_head_of_another_shape_is_not_taken_for_a_known_one(cluster: Cluster) -> None:
    preparing = preparer(cluster, model([tensor("x", dims=(-1,))]))
    wide = request(("x", "FP32", [2, 3]), raw=[bytes(24)]).SerializeToString()
    tall = request(("x", "FP32", [3, 2]), raw=[bytes(24)]).SerializeToString()
    for _ in range(3):
        assert preparing.prepare(wide)[0].template.rows == 2
        assert preparing.prepare(tall)[0].template.rows == 3


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("size", [0, 4, 7, 9, 12])
def test_wrong_sizes_are_found_also_in_requests_whose_head_is_known(cluster: Cluster, size: int, known: bool) -> None:
    preparing = preparer(cluster)
    if known:
        preparing.prepare(infer(1.0))
    message = request(("x", "FP32", [1, 2]), raw=[bytes(size)]).SerializeToString()
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=f"'x': raw content has {size} bytes, expected 8"):
            preparing.prepare(message)


@pytest.mark.parametrize("known", [False, True])
def test_text_is_counted_in_every_request(cluster: Cluster, known: bool) -> None:
    preparing = preparer(cluster, model([tensor("x", "BYTES")]))

    def text(*words: bytes) -> bytes:
        return request(("x", "BYTES", [1, 2]), raw=[encode_bytes(words)]).SerializeToString()

    if known:
        for _ in range(2):
            assert contents(preparing.prepare(text(b"aa", b"bb"))) == [encode_bytes([b"aa", b"bb"])]
    with pytest.raises(InvalidRequest, match="'x': 1 BYTES elements, expected 2"):
        preparing.prepare(text(b"aabbbbbb"))  # as many bytes as two words of two letters
    with pytest.raises(InvalidRequest, match="'x': BYTES element 0 is not UTF-8"):
        preparing.prepare(text(b"\xff\xff", b"bb"))


def test_texts_of_other_lengths_have_their_own_layout(cluster: Cluster) -> None:
    preparing = preparer(cluster, model([tensor("x", "BYTES", (1,)), tensor("z", "BYTES", (1,))]))
    words = [(b"a", b"bbb"), (b"bbb", b"a"), (b"aa", b"bb"), (b"", b"bbbb"), (b"a", b"bbb")]
    for left, right in words * 2:
        message = request(("x", "BYTES", [1, 1]), ("z", "BYTES", [1, 1]))
        message.raw_input_contents.extend([encode_bytes([left]), encode_bytes([right])])
        prepared = preparing.prepare(message.SerializeToString())
        assert contents(prepared) == [encode_bytes([left]), encode_bytes([right])]


def test_typed_contents_become_raw_ones(cluster: Cluster) -> None:
    preparing = preparer(cluster)
    for value in (1.0, 2.0):
        message = request(("x", "FP32", [1, 2]))
        message.inputs[0].contents.fp32_contents.extend([value, value])
        assert contents(preparing.prepare(message.SerializeToString())) == [rows(value)]


def test_typed_contents_beside_raw_ones_are_refused(cluster: Cluster) -> None:
    preparing = preparer(cluster, PAIR)
    message = request(("x", "FP32", [1, 2]), ("z", "FP32", [1, 1]), raw=[rows(1.0)])
    message.inputs[1].contents.fp32_contents.extend([1.0])
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="'z': contents are given although raw_input_contents are"):
            preparing.prepare(message.SerializeToString())


def test_a_request_without_any_contents_is_refused_also_when_its_head_is_known(cluster: Cluster) -> None:
    preparing = preparer(cluster)
    preparing.prepare(infer(1.0))
    with pytest.raises(InvalidRequest, match=r"'x': contents.fp32_contents has 0 elements, expected 2"):
        preparing.prepare(request(("x", "FP32", [1, 2])).SerializeToString())


def test_what_was_learned_holds_until_it_is_cleared(cluster: Cluster) -> None:
    preparing = preparer(cluster)
    before = preparing.prepare(infer(1.0))[0]
    preparing.prepare(infer(1.0))
    cluster.serve(cluster.replicas[0], model(version=2))
    preparing.clear()
    after = preparing.prepare(infer(1.0))[0]
    assert (before.serving.pool.version, after.serving.pool.version) == (1, 2)


def test_more_heads_than_are_kept_are_still_answered(cluster: Cluster) -> None:
    preparing = preparer(cluster, model([tensor("x", dims=(-1,))]))
    for width in range(1, 1100):
        message = request(("x", "FP32", [1, width]), raw=[bytes(4 * width)]).SerializeToString()
        assert preparing.prepare(message)[0].template.tensors[0].dims == (width,)


def test_the_row_head_says_all_but_the_rows(cluster: Cluster) -> None:
    preparing = preparer(cluster, PAIR)
    inputs = [("z", "FP32", [3, 1]), ("x", "FP32", [3, 2])]
    message = request(*inputs, outputs=["y"], raw=[bytes(12), bytes(24)])
    head = link_pb.RowHead.FromString(preparing.prepare(message.SerializeToString())[0].head)
    assert (head.model, head.version, head.stage, list(head.outputs)) == ("m", 1, 0, ["y"])
    assert [(item.name, item.datatype, list(item.dims)) for item in head.inputs] == [
        ("x", "FP32", [2]),
        ("z", "FP32", [1]),
    ]


@pytest.mark.parametrize(
    ("spec", "inputs", "joined"),
    [
        (model(), ("x", "FP32", [8, 2]), True),
        (model(), ("x", "FP32", [9, 2]), False),
        (model([tensor("x", dims=(-1,))]), ("x", "FP32", [1, 4096]), False),
        (model([tensor("x", dims=(2, 2))], max_rows=0), ("x", "FP32", [2, 2]), False),
    ],
    ids=["small", "to be cut", "large", "without a batch axis"],
)
def test_only_small_rows_that_are_not_cut_travel_joined(
    cluster: Cluster, spec: ModelSpec, inputs: tuple[str, str, list[int]], joined: bool
) -> None:
    preparing = preparer(cluster, spec)
    size = 4 * inputs[2][0] * inputs[2][1]
    assert preparing.prepare(request(inputs, raw=[bytes(size)]).SerializeToString())[0].joined is joined


def test_a_request_is_bound_anew_to_the_version_that_serves_now(cluster: Cluster) -> None:
    preparing = preparer(cluster)
    before, tensors, _ = preparing.prepare(infer(1.0))
    cluster.serve(cluster.replicas[0], model(version=2))
    after = preparing.rebind(before)
    assert after.serving.pool.version == 2
    assert link_pb.RowHead.FromString(after.head).version == 2
    assert (after.template, after.spans) == (before.template, before.spans)
    assert bytes(tensors[0]) == rows(1.0)


def test_binding_anew_fails_where_nothing_serves_the_request(cluster: Cluster) -> None:
    preparing = preparer(cluster)
    before = preparing.prepare(infer(1.0, outputs=["y"]))[0]
    cluster.serve(cluster.replicas[0], model([tensor("x", "FP64")], version=2))
    with pytest.raises(InvalidRequest, match="changed its signature"):
        preparing.rebind(before)
    cluster.serve(cluster.replicas[0], model(outputs=[tensor("other")], version=2))
    with pytest.raises(InvalidRequest, match="changed its signature"):
        preparing.rebind(before)
    cluster.serve(cluster.replicas[0], model(version=2))
    cluster.replicas[0].link.fall()
    with pytest.raises(Unavailable):
        preparing.rebind(before)
    cluster.serve(cluster.replicas[0])
    cluster.replicas[0].member.descriptions = {}
    cluster.rebuild()
    with pytest.raises(NotFound):
        preparing.rebind(before)


@pytest.mark.parametrize("field", [6, 4, 1])
def test_fields_of_a_request_may_come_in_any_order(cluster: Cluster, field: int) -> None:
    preparing = preparer(cluster, PAIR)
    whole = request(
        ("x", "FP32", [1, 2]),
        ("z", "FP32", [1, 1]),
        outputs=["y"],
        parameters={"timeout": 5},
        raw=[rows(1.0), rows(2.0, width=1)],
        id="mine",
    )
    apart = pb.ModelInferRequest.FromString(whole.SerializeToString())
    name = pb.ModelInferRequest.DESCRIPTOR.fields_by_number[field].name
    rest = pb.ModelInferRequest.FromString(whole.SerializeToString())
    rest.ClearField(name)
    for other in pb.ModelInferRequest.DESCRIPTOR.fields_by_number.values():
        if other.name != name:
            apart.ClearField(other.name)
    for message in (
        apart.SerializeToString() + rest.SerializeToString(),
        rest.SerializeToString() + apart.SerializeToString(),
    ):
        prepared, tensors, request_id = preparing.prepare(message)
        assert [bytes(item) for item in tensors] == [rows(1.0), rows(2.0, width=1)]
        assert (prepared.template.outputs, prepared.template.timeout_s, request_id) == (("y",), 5e-6, "mine")
