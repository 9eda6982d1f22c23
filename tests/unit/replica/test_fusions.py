"""A fusion whose kernel is slower than its parts is left out on CPUs, in replicas and in the planner's timings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from shardline.core.models import Batching, ModelSpec
from shardline.partition import runtime as partition_runtime
from shardline.replica import runtime as replica_runtime
from shardline.replica.devices import DeviceOptions

if TYPE_CHECKING:
    from pathlib import Path


HIDDEN = 64


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Add, then LayerNormalization: what SkipLayerNormFusion looks for."""
    ones = [1.0] * HIDDEN
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "y"], ["sum"]),
            helper.make_node("LayerNormalization", ["sum", "scale", "bias"], ["out"], axis=-1),
        ],
        "norm",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "length", HIDDEN]) for name in "xy"],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["rows", "length", HIDDEN])],
        [helper.make_tensor(name, TensorProto.FLOAT, [HIDDEN], ones) for name in ("scale", "bias")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def operators(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: object) -> Counter[str]:
    """Operators of the model that a session really runs."""
    optimised = tmp_path / "optimised.onnx"
    plain = ort.SessionOptions

    def options() -> ort.SessionOptions:
        made = plain()
        made.optimized_model_filepath = str(optimised)
        return made

    monkeypatch.setattr(ort, "SessionOptions", options)
    assert callable(load)
    load()
    return Counter(node.op_type for node in onnx.load(optimised).graph.node)


def test_the_runtime_would_fuse_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path) -> None:
    def load() -> None:
        ort.InferenceSession(str(model), ort.SessionOptions(), providers=["CPUExecutionProvider"])

    assert operators(monkeypatch, tmp_path, load) == Counter(["SkipLayerNormalization"])


def test_a_replica_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path) -> None:
    def load() -> None:
        spec = ModelSpec("m", 1, "onnx", (), (), Batching(max_rows=8, buckets=(8,)), b"", "")
        replica_runtime.Session(model, spec, DeviceOptions())

    assert operators(monkeypatch, tmp_path, load) == Counter(["Add", "LayerNormalization"])


def test_nor_does_what_times_stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path) -> None:
    assert operators(monkeypatch, tmp_path, lambda: partition_runtime.Model(model)) == Counter(
        ["Add", "LayerNormalization"]
    )
