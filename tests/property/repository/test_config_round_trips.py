"""A config says the same in protobuf text, YAML and JSON; and no text does worse than be refused."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from google.protobuf import json_format, text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline.core.datatypes import BY_NAME
from shardline.core.errors import ModelRejected
from shardline.core.models import default_buckets
from shardline.pb.inference import model_config_pb2 as pb
from shardline.repository import load_spec
from shardline.repository.config_text import read_config, read_override
from shardline.repository.parameters import TABLE, parse_parameters
from tests import onnx_models
from tests.property.repository.refusals import refusal_of

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SMALL = st.integers(0, 2**31 - 1)
TENSORS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "name": WORDS,
        "data_type": st.sampled_from([*pb.DataType.values()]),
        "dims": st.lists(st.integers(-1, 2**40), max_size=4),
    }
)


@st.composite
def configs(draw: st.DrawFn) -> pb.ModelConfig:
    config = pb.ModelConfig(
        name=draw(WORDS),
        max_batch_size=draw(SMALL),
        input=[pb.ModelInput(**draw(TENSORS)) for _ in range(draw(st.integers(0, 3)))],
        output=[pb.ModelOutput(**draw(TENSORS)) for _ in range(draw(st.integers(0, 3)))],
        parameters={
            key: pb.ModelParameter(string_value=value)
            for key, value in draw(st.dictionaries(WORDS, WORDS, max_size=3)).items()
        },
        metric_tags=draw(st.dictionaries(WORDS, WORDS, max_size=2)),
    )
    if draw(st.booleans()):
        config.dynamic_batching.preferred_batch_size.extend(draw(st.lists(SMALL, max_size=3)))
        config.dynamic_batching.max_queue_delay_microseconds = draw(st.integers(0, 2**64 - 1))
        for level in draw(st.lists(st.integers(0, 2**64 - 1), max_size=2)):
            config.dynamic_batching.priority_queue_policy[level].max_queue_size = 3
    policy = draw(st.sampled_from(["latest", "all", "specific", None]))
    if policy == "specific":
        config.version_policy.specific.versions.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)))
    elif policy:
        getattr(config.version_policy, policy).SetInParent()
    return config


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path).resolve()


@settings(max_examples=300, deadline=None)
@given(config=configs())
def test_every_form_reads_back_as_written(folder: Path, config: pb.ModelConfig) -> None:
    text = folder / "config.pbtxt"
    text.write_text(text_format.MessageToString(config, as_utf8=True), encoding="utf-8", newline="")
    assert read_config(text).message == config
    for snake in (True, False):
        as_dict = json_format.MessageToDict(config, preserving_proto_field_name=snake)
        plain = folder / "config.yaml"
        plain.write_text(yaml.safe_dump(as_dict, allow_unicode=False), encoding="utf-8")
        assert read_config(plain).message == config
        assert read_override(json.dumps(as_dict)).message == config
    assert read_override(text_format.MessageToString(config)).message == config


@settings(max_examples=500, deadline=None)
@given(
    content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
)
def test_no_content_of_a_config_file_does_worse_than_be_refused(folder: Path, content: bytes) -> None:
    for name in ("config.pbtxt", "config.yaml"):
        (folder / name).write_bytes(content)
        for read in (lambda path=folder / name: read_config(path), lambda: read_override(content)):
            assert isinstance(refusal_of(read), ModelRejected | None)


JSON_LIKE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(sorted(f.name for f in pb.ModelConfig.DESCRIPTOR.fields)), WORDS),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None)
@given(
    content=st.dictionaries(
        st.sampled_from(sorted(f.name for f in pb.ModelConfig.DESCRIPTOR.fields)), JSON_LIKE, max_size=4
    )
)
def test_a_mapping_of_anything_is_read_or_refused_by_field(folder: Path, content: dict[str, object]) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    for read in (lambda: read_override(json.dumps(content)), lambda: read_config(folder / "config.yaml")):
        assert isinstance(refusal_of(read), ModelRejected | None)


KEYS = st.one_of(
    st.sampled_from([f"shardline.{row.name}{'.x' if row.tensor else ''}" for row in TABLE.values()]),
    WORDS.map(lambda word: f"shardline.{word}"),
)
VALUES = st.one_of(
    st.sampled_from([row.example for row in TABLE.values()]),
    WORDS,
    st.text("0123456789,.=-+eGiMaxisvalueinfnan ", max_size=20),
)


@settings(max_examples=1000, deadline=None)
@given(parameters=st.dictionaries(KEYS, VALUES, max_size=3))
def test_no_parameter_does_worse_than_be_refused_by_name(parameters: dict[str, str]) -> None:
    refusal = refusal_of(lambda: parse_parameters(parameters))
    assert refusal is None or (isinstance(refusal, ModelRejected) and "shardline." in refusal.message)


DIMS = st.lists(st.one_of(st.integers(0, 5), st.just(-1), st.sampled_from(["batch", "n", "m"])), max_size=4)


@settings(max_examples=300, deadline=None)
@given(dims=DIMS, datatype=st.sampled_from(sorted(BY_NAME)), rows=st.one_of(st.none(), st.integers(0, 100)))
def test_what_is_served_agrees_with_the_graph_and_its_own_config_agrees_with_it(
    folder: Path, dims: list[int | str], datatype: str, rows: int | None
) -> None:
    config = "" if rows is None else f"max_batch_size: {rows}"
    onnx_models.save(folder, "m", 1, onnx_models.identity(datatype, dims), config)
    refusal = refusal_of(lambda: load_spec(folder, "m", 1))
    if refusal is not None:
        assert rows
        assert f"max_batch_size is {rows}" in refusal.message
        assert not dims or (isinstance(dims[0], int) and dims[0] >= 0) or dims[0] in dims[1:]
        return
    loaded = load_spec(folder, "m", 1)
    spec = loaded.spec
    assert spec.batching.buckets == default_buckets(spec.batching.max_rows)
    assert spec.batching.max_rows == rows or rows is None
    assert spec.inputs[0].dims == tuple(dims[1:] if spec.batched else dims)
    again = load_spec(folder, "m", 1, config_override=text_format.MessageToString(loaded.config))
    assert again.spec == spec
