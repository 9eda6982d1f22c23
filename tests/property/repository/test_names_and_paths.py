"""No name from outside leaves the model repository, whatever it is made of."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline.core.errors import InvalidRequest, ModelRejected, NotFound
from shardline.repository import find_model, layout, load_spec
from tests import onnx_models
from tests.property.repository.refusals import refusal_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECES = st.sampled_from(
    [
        "..",
        ".",
        "/",
        "\\",
        "m",
        "1",
        "secret",
        "out",
        "up",
        "model.onnx",
        "\0",
        "\n",
        " ",
        "~",
        "$HOME",
        "%2e%2e",
        "％",
        "\u202e",
        "C:",
        "//",
        "*",
    ]
)
NASTY = st.one_of(
    st.lists(PIECES, max_size=8).map("".join), st.lists(PIECES, max_size=6).map("/".join), st.text(max_size=40)
)


@pytest.fixture(scope="module")
def repository() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder).resolve()
        onnx_models.save(base / "repository", "m", 1, onnx_models.add_one())
        onnx_models.save(base, "secret", 1, onnx_models.add_one())
        (base / "repository" / "out").symlink_to(base / "secret")
        (base / "repository" / "m" / "1" / "up").symlink_to(base)
        (base / "repository" / "m" / "1" / "out").symlink_to(base / "secret" / "1" / "model.onnx")
        yield base / "repository"


@settings(max_examples=2000, deadline=None)
@given(name=NASTY)
def test_no_model_name_reaches_outside(repository: Path, name: str) -> None:
    refusal = refusal_of(lambda: layout.model_folder(repository, name))
    if refusal is None:
        assert layout.model_folder(repository, name) == repository / "m"
    else:
        assert isinstance(refusal, InvalidRequest | NotFound | ModelRejected)


@settings(max_examples=300, deadline=None)
@given(name=NASTY)
def test_only_the_model_that_is_there_is_found_and_loaded(repository: Path, name: str) -> None:
    assert (refusal_of(lambda: load_spec(repository, name, 1)) is None) == (name == "m")
    if refusal_of(lambda: find_model(repository, name)) is None:
        assert find_model(repository, name).ok == (name == "m")


@settings(max_examples=2000, deadline=None)
@given(name=NASTY)
def test_no_file_name_in_a_model_or_config_reaches_outside(repository: Path, name: str) -> None:
    folder = repository / "m" / "1"
    refusal = refusal_of(lambda: layout.file_inside(folder, folder, name, "file"))
    if refusal is None:
        assert (folder / name).resolve() == folder / "model.onnx"
    else:
        assert isinstance(refusal, ModelRejected)


@settings(max_examples=500, deadline=None)
@given(version=st.integers())
def test_no_version_reaches_outside(repository: Path, version: int) -> None:
    refusal = refusal_of(lambda: layout.version_folder(repository, "m", version))
    assert (refusal is None) == (version == 1)
    assert refusal is None or isinstance(refusal, InvalidRequest | NotFound)
