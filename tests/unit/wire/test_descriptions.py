"""What a replica tells of itself arrives as it was said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline.core.cluster import PoolKey
from shardline.core.datatypes import BY_NAME
from shardline.core.models import Batching, ModelSpec, Padding, TensorSpec
from shardline.pb.inference import model_config_pb2
from shardline.pb.shardline.v1 import control_pb2 as pb
from shardline.wire.descriptions import Description, StageLink, decode, encode

NAMES = st.text(min_size=1, max_size=8)
COUNTS = st.integers(0, 1 << 20)
# A fixed size, any size, or a name for a size; an empty name would be a size.
DIMS = st.lists(st.integers(0, 1 << 40) | st.just(-1) | NAMES, max_size=4).map(tuple)
TENSORS = st.builds(TensorSpec, NAMES, st.sampled_from(list(BY_NAME.values())), DIMS, st.booleans())
BATCHINGS = st.builds(
    Batching,
    max_rows=COUNTS,
    buckets=st.lists(COUNTS, max_size=4).map(tuple),
    queue_rows=COUNTS,
    default_timeout_s=st.integers(0, 1 << 30).map(lambda ms: ms / 1e3),
    priority_levels=st.integers(0, 99),
    default_priority=st.integers(0, 99),
)


@st.composite
def descriptions(draw: st.DrawFn) -> Description:
    config = model_config_pb2.ModelConfig(name=draw(NAMES), max_batch_size=draw(st.integers(0, 64)))
    spec = ModelSpec(
        name=draw(NAMES),
        version=draw(st.integers(1, 1 << 50)),
        platform=draw(NAMES),
        inputs=draw(st.lists(TENSORS, max_size=3).map(tuple)),
        outputs=draw(st.lists(TENSORS, max_size=3).map(tuple)),
        batching=draw(BATCHINGS),
        config=config.SerializeToString(),
        digest=draw(NAMES),
        stages=draw(st.integers(1, 8)),
    )
    links = st.builds(StageLink, st.integers(0, 8), st.lists(NAMES).map(tuple), st.lists(NAMES).map(tuple))
    return Description(
        pool=PoolKey(spec.name, spec.version, draw(st.integers(0, 8))),
        spec=spec,
        unbatched_because=draw(st.text(max_size=20)),
        plan=draw(st.text(max_size=8)),
        micro_batch_rows=draw(COUNTS),
        stages=draw(st.lists(links, max_size=3).map(tuple)),
    )


@settings(max_examples=50, deadline=None)
@given(descriptions())
def test_a_description_comes_back_as_it_was(description: Description) -> None:
    data = encode(description).SerializeToString()
    assert decode(pb.ModelDescription.FromString(data)) == description


def described(**batching: object) -> Description:
    rules = Batching(**batching)  # type: ignore[arg-type]
    return Description(PoolKey("m", 1), ModelSpec("m", 1, "onnx", (), (), rules, b"", ""))


def test_how_rows_are_padded_is_the_replicas_own_business() -> None:
    rules = {"pad_inputs": {"x": Padding(0, 0.0)}, "trim_outputs": {"y": 0}}
    assert decode(encode(described(**rules))) == described()


@pytest.mark.parametrize(("seconds", "arrives"), [(0.0, 0.0), (1e-4, 0.001), (1.0005, 1.001), (2.5, 2.5)])
def test_a_default_timeout_is_never_rounded_down_to_none(seconds: float, arrives: float) -> None:
    assert decode(encode(described(default_timeout_s=seconds))).spec.batching.default_timeout_s == arrives


def test_an_unknown_data_type_is_an_error_not_a_guess() -> None:
    message = encode(described())
    message.inputs.add(name="x", datatype="FP8")
    with pytest.raises(KeyError):
        decode(message)


def test_symbols_and_sizes_keep_their_places() -> None:
    tensor = TensorSpec("x", BY_NAME["FP32"], (3, "n", -1, "m"))
    before = described()
    spec = replace(before.spec, inputs=(tensor,))
    assert decode(encode(replace(before, spec=spec))).spec.inputs == (tensor,)
