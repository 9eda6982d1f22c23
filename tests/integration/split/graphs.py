"""Models that are split in these tests: one for each thing that a cut must get right. All are small, and made in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.unit.partition.models import FLOAT, WIDTH, array, model_of, products, rows, with_odd_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx

    Feeds = Mapping[str, np.ndarray[Any, Any]]

BATCHED = "max_batch_size: 16"


@dataclass(frozen=True, slots=True)
class Case:
    """A model, how it is split, and feeds of so many rows. config: text of config.pbtxt. wide: its number of rows is free."""

    build: Callable[[], onnx.ModelProto]
    stages: int
    feeds: Callable[[int], Feeds]
    config: str = BATCHED
    wide: bool = True


def _x(count: int) -> Feeds:
    return {"x": array(count, WIDTH, seed=count)}


def with_skips() -> onnx.ModelProto:
    """Six products, each of which also adds what was two products before: values skip over every cut."""
    nodes, weights, made = [], [], ["x"]
    for at in range(6):
        weights.append(numpy_helper.from_array(array(WIDTH, WIDTH, seed=at), f"w{at}"))
        nodes.append(helper.make_node("MatMul", [made[-1], f"w{at}"], [f"m{at}"], name=f"product{at}"))
        end = "y" if at == 5 else f"h{at}"
        nodes.append(helper.make_node("Add", [f"m{at}", made[max(0, at - 1)]], [end], name=f"skip{at}"))
        made.append(end)
    return model_of(nodes, [rows("x")], [rows("y")], weights)


def with_branches(inner: int = 256) -> onnx.ModelProto:
    """Two branches of more work than the tail that joins them: three stages, of which two run side by side."""
    weights, nodes = [], []
    for at, (branch, begin, end) in enumerate((("left", "x", "a"), ("right", "x", "b"), ("tail", "joined", "y"))):
        if branch == "tail":
            nodes.append(helper.make_node("Add", ["a", "b"], ["joined"], name="join"))
        width = inner // 2 if branch == "tail" else inner
        weights.append(numpy_helper.from_array(array(WIDTH, width, seed=at), f"{branch}_up"))
        weights.append(numpy_helper.from_array(array(width, WIDTH, seed=at), f"{branch}_down"))
        nodes.append(helper.make_node("MatMul", [begin, f"{branch}_up"], [f"{branch}_wide"], name=f"{branch}_up"))
        nodes.append(helper.make_node("Tanh", [f"{branch}_wide"], [f"{branch}_tanh"], name=f"{branch}_tanh"))
        nodes.append(helper.make_node("MatMul", [f"{branch}_tanh", f"{branch}_down"], [end], name=f"{branch}_down"))
    return model_of(nodes, [rows("x")], [rows("y")], weights)


def wide_and_shallow(branches: int = 3) -> onnx.ModelProto:
    """Branches of one product each, all from the input, summed at the end."""
    weights = [numpy_helper.from_array(array(WIDTH, WIDTH, seed=at), f"w{at}") for at in range(branches)]
    nodes = [
        helper.make_node("MatMul", ["x", f"w{at}"], [f"branch{at}"], name=f"product{at}") for at in range(branches)
    ]
    nodes.append(helper.make_node("Sum", [f"branch{at}" for at in range(branches)], ["y"], name="sum"))
    return model_of(nodes, [rows("x")], [rows("y")], weights)


def several_ends() -> onnx.ModelProto:
    """Input b enters in the second half, outputs leave from both halves, and one input is whole numbers."""
    weights = [numpy_helper.from_array(array(WIDTH, WIDTH, seed=at), f"w{at}") for at in range(4)]
    weights.append(numpy_helper.from_array(array(5, WIDTH, seed=9), "table"))
    nodes = [
        helper.make_node("MatMul", ["a", "w0"], ["a0"], name="first"),
        helper.make_node("MatMul", ["a0", "w1"], ["early"], name="second"),
        helper.make_node("Gather", ["table", "index"], ["looked_up"], name="look_up", axis=0),
        helper.make_node("Add", ["early", "b"], ["mixed"], name="mix"),
        helper.make_node("MatMul", ["mixed", "w2"], ["m2"], name="third"),
        helper.make_node("Add", ["m2", "looked_up"], ["m3"], name="add"),
        helper.make_node("MatMul", ["m3", "w3"], ["late"], name="fourth"),
    ]
    index = helper.make_tensor_value_info("index", TensorProto.INT64, ["batch"])
    return model_of(nodes, [rows("a"), rows("b"), index], [rows("late"), rows("early")], weights)


def over_a_sequence() -> onnx.ModelProto:
    """x [batch, seq, WIDTH] through products, and the sum over the sequence: both axes are free."""
    weights = [numpy_helper.from_array(array(WIDTH, WIDTH, seed=at), f"w{at}") for at in range(4)]
    weights.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
    nodes = []
    for at in range(4):
        nodes.append(helper.make_node("MatMul", [f"h{at - 1}" if at else "x", f"w{at}"], [f"m{at}"], name=f"p{at}"))
        nodes.append(helper.make_node("Tanh", [f"m{at}"], ["y" if at == 3 else f"h{at}"], name=f"t{at}"))
    nodes.append(helper.make_node("ReduceSum", ["y", "axes"], ["sum"], name="sum", keepdims=0))
    x, y = (helper.make_tensor_value_info(name, FLOAT, ["batch", "seq", WIDTH]) for name in ("x", "y"))
    return model_of(nodes, [x], [y, rows("sum")], weights)


def unbatched() -> onnx.ModelProto:
    """y = products of x [3, WIDTH]: no axis is free."""
    made = products(4)
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 3
    return made


def _ends(count: int) -> Feeds:
    return {
        "a": array(count, WIDTH, seed=1),
        "b": array(count, WIDTH, seed=2),
        "index": np.arange(count, dtype=np.int64) % 5,
    }


def _sequence(count: int) -> Feeds:
    return {"x": array(count, 3 + count, WIDTH, seed=count)}


def _half(count: int) -> Feeds:
    return {"x": array(count, WIDTH, seed=count, kind=np.float16)}


CASES: dict[str, Case] = {
    "skips": Case(with_skips, 3, _x),
    "branches": Case(with_branches, 3, _x),
    "wide": Case(wide_and_shallow, 3, _x),
    "ends": Case(several_ends, 2, _ends),
    "sequence": Case(over_a_sequence, 2, _sequence),
    "half": Case(lambda: products(4, np.float16, TensorProto.FLOAT16), 2, _half),
    "odd_ends": Case(with_odd_ends, 2, lambda _: _x(2), "", wide=False),
    "fixed": Case(unbatched, 2, lambda _: _x(3), "", wide=False),
}
"""By the name that the split model has; `<name>-whole` is the same model, unsplit."""
