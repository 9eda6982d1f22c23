"""What a model is fed that does not say what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from shardline.core.errors import ModelFailed
from shardline.partition.graph import read_graph
from shardline.partition.planning import PlanRequest, make_plan
from shardline.partition.shapes import DEFAULT_IMAGE, DEFAULT_OTHER, DEFAULT_SEQUENCE, input_shapes
from tests import onnx_models
from tests.unit.partition import models

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

USUAL, ODD = 48, 7


def taking(*shapes: Sequence[str | int | None]) -> onnx.ModelProto:
    """A model with inputs of these shapes."""
    inputs = [helper.make_tensor_value_info(f"x{at}", TensorProto.FLOAT, shape) for at, shape in enumerate(shapes)]
    outputs = [helper.make_tensor_value_info(f"y{at}", TensorProto.FLOAT, shape) for at, shape in enumerate(shapes)]
    nodes = [helper.make_node("Neg", [f"x{at}"], [f"y{at}"]) for at in range(len(shapes))]
    return models.model_of(nodes, inputs, outputs)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (("batch", 3, "a", "b"), (2, 3, DEFAULT_IMAGE, DEFAULT_IMAGE)),
        (("batch", None, None, 1), (2, DEFAULT_IMAGE, DEFAULT_IMAGE, 1)),
        (("batch", 7, "a", "b"), (2, 7, DEFAULT_OTHER, DEFAULT_OTHER)),
        (("batch", "sequence"), (2, DEFAULT_SEQUENCE)),
        (("batch", "batch"), (2, 2)),
        ((4, "a"), (4, DEFAULT_OTHER)),
    ],
)
def test_open_dimensions_get_sizes_by_their_names_and_by_what_the_input_looks_like(
    shape: tuple[str | int | None, ...], size: tuple[int, ...], tmp_path: Path
) -> None:
    graph = read_graph(models.save(taking(shape), tmp_path))
    assert input_shapes(graph, 2, {}) == {"x0": size}


def test_a_batch_on_another_axis_is_as_large_as_on_the_first(tmp_path: Path) -> None:
    graph = read_graph(models.save(taking(("batch", 4), (2, "batch", 8)), tmp_path))
    assert input_shapes(graph, 3, {}) == {"x0": (3, 4), "x1": (2, 3, 8)}


def test_usual_sizes_are_tried_until_the_model_takes_one(tmp_path: Path) -> None:
    plan = make_plan(models.save(onnx_models.of_length(USUAL), tmp_path), PlanRequest(stages=2))
    assert plan.assumptions.input_shapes == {"x": [1, USUAL]}


def test_a_model_that_takes_none_is_refused_with_what_it_was_fed_and_what_to_say(tmp_path: Path) -> None:
    path = models.save(onnx_models.of_length(ODD), tmp_path)
    with pytest.raises(ModelFailed, match=rf"x \[1×{DEFAULT_OTHER}\].*--dim NAME=SIZE; open are batch, n\).*--input"):
        make_plan(path, PlanRequest(stages=2))
    assert make_plan(path, PlanRequest(stages=2, dims={"n": ODD})).assumptions.input_shapes == {"x": [1, ODD]}


def test_a_failure_on_given_input_says_nothing_of_made_up_input(tmp_path: Path) -> None:
    path = models.save(onnx_models.of_length(ODD), tmp_path)
    np.savez(tmp_path / "input.npz", x=np.zeros((1, ODD + 1), np.float32))
    with pytest.raises(ModelFailed, match=r"^(?!.*made up)"):
        make_plan(path, PlanRequest(stages=2, samples=tmp_path / "input.npz"))
