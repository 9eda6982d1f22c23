"""A damaged model file is refused or read, in bounded time and memory; it never does anything else."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from shardline.core.errors import ModelRejected
from shardline.repository import find_model, load_spec, onnx_skeleton
from shardline.repository.signature import read_signature
from tests import onnx_models
from tests.property.repository.refusals import refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOUND = [
    model.SerializeToString()
    for model in (
        onnx_models.add_one(),
        onnx_models.two_outputs(),
        onnx_models.slow(size=16),
        onnx_models.versioned(2),
        onnx_models.string_identity(),
        onnx_models.gather(400),
    )
]
MEMORY_BYTES = 32 << 20
"""Far above what these models of at most 7 kB need, far below what a forged length could ask for."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path).resolve()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["cut", "flip", "insert", "delete", "repeat", "ones", "splice"]))
        if kind == "cut":
            del content[at:]
        elif kind == "flip":
            content[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "insert":
            content[at:at] = draw(st.binary(max_size=20))
        elif kind == "delete":
            del content[at : at + draw(st.integers(1, 40))]
        elif kind == "repeat":
            content[at:at] = content[at : at + draw(st.integers(1, 200))]
        elif kind == "ones":
            content[at : at + draw(st.integers(1, 10))] = b"\xff" * draw(st.integers(1, 10))
        else:
            other = draw(st.sampled_from(SOUND))
            content[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(content)


@settings(max_examples=2000, deadline=None)
@given(content=damaged())
def test_a_damaged_model_is_refused_or_read_and_nothing_else(folder: Path, content: bytes) -> None:
    path = folder / "model.onnx"
    path.write_bytes(content)
    refusal = refusal_of(lambda: read_signature(path))
    if refusal is None:
        assert read_signature(path).inputs
        assert read_signature(path).outputs
    else:
        assert isinstance(refusal, ModelRejected)
        assert refusal.message.startswith(str(path))


@settings(max_examples=500, deadline=None)
@given(content=damaged())
def test_a_damaged_model_in_a_repository_has_a_reason_or_is_served(folder: Path, content: bytes) -> None:
    onnx_models.save(folder, "m", 1, content)
    found = find_model(folder, "m")
    assert found.ok != bool(found.reason)
    refusal = refusal_of(lambda: load_spec(folder, "m", 1))
    assert (refusal is None) == found.ok
    assert refusal is None or isinstance(refusal, ModelRejected)


@settings(max_examples=300, deadline=None)
@given(content=st.one_of(st.binary(max_size=300), damaged()))
def test_no_damage_makes_the_reader_take_memory(folder: Path, content: bytes) -> None:
    path = folder / "model.onnx"
    path.write_bytes(content)
    assert _peak_bytes(lambda: refusal_of(lambda: read_signature(path))) < MEMORY_BYTES


@pytest.mark.parametrize(
    "forged", [b"\x3a\xff\xff\xff\xff\x07", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x08" * 1]
)
def test_a_forged_length_is_refused_before_memory_is_taken(folder: Path, forged: bytes) -> None:
    path = folder / "model.onnx"
    path.write_bytes(forged + b"\0" * 100)
    assert isinstance(refusal_of(lambda: read_signature(path)), ModelRejected)
    assert _peak_bytes(lambda: refusal_of(lambda: read_signature(path))) < MEMORY_BYTES


def test_a_file_of_endless_tiny_fields_is_refused_at_the_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes a field: the count of fields is bounded, not only their bytes."""
    monkeypatch.setattr(onnx_skeleton, "_MAX_FIELDS", 10_000)
    path = folder / "model.onnx"
    path.write_bytes(b"\x08\x01" * 10_001)
    with pytest.raises(ModelRejected, match="more than 10000 fields"):
        read_signature(path)


def test_damage_is_sometimes_survived() -> None:
    """Else the property above would say nothing about models that are read although they are damaged."""
    find(damaged(), lambda content: content not in SOUND and _reads(content), settings=settings(max_examples=5000))


def _reads(content: bytes) -> bool:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return refusal_of(lambda: read_signature(Path(file.name))) is None


def _peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
